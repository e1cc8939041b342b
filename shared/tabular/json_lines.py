"""JSON lines: an object per line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from shared.errors import TOO_LARGE, UNMAPPABLE
from shared.tabular.identity import IDENTITY
from shared.tabular.lines import EXCERPT, Line, Lines, Parsed, Refused, text_of

_LOOK_AT: Final = 8
"""Lines, none of which is UTF-8 if the file is in another encoding."""
_decode = msgspec.json.Decoder().decode


def read_json_lines(lines: Lines) -> Iterator[Parsed]:
    """The objects, one after another; empty lines are none. Raises Refused for a file that is not UTF-8."""
    if lines.at_start:
        _look_ahead(lines)
    while (line := lines.next()) is not None:
        text = text_of(line)
        if not line.is_whole:
            yield unread(lines, line, text, (TOO_LARGE, f"the line has {line.size} bytes"))
            continue
        if not text.strip():
            continue
        try:
            data: Any = _decode(text)
        except UnicodeDecodeError:
            yield unread(lines, line, text, (UNMAPPABLE, "the line is not UTF-8"))
        except (msgspec.DecodeError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            yield unread(lines, line, text, (UNMAPPABLE, f"the line is not JSON: {reason}"))
        else:
            if not isinstance(data, dict):
                yield unread(lines, line, text, (UNMAPPABLE, "the line is JSON, but no object"))
            elif IDENTITY in data:
                yield unread(lines, line, text, (UNMAPPABLE, f"{IDENTITY} is not for a source to give"))
            else:
                yield Parsed(line.number, data, lines.place_after(line))


def unread(lines: Lines, last: Line, text: bytes, problem: tuple[int, str], first: Line | None = None) -> Parsed:
    """A row with a problem, which ends with a line and begins with that or an earlier one."""
    digest = hashlib.blake2b(text, digest_size=12, salt=str(last.size).encode()[:16]).hexdigest()
    data = {"row": text[: 4 * EXCERPT].decode(errors="replace").rstrip("\r\n")[:EXCERPT]}
    return Parsed((first or last).number, data, lines.place_after(last), problem, digest)


def _look_ahead(lines: Lines) -> None:
    seen: list[Line] = []
    readable = False
    while len(seen) < _LOOK_AT and not readable and (line := lines.next()) is not None:
        seen.append(line)
        readable = not line.is_whole or not text_of(line).strip() or _is_utf8(line)
    lines.put_back(seen)
    if seen and not readable:
        raise Refused("it is not UTF-8")


def _is_utf8(line: Line) -> bool:
    try:
        line.data.decode()
    except UnicodeDecodeError:
        return False
    return True
