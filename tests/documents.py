"""What the documents say, in parts: tables and commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
OPERATING: Final = ROOT / "docs" / "operating.md"
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "terraform" / "README.md"])
_COMMAND: Final = re.compile(r"^ *\$ (.*)$", re.MULTILINE)

Table = dict[str, dict[str, str]]


def table(text: str, first: str) -> Table:
    """The table whose first column is called so, by its first cell and the column's name; raises KeyError."""
    lines = text.splitlines()
    begin = next((place for place, line in enumerate(lines) if line.startswith(f"| {first} |")), None)
    if begin is None:
        raise KeyError(first)
    names = _cells(lines[begin])
    found: Table = {}
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        cells = _cells(line)
        found[cells[0].strip("`")] = dict(zip(names[1:], cells[1:], strict=True))
    return found


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def commands(text: str, program: str) -> list[list[str]]:
    """The words of every command of this program, variables before it and what is put in by the shell left out."""
    found = []
    for line in _COMMAND.findall(text.replace("\\\n", " ")):
        words = shlex.split(line, comments=True)
        if program in words:
            found.append(words[words.index(program) + 1 :])
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
