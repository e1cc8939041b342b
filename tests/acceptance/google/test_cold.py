"""Which Google clients a function has loaded once it has done its work: those that it needs."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.cold import Functions
from tests.emulators import Emulators
from tests.sandbox import Sandbox

BOOKS = {"google.cloud.firestore", "google.auth"}
"""The client of Firestore brings google.auth."""
NEEDED = {
    "source": BOOKS | {"google.pubsub_v1", "google.cloud.storage"},
    "sink": BOOKS,
    "dead_letter": BOOKS,
    "sweep": BOOKS,
    "replay": BOOKS,
    "cleanup": BOOKS | {"google.cloud.storage"},
    "tcrm_monitoring_cleanup": BOOKS | {"google.cloud.storage"},
}


def test_each_function_loads_the_clients_that_it_needs(emulators: Emulators, tmp_path: Path) -> None:
    with Sandbox(customers=20, conversions=20, ploomes_per_minute=None) as sandbox:
        told = {**os.environ, **sandbox.environment}
        functions = Functions(["ploomes_to_milvus", "tagless_crm", "operations"], tmp_path, told)
        loaded = {name: set(start.clients) for name, _, start in functions.starts()}
    assert loaded == {name: NEEDED[name.split()[1]] for name in loaded}
    assert len(loaded) == 2 * 2 + len(NEEDED) - 2
