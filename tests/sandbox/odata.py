"""The part of OData v4 that Ploomes is known to speak: query options parsed into plain functions over rows.

Operators, functions and the bare date-time literal: vendor documentation and the vendor's own n8n node.
What is not understood is refused, never ignored, so that a client's mistake shows.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

Row = dict[str, Any]
Predicate = Callable[[Row], bool]
Getter = Callable[[Row], Any]

DATE = len("2024-02-24")
OPTIONS = {"$top", "$skip", "$filter", "$orderby", "$expand", "$select", "$count"}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq, "ne": operator.ne,
    "gt": operator.gt, "ge": operator.ge,
    "lt": operator.lt, "le": operator.le,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[[str, str], bool]] = {
    "contains": operator.contains, "startswith": str.startswith, "endswith": str.endswith,
}  # fmt: skip
TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')
    |(?P<instant>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d))
    |(?P<number>-?\d+(?:\.\d+)?(?![\w-]))
    |(?P<word>[A-Za-z_]\w*(?:/\w+)*)
    |(?P<mark>[(),:]))""",
    re.VERBOSE,
)


class QueryError(ValueError):
    """The query specified in the URI is not valid."""


@dataclass(frozen=True, slots=True)
class Schema:
    """An entity type: its fields with their kind (number, text, instant, flag) and what can be expanded; the
    children named in `unfiltered` can only be expanded, not filtered or ordered by."""

    name: str
    fields: Mapping[str, str]
    children: Mapping[str, "Schema"] = field(default_factory=dict)
    unfiltered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class View:
    """Which fields (None for all) and which children of a row are shown."""

    select: frozenset[str] | None = None
    expand: Mapping[str, "View"] = field(default_factory=dict)

    def show(self, row: Row, schema: Schema) -> Row:
        """The row as answered: a child is present only if it was expanded."""
        if self.select is None:
            shown = row.copy()
            for name in schema.children:
                shown.pop(name, None)
        else:
            chosen = self.select & schema.fields.keys()
            shown = {name: value for name, value in row.items() if name in chosen}
        for name, view in self.expand.items():
            child, kind = row.get(name), schema.children[name]
            if isinstance(child, list):
                shown[name] = [view.show(each, kind) for each in child]
            else:
                shown[name] = child and view.show(child, kind)
        return shown


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query string."""

    matches: Predicate
    order: list[tuple[Getter, bool]]
    view: View
    top: int | None
    skip: int
    count: bool

    @classmethod
    def parse(cls, options: Mapping[str, str], schema: Schema) -> "Query":
        """QueryError names the first thing that is wrong."""
        unknown = [name for name in options if name.startswith("$") and name not in OPTIONS]
        if unknown:
            raise QueryError(f"The query parameter '{unknown[0]}' is not supported.")
        count = options.get("$count", "false")
        if count not in ("true", "false"):
            raise QueryError(f"Invalid value '{count}' for $count query option found.")
        text = options.get("$filter")
        return cls(
            matches=_Filter(text, schema).parse() if text is not None else lambda row: True,
            order=_order(options.get("$orderby", ""), schema),
            view=_view(options, schema),
            top=_whole("$top", options["$top"]) if "$top" in options else None,
            skip=_whole("$skip", options.get("$skip", "0")),
            count=count == "true",
        )

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """All rows that match, in order; paging and showing are the caller's."""
        found = [row for row in rows if self.matches(row)]
        for get, descending in reversed(self.order):
            found.sort(key=_nulls_first(get), reverse=descending)
        return found


@lru_cache(maxsize=1 << 18)
def milliseconds(text: str) -> int:
    """The instant of a date-time text with an offset, in milliseconds since 1970; a bare date is its midnight in
    Brasília."""
    moment = datetime.fromisoformat(text if len(text) > DATE else f"{text}T00:00:00-03:00")
    return round(moment.timestamp() * 1000)


