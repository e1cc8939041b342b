"""The embedded engine as a contender: reads the variables of the bench, runs until all is settled, audits.

Ends with 0 only if nothing is pending and the books balance.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from infra.log import silent
from infra.queries import audit_one
from infra.runner import run_streams
from infra.wiring import Hub
from shared.fetch import Order

HERE: Final = Path(__file__).resolve().parent
CONTACTS: Final = "contacts"


def contend(environ: dict[str, str]) -> int:
    name, stream = environ.get("INTEGRATION", CONTACTS), environ["MODE"]
    settings = {
        "PLOOMES_URL": environ["SOURCE_URL"],
        "PLOOMES_USER_KEY": environ["USER_KEY"],
        "WAYBILL_HOME": environ["WORKDIR"],
    }
    if float(environ.get("LATENCY_MS", "0")) > 0:
        settings["WAYBILL_OVERLAY"] = str(HERE / "late.yaml")
    hub = Hub({**settings, **environ}, HERE / "functions")
    try:
        streams = hub.streams(hub.integration(name), stream)
        results = run_streams(hub, name, streams, Order(), silent)
        found = audit_one(hub, name, stream)
    finally:
        hub.close()
    for result in results:
        if result.error is not None:
            print(f"{type(result.error).__name__}: {result.error}", file=sys.stderr)
    for trouble in found.unaccounted:
        print(f"unaccounted: {trouble}", file=sys.stderr)
    print(found.counts.as_dict())
    settled = all(result.state == "settled" for result in results) and found.counts.pending == 0
    return 0 if settled and found.balanced else 1


if __name__ == "__main__":
    sys.exit(contend(dict(os.environ)))
