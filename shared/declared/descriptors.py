"""The field descriptors of a scheme's metadata, and the parameters that they make. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from shared.declared import convert
from shared.declared.faults import Wrong, shown
from shared.declared.templates import Moments, template
from shared.errors import ConfigError

DEEPEST: Final = 12
Kind = Literal["string", "int", "float", "boolean", "object", "array"]


class Descriptor(msgspec.Struct, frozen=True):
    """One field of a request or a response. `parent` names the object or array that it is in; `children` are in it."""

    field: str
    label: str | None = None
    type: Kind = "string"
    value: Any = None
    is_required: bool | Literal[0, 1] | None = None
    describe: str | None = None
    parent: str | None = None
    children: list[Descriptor] | None = None
    parser: dict[str, Any] | list[Any] | str | None = None


def key_of(descriptor: Descriptor) -> tuple[str, str]:
    """Where it is: its parent and its name."""
    return descriptor.parent or "", descriptor.field


def has_value(descriptor: Descriptor) -> bool:
    return descriptor.value is not None and descriptor.value != ""


def built_of(fields: Sequence[Descriptor], parent: str, sync: Moments) -> dict[str, Any]:
    """The parameters in one object or array, and all that are in them."""
    built: dict[str, Any] = {}
    for each in fields:
        if (each.parent or "") != parent:
            continue
        try:
            inner = built_of(fields, each.field, sync) if each.type in ("object", "array") else {}
            inner |= built_of([msgspec.structs.replace(child, parent="") for child in each.children or ()], "", sync)
            if inner:
                built[each.field] = inner if each.type == "object" else [inner]
            elif has_value(each):
                built[each.field] = value_of(each, sync)
        except Wrong as wrong:
            raise ConfigError(str(wrong.at(each.field)), cure=wrong.cure) from None
    return built


def value_of(descriptor: Descriptor, sync: Moments) -> Any:
    """The value as its type. Raises Wrong."""
    value = _rendered(descriptor.value, sync, 0)
    kind = descriptor.type
    try:
        if type(value) is bool and kind in ("int", "float"):
            raise ValueError
        return _CONVERSIONS[kind](value)
    except ValueError as error:
        if isinstance(error, Wrong):
            raise
        raise Wrong(
            shown(descriptor.value), f"a value of type {kind}", f"correct the value, or its type {kind}"
        ) from None


def _rendered(value: Any, sync: Moments, depth: int) -> Any:
    if depth > DEEPEST:
        raise Wrong("a value in a value", f"at most {DEEPEST} levels", "remove a level")
    if isinstance(value, str):
        return template(value).render(sync)
    if isinstance(value, list):
        return [_rendered(each, sync, depth + 1) for each in value]
    if isinstance(value, dict):
        return {name: _rendered(each, sync, depth + 1) for name, each in value.items()}
    return value


def _container(kind: type) -> Callable[[Any], Any]:
    def made(value: Any) -> Any:
        found = msgspec.json.decode(value) if isinstance(value, str) else value
        if type(found) is not kind:
            raise ValueError
        return found

    return made


_CONVERSIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "string": convert.text,
    "int": convert.integer,
    "float": lambda value: float(convert.decimal(value)),
    "boolean": convert.boolean,
    "object": _container(dict),
    "array": _container(list),
}


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a value, or in a descriptor and its children."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Descriptor):
        yield from texts_of([value.value, *(value.children or ())])
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_of(each)
