"""Makes provider.json: what a provider of Terraform takes, in the shape of `terraform providers schema -json`.

    pip download --no-deps cdktf-cdktf-provider-google==16.12.1 cdktf-cdktf-provider-external==11.0.1
    python -m tests.terraform.make_schema *.whl

The packages are archived: they stay at google 6.50.0 and external 2.3.5. Their JavaScript carries, in the source map of
each file, the TypeScript that was generated of the provider's own schema, with a comment for each attribute:
`// name - computed: false, optional: true, required: false`. Of all resources only those are kept that the
configuration names; one that it names later is added by running this again.
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
SCHEMA: Final = Path(__file__).with_name("provider.json")

_SOURCE_MAP: Final = re.compile(r"sourceMappingURL=data:application/json;(?:charset=utf-8;)?base64,(\S+)")
_CLASS: Final = re.compile(r"^export class (\w+) extends cdktf\.(\w+) \{(.*?)^\}", re.S | re.M)
_TO_HCL: Final = re.compile(r"^export function (\w+)ToHclTerraform\(.*?\): any \{(.*?)^\}", re.S | re.M)
_ATTRIBUTE: Final = re.compile(
    r"^  // (\w+) - computed: (\w+), optional: (\w+), required: (\w+)\n(.*?)(?=^  // \w+ - computed:|\Z)", re.S | re.M
)
_HCL_ENTRY: Final = re.compile(
    r'^ {4,6}(\w+): \{\n\s+value: .*?\n\s+isBlock: (true|false),\n\s+type: "(\w+)",\n\s+storageClassType: "(\w+)",',
    re.S | re.M,
)
_NESTED: Final = re.compile(r'= new (?!cdktf)(\w+)(OutputReference|List|Map)\(this, "\w+"(?:, (true|false))?')
_KINDS: Final = {"TerraformResource": "resource_schemas", "TerraformDataSource": "data_source_schemas"}
_STORED: Final[Mapping[str, Any]] = {
    "string": "string",
    "number": "number",
    "boolean": "bool",
    "stringMap": ["map", "string"],
    "stringList": ["list", "string"],
    "numberList": ["list", "number"],
}
_READ: Final[Mapping[str, Any]] = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "List": ["list", "string"],
    "NumberList": ["list", "number"],
    "StringMap": ["map", "string"],
    "BooleanMap": ["map", "bool"],
}


class _Source:
    """The classes of one TypeScript file, and how each writes itself as HCL."""

    def __init__(self, text: str) -> None:
        self.classes = {found[1]: (found[2], found[3]) for found in _CLASS.finditer(text)}
        self._to_hcl = {found[1].lower(): found[2] for found in _TO_HCL.finditer(text)}

    def block(self, name: str) -> dict[str, Any]:
        """Raises KeyError where a part of it is in another file."""
        body = self.classes[name][1]
        if self.classes[name][0] in ("ComplexObject", "ComplexComputedList"):
            written = self._to_hcl.get(name.removesuffix("OutputReference").lower(), "")
        else:
            written = body[body.find("synthesizeHclAttributes") :]
        entries = {each[1]: (each[2] == "true", each[3], each[4]) for each in _HCL_ENTRY.finditer(written)}
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for found in _ATTRIBUTE.finditer(body):
            attribute, computed, optional, required, text = found.groups()
            flags = {"required": required, "optional": optional, "computed": computed}
            true = {flag: True for flag, value in flags.items() if value == "true"}
            is_block, nesting, stored = entries.get(attribute, (False, "", ""))
            nested = _NESTED.search(text)
            if nested is None:
                attributes[attribute] = {"type": _type(text, nesting, stored), **true}
            elif is_block and computed == "false":
                blocks[attribute] = self._nested(nested, nesting, required)
            else:
                kind = "set" if nested[3] == "true" else "list"
                inner = _object(self.block(f"{nested[1]}OutputReference"))
                attributes[attribute] = {"type": [kind, inner], **true}
        return {"attributes": attributes, "block_types": blocks}

    def _nested(self, nested: re.Match[str], nesting: str, required: str) -> dict[str, Any]:
        mode = "single" if nesting == "struct" else nesting
        entry: dict[str, Any] = {"nesting_mode": mode, "block": self.block(f"{nested[1]}OutputReference")}
        if nested[2] == "OutputReference" and mode != "single":
            entry["max_items"] = 1
        if required == "true":
            entry["min_items"] = 1
        return entry


def _object(block: Mapping[str, Any]) -> list[Any]:
    """The type of a value that has the form of a block."""
    fields = {name: each["type"] for name, each in block["attributes"].items()}
    for name, each in block["block_types"].items():
        mode = "list" if each["nesting_mode"] == "single" else each["nesting_mode"]
        fields[name] = [mode, _object(each["block"])]
    return ["object", fields]


def _type(text: str, nesting: str, stored: str) -> Any:
    """The type of an attribute that is no block."""
    getter = re.search(r"this\.get(\w+?)Attribute\('", text)
    if "= new cdktf." in text:
        return ["map", "bool" if "BooleanMap" in text else "string"]
    found = _READ.get(getter[1], "dynamic") if getter else _STORED.get(stored, "dynamic")
    if isinstance(found, list) and found[0] == "list" and ("tolist" in text or nesting == "set"):
        return ["set", found[1]]
    return found


def schema_of(wheel: Path, wanted: set[str]) -> dict[str, Any]:
    """The provider's own block, and those of its resources and data sources (`data.NAME`) that are wanted."""
    schema: dict[str, Any] = {"provider": None, "resource_schemas": {}, "data_source_schemas": {}}
    for text in _sources(wheel):
        source = _Source(text)
        for name, (parent, body) in source.classes.items():
            if parent == "TerraformProvider":
                schema["provider"] = source.block(name)
            elif parent in _KINDS:
                called = re.search(r'tfResourceType = "(\w+)"', body)
                prefix = "data." if parent == "TerraformDataSource" else ""
                if called is not None and prefix + called[1] in wanted:
                    schema[_KINDS[parent]][called[1]] = source.block(name)
    return schema


