"""`make check` of terraform/, without a network. A repository other than this one may be named."""

import sys
import tempfile
import time
from pathlib import Path

from tests.terraform.check import faults
from tests.terraform.workspace import REQUIRED, ROOT, TerraformMissing, Workspace


def main(root: Path) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as data:
        try:
            workspace = Workspace(root, Path(data))
        except TerraformMissing as missing:
            print(f"terraform/ is not checked: {missing}")
            return 1 if REQUIRED else 0
        found = 0
        for fault in faults(workspace):
            print(fault, file=sys.stderr)
            found += 1
    print(f"terraform/: {found or 'no'} faults, {time.monotonic() - began:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
