"""The archive of a function, built by the rules of terraform/archives.yaml, as terraform/archives.tf builds it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from infra.config import merge_overlay

Rules = Mapping[str, Any]
Members = dict[str, bytes]
"""What an archive holds, by the path in it."""


@cache
def rules(root: Path) -> Rules:
    found: Rules = yaml.safe_load((root / "terraform" / "archives.yaml").read_text(encoding="utf8"))
    return found


def folders(root: Path) -> list[str]:
    """The folders that have an archive: those with a main.py."""
    return sorted(path.parent.name for path in (root / "functions").glob("*/main.py"))


def entry_points(root: Path, folder: str, by: Rules | None = None) -> list[str]:
    pattern = (by or rules(root))["entry_points"]
    return sorted(re.findall(pattern, (root / "functions" / folder / "main.py").read_text(encoding="utf8")))


def members(
    root: Path, folder: str, overlay: Mapping[str, Mapping[str, Any]] | None = None, by: Rules | None = None
) -> Members:
    """What the archive of a folder below functions/ holds. `by`: other rules than those of the file."""
    by = by or rules(root)
    beside = _beside(root, folder, overlay or {})
    paths = {
        *_files(root, by["always"]),
        *_files(root, by["own"], folder),
        *(
            path
            for other in beside
            for path in _files(root, by["besides"], other)
            if not _any_matches(by["never_besides"], path)
        ),
    }
    held = {path: (root / path).read_bytes() for path in sorted(paths) if not _any_matches(by["never"], path)}
    names = ", ".join(entry_points(root, folder, by))
    held["main.py"] = by["main"].format(folder=folder, names=names).encode()
    own = {name: says for name, says in (overlay or {}).items() if name in (folder, *beside)}
    if own:
        held[by["overlay"]] = json.dumps(own).encode()
    return held


def unpack(held: Members, folder: Path) -> Path:
    """The folder, which holds the archive's files and nothing else."""
    for path, content in held.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def _files(root: Path, patterns: list[str], folder: str = "") -> Iterator[str]:
    for pattern in patterns:
        place = pattern.format(folder=folder)
        # A pathlib of Python before 3.13 finds folders only by a pattern that ends so.
        for path in root.glob(f"{place}/*" if place.endswith("**") else place):
            if path.is_file():
                yield path.relative_to(root).as_posix()


def _any_matches(patterns: list[str], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)


def _beside(root: Path, folder: str, overlay: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The other integrations that the hub of a function knows: those that lead the other way, and all of them where
    the folder is no integration."""
    integrations = {
        file.parent.name: merge_overlay(
            yaml.safe_load(file.read_text(encoding="utf8")), overlay.get(file.parent.name, {})
        )
        for file in sorted((root / "functions").glob("*/integration.yaml"))
    }
    if folder not in integrations:
        return list(integrations)
    way = _ends(integrations[folder])
    return [name for name, other in integrations.items() if name != folder and _ends(other) == way[::-1]]


def _ends(integration: Mapping[str, Any]) -> tuple[str, str]:
    return integration["source"]["system"], integration["sink"]["system"]


def make_runtime(cache: Path, root: Path) -> Path:
    """The folder of the commands of an environment that holds what requirements.txt asks for and nothing else. Made
    once, whoever asks at the same time, and kept until requirements.txt or Python changes."""
    requirements = root / "requirements.txt"
    mark = hashlib.blake2b(f"{sys.version}\n{requirements.read_text()}".encode(), digest_size=8).hexdigest()
    place, ready = cache / mark, cache / mark / "ready"
    with open(cache / f"{mark}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.is_file():
            subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
            pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "-r", requirements], check=True)
            ready.touch()
    return place / "bin"
