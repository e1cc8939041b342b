"""What the documents say exists, and nothing in the repository belongs to one machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from infra.cli import main as command_line

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")],
)
COMMAND: Final = re.compile(r"\./waybill +([a-z][a-z_-]*)(?: +([a-z][a-z-]*))?((?:[^`\n#;|]|\\\n)*)")
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
TARGET: Final = re.compile(r"`make ([a-z-]+)`|^\$ make ([a-z-]+)", re.MULTILINE)


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def files() -> list[Path]:
    """What belongs to the repository: what git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def commands_of(text: str) -> list[tuple[str, str, str]]:
    return [(match[1], match[2] or "", match[3]) for match in COMMAND.finditer(text)]


def unknown_commands(text: str) -> list[str]:
    """The commands that a text names and that there are not, and the options that they do not take."""
    wrong = []
    for name, second, rest in commands_of(text):
        command = command_line.commands.get(name)
        if command is None:
            wrong.append(name)
            continue
        inner = getattr(command, "commands", {})
        if inner:
            command = inner.get(second)
            if command is None:
                wrong.append(f"{name} {second}")
                continue
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--json"}
        wrong += [f"{name} {option}" for option in re.findall(r"(?<=\s)--[a-z-]+", rest) if option not in known]
    return wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_command_that_a_document_names_exists(path: Path) -> None:
    assert unknown_commands(path.read_text(encoding="utf8")) == []


def test_a_command_or_option_that_does_not_exist_is_found() -> None:
    assert unknown_commands("$ ./waybill rum x\n`./waybill run x --fulll`") == ["rum", "run --fulll"]
    assert unknown_commands("$ ./waybill run x --full --limit 3   # reads again") == []


def test_the_readme_shows_commands() -> None:
    shown = {name for name, _, _ in commands_of((ROOT / "README.md").read_text(encoding="utf8"))}
    assert {"check", "plan", "run", "status"} <= shown


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_linked_file_exists(path: Path) -> None:
    links = [link for link in LINK.findall(path.read_text(encoding="utf8")) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_file_that_a_document_names_exists(path: Path) -> None:
    named = re.findall(
        r"`((?:shared|infra|functions|tests|docs|terraform)/[\w./-]+\.\w+)`", path.read_text(encoding="utf8")
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_make_target_that_a_document_names_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE))
    named = {one or other for one, other in TARGET.findall(path.read_text(encoding="utf8"))}
    assert named <= targets


def test_the_exit_codes_of_the_readme_are_complete() -> None:
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf8").splitlines() if line.startswith("|")]
    assert set(map(str, range(10))) <= {cell.strip() for row in rows for cell in row.split("|")}


# The patterns are put together so that this file does not match them itself.
PRIVATE_PLACES: Final = re.compile(
    r"(?<![\w.])/(?:" + "|".join(["home", "root", "Users", "mnt", "media"]) + r")/[\w.-]+|\b[A-Z]:\\" + r"\\?Users\b"
)


def private_places(text: str) -> list[str]:
    return PRIVATE_PLACES.findall(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cd /" + "home/ana/waybill", True),
        ('open("/' + 'root/.netrc")', True),
        ("C:" + "\\Users\\ana", True),
        ("https://shop.example/" + "home/page", False),
        ("a/" + "home/b", False),
        ("~/projects and /tmp/x and /usr/bin/env", False),
    ],
)
def test_a_place_on_somebodys_machine_is_recognised(text: str, found: bool) -> None:
    assert bool(private_places(text)) is found


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = {}
    for path in files():
        try:
            text = path.read_text(encoding="utf8")
        except UnicodeDecodeError:
            continue
        if places := private_places(text):
            found[ids(path)] = places
    assert found == {}


def test_nothing_that_a_run_leaves_behind_belongs_to_the_repository() -> None:
    left = re.compile(
        r"(^|/)(\.waybill|\.demo|\.bench|\.venv|__pycache__|\.hypothesis|\.env)(/|$)|\.(db|db-wal|db-shm|pyc)$"
    )
    assert [ids(path) for path in files() if left.search(ids(path))] == []