def split(text: str, separator: str) -> list[str]:
    """The parts of a list, whose brackets may hold the separator themselves."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth != 0:
        raise QueryError(f"Found an unbalanced bracket expression in '{text}'.")
    return [part.strip() for part in parts if part.strip()]


def find(path: str, schema: Schema) -> tuple[str, Getter]:
    """Kind and getter of a field, also of one behind a single child (City/Name)."""
    first, slash, rest = path.partition("/")
    if slash and first in schema.children.keys() - schema.unfiltered:
        kind, inner = find(rest, schema.children[first])
        return kind, lambda row: inner(child) if isinstance(child := row.get(first), dict) else None
    if path not in schema.fields:
        raise QueryError(f"Could not find a property named '{path}' on type 'Ploomes.Model.{schema.name}'.")
    if schema.fields[path] == "instant":
        return "instant", lambda row: milliseconds(value) if (value := row.get(path)) else None
    return schema.fields[path], lambda row: row.get(path)


def _nulls_first(get: Getter) -> Getter:
    return lambda row: ((value := get(row)) is not None, value)


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise QueryError(f"Invalid value '{text}' for {name} query option found.")
    return int(text)


def _order(text: str, schema: Schema) -> list[tuple[Getter, bool]]:
    order = []
    for part in split(text, ","):
        path, _, direction = part.partition(" ")
        if direction.strip() not in ("", "asc", "desc"):
            raise QueryError(f"Syntax error at '{part}' in $orderby.")
        order.append((find(path, schema)[1], direction.strip() == "desc"))
    return order


def _view(options: Mapping[str, str], schema: Schema) -> View:
    select = frozenset(split(options["$select"], ",")) if options.get("$select") else None
    for name in select or ():
        if name not in schema.fields and name not in schema.children:
            find(name, schema)
    expand = {}
    for part in split(options.get("$expand", ""), ","):
        name, bracket, inner = part.partition("(")
        if name not in schema.children or (bracket and not inner.endswith(")")):
            raise QueryError(f"Could not find a property named '{name}' to expand on type '{schema.name}'.")
        nested = dict(_pair(option) for option in split(inner[:-1], ";")) if bracket else {}
        expand[name] = _view(nested, schema.children[name])
    return View(select, expand)


def _pair(option: str) -> tuple[str, str]:
    name, equals, value = option.partition("=")
    if name not in ("$expand", "$select") or not equals:
        raise QueryError(f"The nested query option '{option}' is not supported.")
    return name, value


class _Filter:
    """A recursive descent parser that turns $filter into a predicate."""

    def __init__(self, text: str, schema: Schema) -> None:
        self._text = text
        self._schema = schema
        self._variable = ""
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        position = 0
        while text[position:].strip():
            match = TOKEN.match(text, position)
            if match is None:
                raise QueryError(f"Syntax error at position {position} in '{text}'.")
            self._tokens.append((match.lastgroup or "", match.group(match.lastgroup or 0)))
            position = match.end()

    def parse(self) -> Predicate:
        predicate = self._either()
        if self._at < len(self._tokens):
            raise self._error()
        return predicate

    def _error(self) -> QueryError:
        place = self._tokens[self._at][1] if self._at < len(self._tokens) else "the end"
        return QueryError(f"Syntax error at '{place}' in '{self._text}'.")

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _next(self, kind: str, value: str | None = None) -> str:
        if self._at >= len(self._tokens):
            raise self._error()
        found, text = self._tokens[self._at]
        if found != kind or (value is not None and text != value):
            raise self._error()
        self._at += 1
        return text

    def _either(self) -> Predicate:
        predicate = self._both()
        while self._peek() == "or":
            self._at += 1
            predicate = _or(predicate, self._both())
        return predicate

    def _both(self) -> Predicate:
        predicate = self._single()
        while self._peek() == "and":
            self._at += 1
            predicate = _and(predicate, self._single())
        return predicate

    def _single(self) -> Predicate:
        if self._peek() == "(":
            self._at += 1
            predicate = self._either()
            self._next("mark", ")")
            return predicate
        word = self._next("word")
        if word == "not":
            inner = self._single()
            return lambda row: not inner(row)
        if word in FUNCTIONS:
            return self._function(FUNCTIONS[word])
        if word.endswith("/any"):
            return self._any(word.removesuffix("/any"))
        return self._comparison(word)

    def _field(self, word: str) -> tuple[str, Getter]:
        if self._variable:
            if not word.startswith(f"{self._variable}/"):
                raise QueryError(f"Could not find the range variable of '{word}' in '{self._text}'.")
            word = word.removeprefix(f"{self._variable}/")
        return find(word, self._schema)

    def _function(self, function: Callable[[str, str], bool]) -> Predicate:
        self._next("mark", "(")
        kind, get = self._field(self._next("word"))
        self._next("mark", ",")
        literal = _unquote(self._next("text"))
        self._next("mark", ")")
        if kind != "text":
            raise QueryError(f"No function signature for a {kind} was found in '{self._text}'.")
        return lambda row: (value := get(row)) is not None and function(value, literal)

    def _any(self, name: str) -> Predicate:
        if name not in self._schema.children.keys() - self._schema.unfiltered or self._variable:
            raise QueryError(f"Could not find a collection named '{name}' on type '{self._schema.name}'.")
        outer = self._schema
        self._next("mark", "(")
        self._variable, self._schema = self._next("word"), outer.children[name]
        self._next("mark", ":")
        inner = self._either()
        self._variable, self._schema = "", outer
        self._next("mark", ")")
        return lambda row: any(inner(child) for child in row.get(name) or ())

    def _comparison(self, word: str) -> Predicate:
        kind, get = self._field(word)
        compare = COMPARISONS.get(self._next("word"))
        if compare is None or self._at >= len(self._tokens):
            raise self._error()
        found, text = self._tokens[self._at]
        literal: Any
        if text == "null":
            literal = None
        elif found == kind == "instant":
            literal = milliseconds(text)
        elif found == kind == "number":
            literal = float(text) if "." in text else int(text)
        elif found == kind == "text":
            literal = _unquote(text)
        elif kind == "flag" and text in ("true", "false"):
            literal = text == "true"
        else:
            raise QueryError(f"A {kind} cannot be compared with '{text}' in '{self._text}'.")
        self._at += 1
        if compare in (operator.eq, operator.ne):
            return lambda row: compare(get(row), literal)
        return lambda row: literal is not None and (value := get(row)) is not None and compare(value, literal)


def _unquote(text: str) -> str:
    return text[1:-1].replace("''", "'")


def _and(left: Predicate, right: Predicate) -> Predicate:
    return lambda row: left(row) and right(row)


def _or(left: Predicate, right: Predicate) -> Predicate:
    return lambda row: left(row) or right(row)
