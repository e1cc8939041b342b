"""How the repository is laid out, and which way its imports point."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("shared", "infra", "functions")
PURE: Final = frozenset({"msgspec", "stdnum", "phonenumbers", "jinja2"})
"""Libraries without input or output, which the domain and the mappings may use."""
SANDBOX: Final = {("infra.cli", "tests.sandbox.__main__.run")}
"""The fake systems are part of the product, and a command starts them."""
INTEGRATIONS: Final = sorted(p.parent for p in (ROOT / "functions").glob("*/integration.yaml"))
FOLDERS: Final = sorted(p for p in (ROOT / "functions").iterdir() if p.is_dir() and p.name != "__pycache__")


def modules() -> Iterator[tuple[str, Path]]:
    """The dotted name and the file of every module."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(source: str, package: str) -> set[str]:
    """The full names of everything that a source text imports, wherever in it, relative ones included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def wrong_way(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """The imports of a module that point the wrong way."""
    package = module if is_package else module.rpartition(".")[0]
    named = imports(source, package)
    top = module.partition(".")[0]
    forbidden: list[str] = []
    if top == "shared":
        allowed = sys.stdlib_module_names | PURE | {"shared"}
        forbidden += [name for name in named if name.partition(".")[0] not in allowed]
    if top in ("shared", "infra"):
        forbidden += [name for name in named if within(name, "functions")]
    for one, other in (("gcp", "local"), ("local", "gcp")):
        if within(module, f"infra.{one}"):
            forbidden += [name for name in named if within(name, f"infra.{other}")]
    if top == "functions":
        own = ".".join(module.split(".")[:2])
        forbidden += [name for name in named if within(name, "functions") and not within(name, own)]
    forbidden += [name for name in named if within(name, "tests") and (module, name) not in SANDBOX]
    return sorted(set(forbidden))


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_one_way(module: str, path: Path) -> None:
    found = wrong_way(module, path.read_text(encoding="utf8"), is_package=path.name == "__init__.py")
    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("shared.fetch", "import requests"),
        ("shared.fetch", "from infra.http import Http"),
        ("shared.fetch", "def late():\n    from infra import clock"),
        ("shared.fetch", "from functions.a_to_b import mapping"),
        ("shared.fetch", "from ..infra import clock"),
        ("infra.wiring", "import functions.a_to_b.mapping"),
        ("infra.local.bus", "from infra.gcp.bus import Bus"),
        ("infra.local.bus", "from infra.gcp import bus"),
        ("infra.local.bus", "from infra import gcp"),
        ("infra.local.bus", "from ..gcp import bus"),
        ("infra.gcp.bus", "import infra.local.database"),
        ("functions.a_to_b.main", "from functions.c_to_d.mapping import STREAMS"),
        ("functions.a_to_b.main", "from ..c_to_d import mapping"),
        ("functions.a_to_b.main", "if True:\n    import tests.sandbox"),
    ],
)
def test_an_import_that_points_the_wrong_way_is_found(module: str, source: str) -> None:
    assert wrong_way(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("shared.fetch", "import msgspec, json\nfrom shared.ports import Home\nfrom .ledger import Cell"),
        ("infra.wiring", "from infra.local.home import EmbeddedHome\nfrom infra.gcp import bus\nimport requests"),
        ("infra.local.bus", "from infra.local.database import Database\nfrom . import schema"),
        ("functions.a_to_b.main", "from functions.a_to_b.mapping import STREAMS\nfrom . import mapping\nimport infra"),
    ],
)
def test_an_import_that_points_the_right_way_is_none_of_those(module: str, source: str) -> None:
    assert wrong_way(module, source) == []


def test_every_folder_with_modules_is_a_package() -> None:
    lacking = {
        folder.relative_to(ROOT).as_posix()
        for package in (*PACKAGES, "tests")
        for path in (ROOT / package).rglob("*.py")
        if not ((folder := path.parent) / "__init__.py").is_file()
        if package != "tests" or not (folder / "integration.yaml").is_file()
    }
    assert lacking == set()


def test_no_installed_distribution_ships_a_package_of_our_names() -> None:
    installed = packages_distributions()
    assert {name: installed[name] for name in PACKAGES if name in installed} == {}


WITHOUT_A_NETWORK: Final = """
import importlib, socket, sys

