"""What a plan says: its resources, wherever in the tree of modules they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec


class Resource(msgspec.Struct, frozen=True):
    """One that is going to be made, with the values that are known."""

    address: str
    type: str
    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name)

    def block(self, name: str) -> dict[str, Any]:
        """The only block of this name; empty where there is none."""
        found = self.values.get(name) or [{}]
        return dict(found[0] or {})

    @property
    def role(self) -> str:
        return str(self.values.get("role", ""))


class Plan:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.resources = list(_resources(document["planned_values"]["root_module"]))
        self.outputs = document["planned_values"].get("outputs", {})

    def of(self, *types: str) -> list[Resource]:
        """Those of these types, with or without their provider's prefix."""
        wanted = {name if name.startswith("google_") else f"google_{name}" for name in types}
        return [each for each in self.resources if each.type in wanted]

    def by_name(self, kind: str, attribute: str = "name") -> dict[str, Resource]:
        return {str(each[attribute]): each for each in self.of(kind)}

    def grants(self) -> list[Resource]:
        """Every right that is given to anybody."""
        return [each for each in self.resources if re.search(r"_iam_(member|binding|policy)$", each.type)]


def _resources(module: Mapping[str, Any]) -> Iterator[Resource]:
    for each in module.get("resources", ()):
        if each["mode"] == "managed":
            yield Resource(each["address"], each["type"], each["values"])
    for inner in module.get("child_modules", ()):
        yield from _resources(inner)
