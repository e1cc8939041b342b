"""The process that is killed: exports or imports a snapshot, and says when it begins."""

from __future__ import annotations

import sys
from pathlib import Path

from infra import snapshots
from tests.bench.snapshot_rows import hub


def main(deed: str, home: str, what: str) -> None:
    one = hub(Path(home))
    print("begun", flush=True)
    if deed == "import":
        snapshots.restore(one, Path(what))
    else:
        snapshots.export(one, what, "INCREMENTAL" if deed == "incremental" else "ALL")


if __name__ == "__main__":
    main(*sys.argv[1:])