def refused(*arguments, **named):
    raise AssertionError("the network is used while a module is imported")

for name in ("connect", "connect_ex", "bind", "sendto"):
    setattr(socket.socket, name, refused)
for name in ("create_connection", "getaddrinfo", "gethostbyname"):
    setattr(socket, name, refused)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(len(sys.argv) - 1)
"""


def test_importing_every_module_needs_neither_network_nor_environment_nor_credentials(tmp_path: Path) -> None:
    names = [module for module, _ in modules()]
    done = subprocess.run(
        [sys.executable, "-B", "-P", "-c", WITHOUT_A_NETWORK, *names],
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(len(names))), done.stderr
    assert list(tmp_path.iterdir()) == [], "a file was written while a module was imported"


OUR_VARIABLES: Final = re.compile(r"os\.environ|os\.getenv")


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_no_module_reads_the_environment_when_it_is_imported(module: str, path: Path) -> None:
    """What a function reads when it is called is another thing."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    at_import = [node for node in statements_at_import(tree) if OUR_VARIABLES.search(ast.unparse(node))]
    assert [ast.unparse(node) for node in at_import] == []
    assert module


def statements_at_import(tree: ast.Module | ast.ClassDef) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from statements_at_import(node)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("module", [name for name, _ in modules() if name.partition(".")[0] == "shared"])
def test_the_domain_asks_nobody_but_its_ports_for_time_chance_or_environment(module: str) -> None:
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    path = path if path.is_file() else ROOT.joinpath(*module.split("."), "__init__.py")
    found = {name.partition(".")[0] for name in imports(path.read_text(encoding="utf8"), "shared")}
    assert found.isdisjoint(
        {"os", "time", "random", "secrets", "socket", "subprocess", "threading", "sqlite3", "pathlib"}
    )
    assert not re.search(r"datetime\.(now|utcnow|today)\(|\bopen\(|\bprint\(", path.read_text(encoding="utf8"))


# Integrations.


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_function_is_a_package_with_an_entry_point(folder: Path) -> None:
    assert (folder / "__init__.py").is_file()
    assert (folder / "main.py").is_file()


@pytest.mark.parametrize("folder", INTEGRATIONS, ids=lambda folder: folder.name)
def test_every_integration_is_three_small_files_and_a_test(folder: Path) -> None:
    for name in ("integration.yaml", "mapping.py", "main.py"):
        assert (folder / name).is_file(), name
    assert len((folder / "main.py").read_text(encoding="utf8").splitlines()) <= 15
    name = re.compile(rf"functions[./]{folder.name}\b")
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    assert any(name.search(path.read_text(encoding="utf8")) for path in tests), "no test imports it"


@pytest.mark.parametrize("folder", INTEGRATIONS, ids=lambda folder: folder.name)
def test_a_mapping_is_pure(folder: Path) -> None:
    named = imports((folder / "mapping.py").read_text(encoding="utf8"), f"functions.{folder.name}")
    allowed = sys.stdlib_module_names | PURE | {"shared", "functions"}
    assert [name for name in named if name.partition(".")[0] not in allowed] == []
    assert {name.partition(".")[0] for name in named}.isdisjoint({"os", "time", "random", "socket", "pathlib"})


def test_nothing_outside_its_folder_names_an_integration() -> None:
    """So that a new one is a folder and nothing else."""
    named = [
        f"{path.relative_to(ROOT)} names {folder.name}"
        for folder in INTEGRATIONS
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if folder not in path.parents
        for line in code_of(path)
        if re.search(rf"\b{folder.name}\b", line)
    ]
    assert named == []


def code_of(path: Path) -> Iterator[str]:
    """The names and attributes of a file, and the texts in it that are no docstrings and no help."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield node.value
