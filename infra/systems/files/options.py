"""What a stream says of its files: `path`, `format`, `delimiter` and `key`, wherever the files are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, cast

from shared.errors import ConfigError
from shared.tabular import FORMATS, Format, Kind, Refused, key_of

EXTENSIONS: Final[Mapping[str, Kind]] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
WILD: Final = re.compile(r"[*?\[]")
NAMED_DELIMITERS: Final = {"tab": "\t", "\\t": "\t"}


def path_of(options: Mapping[str, Any]) -> str:
    path = options.get("path")
    if not isinstance(path, str) or not path.strip():
        raise ConfigError("no `path` says where the files are", cure="set from.path: a file, a folder or a pattern")
    return path.strip()


def formats_of(options: Mapping[str, Any]) -> Callable[[str], Format]:
    """How the file of a name is read: as the options say, else by its extension. What it gives raises Refused for a
    name that does not tell."""
    given, key, delimiter = options.get("format"), key_of(options), str(options.get("delimiter") or "")
    delimiter = NAMED_DELIMITERS.get(delimiter, delimiter)
    kind = str(given or "").removesuffix(".gz")
    if kind and kind not in FORMATS:
        raise ConfigError(f"format is {given!r}", cure=f"write one of {', '.join(FORMATS)}, or leave it out")
    if delimiter and (len(delimiter) > 1 or delimiter in '"\r\n'):
        raise ConfigError(f"delimiter is {delimiter!r}", cure="write one character, or tab")

    def format_of(name: str) -> Format:
        found = cast(Kind, kind) if kind else kind_by_name(name)
        if not found:
            raise Refused(
                f"its name ends in none of {', '.join(EXTENSIONS)}: set `format`, or choose files by a pattern"
            )
        by_name = "\t" if PurePosixPath(name.removesuffix(".gz")).suffix == ".tsv" else ""
        return Format(found, delimiter or by_name, key)

    return format_of


def kind_by_name(name: str) -> Kind | None:
    return EXTENSIONS.get(PurePosixPath(name.lower().removesuffix(".gz")).suffix)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a name matches: `*` and `?` stay within a folder, `**` goes through any number of them, and `[...]` is
    one of these characters."""
    expression, place = "", 0
    while place < len(pattern):
        rest = pattern[place:]
        if rest.startswith("**/"):
            expression, place = expression + "(?:[^/]+/)*", place + 3
        elif rest.startswith("**"):
            expression, place = expression + ".*", place + 2
        elif rest[0] in "*?":
            expression, place = expression + ("[^/]*" if rest[0] == "*" else "[^/]"), place + 1
        elif found := re.match(r"\[(!?)(\]?[^\]]*)\]", rest):
            inside = re.sub(r"([\\\[\]^])", r"\\\1", found[2])
            expression, place = expression + f"[{'^' if found[1] else ''}{inside}]", place + len(found[0])
        else:
            expression, place = expression + re.escape(rest[0]), place + 1
    compiled = re.compile(expression, re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


def is_hidden(name: str) -> bool:
    """Whether a part of the name begins with a dot or an underscore, as marks of writers do (.x.part, _SUCCESS)."""
    return any(part.startswith((".", "_")) for part in name.split("/"))