def _sources(wheel: Path) -> Iterator[str]:
    """The TypeScript of each file in the package within the wheel."""
    with zipfile.ZipFile(wheel) as unpacked:
        package = next(name for name in unpacked.namelist() if name.endswith(".jsii.tgz"))
        content = io.BytesIO(unpacked.read(package))
    with tarfile.open(fileobj=content) as inner:
        for member in inner.getmembers():
            script = inner.extractfile(member) if re.fullmatch(r"package/lib/[^/]+/index\.js", member.name) else None
            mapped = _SOURCE_MAP.search(script.read().decode()) if script is not None else None
            if mapped is not None:
                yield json.loads(base64.b64decode(mapped[1]))["sourcesContent"][0]


def named(configuration: Path) -> set[str]:
    """The resources that the configuration has, and `data.NAME` for its data sources."""
    found: set[str] = set()
    for file in configuration.rglob("*.tf"):
        for kind, name in re.findall(r'^(resource|data) "(\w+)"', file.read_text(encoding="utf8"), re.M):
            found.add(name if kind == "resource" else f"data.{name}")
    return found - {"terraform_data"}  # terraform's own


def main(wheels: list[str]) -> None:
    wanted = named(ROOT / "terraform")
    schemas = {}
    for wheel in map(Path, wheels):
        provider = wheel.name.partition("-")[0].rpartition("_")[2]
        schemas[provider] = schema_of(wheel, wanted)
        wanted -= {*schemas[provider]["resource_schemas"]}
        wanted -= {f"data.{name}" for name in schemas[provider]["data_source_schemas"]}
    if wanted:
        sys.exit(f"no package has {', '.join(sorted(wanted))}")
    SCHEMA.write_text(json.dumps(schemas, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf8")


if __name__ == "__main__":
    main(sys.argv[1:])
