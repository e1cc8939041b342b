"""A YAML file that knows its lines: what it holds, where each key stands, and which keys stand twice.

Whatever keeps a file from being read is noted as a mistake with its line; nothing is raised, and no object is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from infra.mistakes import Mistake, shown

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

KeyPath = tuple[Any, ...]


class _Loader(SafeLoader):
    """Notes keys that stand twice in a mapping, and leaves a day that no calendar has to whoever wants a date."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[yaml.Node] = []
        # Children before parents: a mapping that contains itself is refused instead of built.
        self.deep_construct = True

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Before `<<` is resolved: a key may stand beside the merged one that it overrides.
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    self.repeated.append(key)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_timestamp(self, node: yaml.ScalarNode) -> Any:
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError:
            return node.value


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_timestamp)


class Document(NamedTuple):
    """A YAML file that is a mapping, and the nodes that know its lines."""

    file: Path
    data: dict[Any, Any]
    root: yaml.Node

    def line(self, path: KeyPath) -> int:
        """Of the key that `path` leads to, or of the nearest one above it."""
        node, line = self.root, self.root.start_mark.line
        for step in path:
            found = [pair for pair in node.value if pair[0].value == str(step)] if _is_mapping(node) else []
            if not found:
                break
            line = found[-1][0].start_mark.line
            node = found[-1][1]
        return int(line) + 1

    def at(self, path: KeyPath) -> Mapping[Any, Any]:
        """The mapping at `path`, empty if there is none."""
        here: Any = self.data
        for step in path:
            here = here.get(step) if isinstance(here, dict) else None
        return here if isinstance(here, dict) else {}

    def has(self, path: KeyPath) -> bool:
        return path[-1] in self.at(path[:-1])


def _is_mapping(node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode)


class _Unreadable(Exception):
    """A file that is no YAML mapping."""

    def __init__(self, found: str, cure: str, line: int | None = None) -> None:
        super().__init__(found)
        self.found, self.cure, self.line = found, cure, line


def read(file: Path, mistakes: list[Mistake]) -> Document | None:
    """None, and the mistake noted, if the file is no YAML mapping."""
    try:
        document, repeated = _parse(file)
    except _Unreadable as error:
        mistakes.append(Mistake(str(file), "", error.line, error.found, "a YAML mapping", error.cure))
        return None
    for key in repeated:
        path = ".".join(_path_to(key, document.root))
        line = key.start_mark.line + 1
        mistakes.append(Mistake(str(file), path, line, f"`{key.value}` again", "each key once", "keep one of them"))
    return document


def _parse(file: Path) -> tuple[Document, list[yaml.Node]]:
    """The document, and the keys that stand twice in a mapping. Raises _Unreadable."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _Unreadable(f"nothing to read ({error.strerror})", "name a file that can be read") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _Unreadable("bytes that are not UTF-8", "save the file as UTF-8", line) from None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        data = None if root is None else loader.construct_document(root)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Unreadable(f"no YAML ({error.reason})", "remove the character", line) from None
    except yaml.MarkedYAMLError as error:
        starred = "alias" in (error.context or "")
        cure = "put quotes around a value that starts with `*`" if starred else "correct the line"
        mark = error.problem_mark
        raise _Unreadable(f"no YAML ({error.problem})", cure, mark.line + 1 if mark else None) from None
    except ValueError as error:
        raise _Unreadable(f"no YAML ({error})", "put quotes around the value that cannot be read") from None
    if root is None or data is None:
        raise _Unreadable("nothing", "write the file, or remove it")
    if not isinstance(data, dict):
        raise _Unreadable(shown(data), "write `key: value` lines", root.start_mark.line + 1)
    return Document(file, data, root), loader.repeated


def _path_to(wanted: yaml.Node, node: yaml.Node) -> list[str]:
    """The keys from `node` down to the key `wanted`; empty if it is not below."""
    for key, value in node.value if _is_mapping(node) else ():
        if key is wanted:
            return [key.value]
        below = _path_to(wanted, value)
        if below:
            return [str(key.value), *below]
    return []
