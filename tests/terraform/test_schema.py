"""The schema that is committed is what make_schema.py makes, and what the configuration needs."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Final

from tests.terraform.make_schema import named, schema_of
from tests.terraform.workspace import ROOT, schemas

# As the published package has it, with everything left out that is not read.
TYPESCRIPT: Final = """\
export function thingRuleToHclTerraform(struct?: any): any {
  const attrs = {
    age: {
      value: cdktf.numberToHclTerraform(struct!.age),
      isBlock: false,
      type: "simple",
      storageClassType: "number",
    },
  };
}

export class ThingRuleOutputReference extends cdktf.ComplexObject {
  // age - computed: false, optional: false, required: true
  private _age?: number;
  public get age() {
    return this.getNumberAttribute('age');
  }
}

export class Thing extends cdktf.TerraformResource {
  public static readonly tfResourceType = "google_thing";
  // labels - computed: false, optional: true, required: false
  public get labels() {
    return this.getStringMapAttribute('labels');
  }

  // uri - computed: true, optional: false, required: false
  public get uri() {
    return this.getStringAttribute('uri');
  }

  // rule - computed: false, optional: false, required: true
  private _rule = new ThingRuleOutputReference(this, "rule");

  protected synthesizeHclAttributes(): { [name: string]: any } {
    const attrs = {
      rule: {
        value: thingRuleToHclTerraform(this._rule.internalValue),
        isBlock: true,
        type: "list",
        storageClassType: "ThingRuleList",
      },
    };
  }
}
"""


def wheel(folder: Path) -> Path:
    mapped = base64.b64encode(json.dumps({"sourcesContent": [TYPESCRIPT]}).encode()).decode()
    script = f"//# sourceMappingURL=data:application/json;base64,{mapped}".encode()
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as inner:
        member = tarfile.TarInfo("package/lib/thing/index.js")
        member.size = len(script)
        inner.addfile(member, io.BytesIO(script))
    with zipfile.ZipFile(folder / "provider.whl", "w") as outer:
        outer.writestr("provider/_jsii/provider@1.jsii.tgz", package.getvalue())
    return folder / "provider.whl"


def test_a_schema_is_read_from_a_published_package(tmp_path: Path) -> None:
    found = schema_of(wheel(tmp_path), {"google_thing"})["resource_schemas"]
    assert found == {
        "google_thing": {
            "attributes": {
                "labels": {"type": ["map", "string"], "optional": True},
                "uri": {"type": "string", "computed": True},
            },
            "block_types": {
                "rule": {
                    "nesting_mode": "list",
                    "min_items": 1,
                    "max_items": 1,
                    "block": {"attributes": {"age": {"type": "number", "required": True}}, "block_types": {}},
                }
            },
        }
    }
    assert schema_of(wheel(tmp_path), {"google_another"})["resource_schemas"] == {}


def test_the_schema_has_what_the_configuration_names_and_nothing_else() -> None:
    known = {name for each in schemas().values() for name in each["resource_schemas"]}
    known |= {f"data.{name}" for each in schemas().values() for name in each["data_source_schemas"]}
    assert known == named(ROOT / "terraform")
