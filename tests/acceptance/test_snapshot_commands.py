"""`waybill snapshot`: what it prints, asks, refuses and ends with."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import hubs_in
from tests.acceptance.hub import NAME, PATIENCE, ROOT, Hub
from tests.acceptance.snapshots import Archive

COMMANDS = ("export", "import", "list", "show")
OF_AN_EXPORT = {
    "name", "file", "size", "type", "createdAt", "lastProcessId", "baseProcessId", "withData", "files", "counts",
    "povs", "notes",
}  # fmt: skip
OF_AN_IMPORT = {
    "source", "type", "createdAt", "lastProcessId", "baseProcessId", "withData", "counts", "replaced", "differences",
    "notes", "processId", "overlay",
}  # fmt: skip


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that has run, with an archive called `first` in its outbox. The tests leave both as they are."""
    with hubs_in(tmp_path_factory.mktemp("used")) as make:
        hub = make(20)
        assert hub.run().code == 0
        assert hub("snapshot", "export", "first").code == 0
        yield hub


def outbox(hub: Hub) -> Path:
    return hub.home / "snapshots" / "outbox"


def printed(hub: Hub, *arguments: str, code: int = 0) -> str:
    """What people see."""
    done = subprocess.run(
        [ROOT / "waybill", "snapshot", *arguments],
        env=hub.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(used: Hub, name: str) -> None:
    assert f"Example: ./waybill snapshot {name}" in printed(used, name, "--help")


def test_the_documents_have_the_documented_keys(used: Hub) -> None:
    exported = used("snapshot", "export", "second.zip", "--type", "SETUP")
    assert (exported.code, exported.notes) == (0, "")
    assert exported.document.keys() == {"schema_version", *OF_AN_EXPORT}
    assert (exported.document["file"], exported.document["type"]) == ("outbox/second.zip", "SETUP")
    listed = used("snapshot", "list").document["snapshots"]
    assert [each["file"] for each in listed] == ["outbox/second.zip", "outbox/first.zip"], "newest first"
    shown = used("snapshot", "show", "first").document
    archive = Archive(outbox(used) / "first.zip")
    assert {(each["path"], each["sha256"]) for each in shown["files"]} == {
        (path, each["sha256"]) for path, each in archive.listed.items()
    }
    assert {(each["location"], each["category"], each["period"]) for each in shown["povs"]} == set(archive.povs)
    (outbox(used) / "second.zip").unlink()


def test_people_are_told_what_happened_and_what_to_do_next(used: Hub) -> None:
    text = printed(used, "export", "third")
    for word in ("outbox/third.zip", "ALL", "cells", "./waybill snapshot show third"):
        assert word in text
    assert "outbox/third.zip" in printed(used, "list")
    assert f"{NAME}" in printed(used, "show", "third")
    (outbox(used) / "third.zip").unlink()


def test_progress_is_shown_on_a_terminal_and_cleared(used: Hub) -> None:
    command = [str(ROOT / "waybill"), "snapshot", "export", "fourth"]
    code, text = on_a_terminal(command, used.environment, "")
    assert code == 0, text
    assert re.search("set-up \\| [0-9]+ of [0-9]+", text)
    assert text.index("\x1b[2K") < text.index("outbox/fourth.zip")
    (outbox(used) / "fourth.zip").unlink()


def test_an_empty_installation_has_no_archive(used: Hub, tmp_path: Path) -> None:
    empty = {**used.environment, "WAYBILL_HOME": str(tmp_path / "empty")}
    done = subprocess.run(
        [ROOT / "waybill", "snapshot", "list"], env=empty, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, "./waybill snapshot export" in done.stdout) == (0, True), done


def test_a_file_that_is_there_is_not_overwritten_by_mistake(used: Hub) -> None:
    before = (outbox(used) / "first.zip").read_bytes()
    refused = used("snapshot", "export", "first")
    assert refused.code == 2
    assert "--overwrite" in refused.document["error"]["cure"]
    assert (outbox(used) / "first.zip").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("exprot", "x"), "export"),
        (("export",), "NAME"),
        (("export", "x", "--type", "FULL"), "ALL_INCREMENTAL"),
        (("export", "../x"), "what to do"),
        (("export", "a/b"), "what to do"),
        (("export", ""), "what to do"),
        (("import", "nothing.zip", "--yes"), "what to do"),
        (("import", "inbox/nothing.zip", "--yes"), "what to do"),
        (("import", "../nothing.zip", "--yes"), "what to do"),
        (("show", "nothing"), "what to do"),
        (("show", "../state.db"), "what to do"),
    ],
    ids=" ".join,
)
def test_what_is_mistyped_is_said_with_a_way_out(used: Hub, arguments: tuple[str, ...], told: str) -> None:
    text = printed(used, *arguments, code=2)
    assert told in text
    assert "Traceback" not in text


