"""Template variables in a scheme's values, as users of Qeasy write them: `{{LAST_SYNC_TIME|datetime}}`.

Known are LAST_SYNC_TIME, CURRENT_TIME and DAYS_AGO_n, alone or with one of the filters datetime, date, timestamp and
timestamp_ms (names: vendor documentation). A variable alone is in seconds since 1970: the vendor's pages reckon with
it once as seconds and once as milliseconds, and seconds are what its own language gives.

A template is judged when it is read, by its syntax tree: text, a variable, a filter, a format, and nothing else. So no
attribute, call, loop, operator or include ever reaches the environment that renders it, which is a sandbox besides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.sandbox import SandboxedEnvironment

from shared.declared.convert import EPOCH, clock, day, milliseconds
from shared.declared.faults import Wrong, nearest, shown, unknown

LONGEST: Final = 2_000
MOST_DAYS: Final = 36_500
_DAYS_AGO: Final = re.compile(r"DAYS_AGO_([0-9]{1,9})")
_OTHER_DIALECT: Final = re.compile(r"\$\{|\{\{\s*\$|^\s*_(function|findCollection|mongoQuery)\b")
"""Other expressions of the platform (vendor documentation). Sent as they stand, they would mean something else."""


class Moments(msgspec.Struct, frozen=True):
    """The points in time that a template may name, all aware, and the zone in which dates are written.

    Without a last sync, `LAST_SYNC_TIME` is `since`, and without that the beginning of 1970.
    """

    last_sync: datetime | None
    now: datetime
    zone: ZoneInfo
    since: datetime | None = None

    def __post_init__(self) -> None:
        if any(when is not None and when.tzinfo is None for when in (self.last_sync, self.now, self.since)):
            raise ValueError("a point in time needs an offset")

    def named(self, name: str) -> datetime:
        """The point in time of a variable that `template` accepted."""
        days = _DAYS_AGO.fullmatch(name)
        if days:
            return days_ago(self.now, int(days[1]), self.zone)
        return self.now if name == "CURRENT_TIME" else self.last_sync or self.since or EPOCH


def days_ago(now: datetime, days: int, zone: ZoneInfo) -> datetime:
    """The same time of the day, so many days before, by the zone's clock.

    So a daily run that reads back to DAYS_AGO_1 leaves no gap on a day of 25 hours. Of a time that the clock shows
    twice or never it is the earlier: a window may only ever become longer.
    """
    shown_then = now.astimezone(zone).replace(tzinfo=None) - timedelta(days=days)
    return min(shown_then.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))


class _At(NamedTuple):
    """A variable's value while rendering."""

    when: datetime
    zone: ZoneInfo

    def __str__(self) -> str:
        return _timestamp(self)


_LETTERS: Final[Mapping[str, Callable[[datetime], str]]] = {
    "Y": lambda when: f"{when.year:04}",
    "m": lambda when: f"{when.month:02}",
    "d": lambda when: f"{when.day:02}",
    "H": lambda when: f"{when.hour:02}",
    "i": lambda when: f"{when.minute:02}",
    "s": lambda when: f"{when.second:02}",
}
"""The letters of PHP's date formats that the vendor's pages use."""
_NO_FORMAT: Final = re.compile(r"[a-zA-Z%\\](?<![YmdHis])")


def _formatted(when: datetime, form: str) -> str:
    return "".join(_LETTERS[letter](when) if letter in _LETTERS else letter for letter in form)


def _datetime(value: _At, form: str = "") -> str:
    local = value.when.astimezone(value.zone)
    return _formatted(local, form) if form else f"{day(local)} {clock(local)}"


def _date(value: _At, form: str = "") -> str:
    local = value.when.astimezone(value.zone)
    return _formatted(local, form) if form else day(local)


