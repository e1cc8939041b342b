"""The archives beside Google's emulators: told what a deployed function is told, they move records and sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from google.cloud import storage

from infra.gcp.names import bucket_name
from tests import archives
from tests.acceptance.google.cloud import SINK, SOURCE, routed
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.hub import NAME, ROOT
from tests.acceptance.servers import Archived
from tests.emulators import Emulators


def without(environment: Mapping[str, str], *secrets: str) -> dict[str, str]:
    """Each function has the secrets of its own end."""
    return {name: value for name, value in environment.items() if name not in secrets}


def test_records_travel_through_the_archives(
    make_google: MakeGoogleHub, emulators: Emulators, runtime: Path, tmp_path: Path
) -> None:
    google = make_google(40, invalid=2)
    google.environment["STORAGE_EMULATOR_HOST"] = emulators.environ["STORAGE_EMULATOR_HOST"]
    client = storage.Client(project=google.project)
    client.create_bucket(bucket_name(google.project))
    client.close()
    overlay = json.loads(Path(google.environment["WAYBILL_OVERLAY"]).read_text())
    told = {**google.environment, "WAYBILL_OVERLAY": archives.rules(ROOT)["overlay"]}
    del told["WAYBILL_HOME"]
    places = {
        folder: archives.unpack(archives.members(ROOT, folder, overlay), tmp_path / "workspace" / folder)
        for folder in (NAME, "operations")
    }

    source = Archived(runtime, places[NAME], "source", without(told, "MILVUS_TOKEN"))
    sink = Archived(runtime, places[NAME], "sink", without(told, "PLOOMES_USER_KEY"))
    with source, sink, routed(google, {SOURCE: source, SINK: sink}):
        read = source.post()
        assert read.status_code == 200, read.text
        google.wait_until_settled(40)
        # Who operates the hub has neither end's secrets but to read a source on this machine.
        google.environment = without(google.environment, "PLOOMES_USER_KEY", "MILVUS_TOKEN")
        assert google.replay().document["planned"] == 2
        google.environment |= {"PLOOMES_USER_KEY": told["PLOOMES_USER_KEY"]}
        assert google.run().code == 0
    with Archived(runtime, places["operations"], "sweep", without(told, "PLOOMES_USER_KEY", "MILVUS_TOKEN")) as sweep:
        swept = sweep.post()

    assert swept.status_code == 200, swept.text
    assert set(swept.json()["integrations"]) == {path.parent.name for path in ROOT.glob("functions/*/integration.yaml")}
    assert google.stats("milvus")["creates"] == 38
    assert google.audited() == {"fetched": 40, "delivered": 38, "invalid": 2}
    left = [path.name for place in places.values() for path in place.rglob("*.db")]
    assert left == [], "state was kept beside the function"