def test_what_is_no_archive_is_refused(used: Hub, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("readme.txt", "of something else")
    for name in ("text.zip", "other.zip"):
        refused = used("snapshot", "import", str(tmp_path / name), "--yes")
        assert refused.code == 2
        assert refused.document["error"]["cure"]
    assert used.audited() == {"fetched": 20, "delivered": 20}


def test_an_import_is_confirmed_and_shown_before(used: Hub, tmp_path: Path) -> None:
    fresh = {**used.environment, "WAYBILL_HOME": str(tmp_path / "fresh")}
    command = [str(ROOT / "waybill"), "snapshot", "import", str(outbox(used) / "first.zip")]
    unasked = subprocess.run(
        command, env=fresh, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (unasked.returncode, "--yes" in unasked.stderr) == (2, True), unasked
    assert "it replaces" in unasked.stdout

    code, text = on_a_terminal(command, fresh, "n\n")
    assert (code, "import it?" in text) == (2, True), text
    assert audited(fresh)["fetched"] == 0

    code, text = on_a_terminal(command, fresh, "y\n")
    assert (code, "imported" in text) == (0, True), text
    assert audited(fresh) == audited(used.environment)


def audited(environment: dict[str, str]) -> dict[str, int]:
    done = subprocess.run(
        [ROOT / "waybill", "audit", NAME, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    found: dict[str, int] = json.loads(done.stdout)["streams"]["customers"]
    return found


def on_a_terminal(command: list[str], environment: dict[str, str], typed: str) -> tuple[int, str]:
    """A command whose input, output and notes are a terminal, on which this is typed."""
    outer, inner = pty.openpty()
    process = subprocess.Popen(command, env=environment, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    os.write(outer, typed.encode())
    said = b""
    while True:
        try:
            piece = os.read(outer, 65_536)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(outer)
    return process.wait(PATIENCE), said.decode(errors="replace")


def test_the_keys_of_an_import(used: Hub, tmp_path: Path) -> None:
    environment = used.environment
    used.environment = {**environment, "WAYBILL_HOME": str(tmp_path / "fresh")}
    try:
        done = used("snapshot", "import", str(outbox(used) / "first.zip"), "--yes")
        assert (done.code, done.notes) == (0, "")
        assert done.document.keys() == {"schema_version", *OF_AN_IMPORT}
        assert done.document["processId"] == 0
    finally:
        used.environment = environment


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_export_that_is_interrupted_leaves_nothing_half_done(used: Hub, number: signal.Signals) -> None:
    """Whenever it is: either the archive is there, and whole, or it is not."""
    for name in ("one", "two", "three"):
        process = used.start("snapshot", "export", name)
        process.send_signal(number)
        done = used.finish(process)
        assert done.code in (0, 128 + number, -number), done
        file = outbox(used) / f"{name}.zip"
        if file.exists():
            Archive(file)
            file.unlink()
        assert not list(outbox(used).glob(".*"))
    assert used("snapshot", "export", "first", "--overwrite").code == 0