def _timestamp(value: _At) -> str:
    return str(milliseconds(value.when) // 1000)


def _timestamp_ms(value: _At) -> str:
    return str(milliseconds(value.when))


_FILTERS: Final[dict[str, Callable[..., str]]] = {
    "datetime": _datetime,
    "date": _date,
    "timestamp": _timestamp,
    "timestamp_ms": _timestamp_ms,
}
_WITH_FORMAT: Final = frozenset({"datetime", "date"})
VARIABLES: Final = ("LAST_SYNC_TIME", "CURRENT_TIME", "DAYS_AGO_1")


def _environment() -> SandboxedEnvironment:
    sandbox = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    sandbox.globals.clear()
    sandbox.tests.clear()
    sandbox.filters.clear()
    sandbox.filters.update(_FILTERS)
    return sandbox


_SANDBOX: Final = _environment()


class Template(NamedTuple):
    """A text that was accepted, and the variables in it."""

    text: str
    variables: frozenset[str]
    compiled: jinja2.Template | None

    def render(self, moments: Moments) -> str:
        if self.compiled is None:
            return self.text
        return self.compiled.render({name: _At(moments.named(name), moments.zone) for name in self.variables})

    @property
    def days(self) -> int:
        """How many days back its variables reach."""
        return max((int(found[1]) for name in self.variables if (found := _DAYS_AGO.fullmatch(name))), default=0)


@lru_cache(maxsize=1024)
def template(text: str) -> Template:
    """The template of a text. Raises Wrong for anything that this module's first lines do not name."""
    if len(text) > LONGEST:
        raise Wrong(f"a text of {len(text)} characters", f"at most {LONGEST}", "shorten it")
    if "{%" in text or "{#" in text:
        raise Wrong(shown(text), "text and {{VARIABLE|filter}}", "remove statements and comments: {% %} and {# #}")
    if _OTHER_DIALECT.search(text):
        raise Wrong(
            f"an expression, {shown(text)}",
            "text and {{VARIABLE|filter}}",
            "write LAST_SYNC_TIME, CURRENT_TIME or DAYS_AGO_n; map fields of a record in integration.yaml",
        )
    if "{{" not in text:
        return Template(text, frozenset(), None)
    try:
        tree = _SANDBOX.parse(text)
        variables = frozenset(_judged(part) for part in _parts(tree) if not isinstance(part, nodes.TemplateData))
        return Template(text, variables, _SANDBOX.from_string(text))
    except jinja2.TemplateSyntaxError as error:
        cause = " ".join((error.message or "syntax").split())[:80]
        raise Wrong(shown(text), "text and {{VARIABLE|filter}}", f"correct the syntax: {cause}") from None
    except RecursionError:
        raise Wrong(shown(text), "text and {{VARIABLE|filter}}", "write one variable in each pair of braces") from None


def _parts(tree: nodes.Template) -> list[nodes.Node]:
    return [part for output in tree.body for part in (output.nodes if isinstance(output, nodes.Output) else [output])]


def _judged(part: nodes.Node) -> str:
    """The variable of what stands in one pair of braces."""
    if isinstance(part, nodes.Filter):
        _judge_filter(part)
        part = part.node if part.node is not None else part
    if not isinstance(part, nodes.Name):
        raise Wrong(
            f"an expression ({type(part).__name__.lower()})",
            "a variable, alone or with one filter",
            "write for example {{LAST_SYNC_TIME|datetime}}",
        )
    days = _DAYS_AGO.fullmatch(part.name)
    if days is None and part.name not in VARIABLES[:2]:
        known = ("LAST_SYNC_TIME", "CURRENT_TIME", "DAYS_AGO_n (n days ago)")
        near = nearest(part.name, VARIABLES)
        cure = f"write {near}" if near else "write one of them; fields of a record are mapped in integration.yaml"
        raise Wrong(f"variable {shown(part.name)}", f"one of {', '.join(known)}", cure)
    if days and int(days[1]) > MOST_DAYS:
        raise Wrong(f"variable {shown(part.name)}", f"DAYS_AGO_0 to DAYS_AGO_{MOST_DAYS}", "write fewer days")
    return part.name


def _judge_filter(part: nodes.Filter) -> None:
    if part.name not in _FILTERS:
        raise unknown("filter", part.name, tuple(_FILTERS))
    if not part.args and not part.kwargs and part.dyn_args is None and part.dyn_kwargs is None:
        return
    given: Any = part.args[0].value if len(part.args) == 1 and isinstance(part.args[0], nodes.Const) else None
    plain = not part.kwargs and part.dyn_args is None and part.dyn_kwargs is None and isinstance(given, str)
    if part.name not in _WITH_FORMAT or not plain:
        expected = "one format in quotes" if part.name in _WITH_FORMAT else "no argument"
        raise Wrong(f"arguments of {part.name}", expected, f"write {part.name}, or datetime('Y-m-d H:i:s')")
    odd = sorted(set(_NO_FORMAT.findall(given)))
    if odd or not given:
        found = f"format {shown(given)}"
        cure = f"remove {' '.join(odd)}" if odd else "write for example datetime('Y-m-d H:i:s')"
        raise Wrong(found, f"the letters {' '.join(_LETTERS)} and signs between them", cure)
