"""The archives of the functions: what is in them, and that each starts where there is nothing else, and answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.entrypoints import push_body
from infra.local.home import EmbeddedHome
from infra.wiring import Hub as Wiring
from shared.ports import Message, topic_of
from shared.record import Envelope
from tests import archives
from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import ROOT
from tests.acceptance.servers import Archived

FOLDERS = archives.folders(ROOT)
RULES = archives.rules(ROOT)
DEPLOYED = {
    "ploomes_to_milvus": "customers",
    "milvus_to_ploomes": "customers",
    "okki_to_qeasy": "users",
    "tagless_crm": "ga4",
    "data_syncs": "customers_export",
}
PLACES = {"main.py", "requirements.txt", "functions", "infra", "shared"}


def trigger(folder: str) -> bytes:
    return b'{"stream": "%b"}' % DEPLOYED[folder].encode()


def envelope(folder: str) -> bytes:
    carried = Envelope(folder, DEPLOYED[folder], "a-run", "a-batch", 0, [])
    return push_body(Message(carried.to_bytes()), "projects/p/subscriptions/s", 1)


def no_envelope(folder: str) -> bytes:
    return push_body(Message(b"nonsense"), "projects/p/subscriptions/s", 1)


def not_json(folder: str) -> bytes:
    return b"{"


def nothing(folder: str) -> bytes:
    return b""


ANSWERS: dict[str, dict[Callable[[str], bytes], set[int]]] = {
    "source": {not_json: {400}, no_envelope: {400}, trigger: {400, 503}},
    "sink": {nothing: {400}, no_envelope: {400}, envelope: {503}},
    "api": {nothing: {404}},
    "snapshots": {nothing: {404}},
    "dead_letter": {nothing: {204}, no_envelope: {204}},
    "sweep": {not_json: {400}, nothing: {503}},
    "replay": {nothing: {400}},
    "cleanup": {not_json: {400}, nothing: {503}},
    "tcrm_monitoring_cleanup": {not_json: {400}, nothing: {503}},
}
"""What a function says that is told its backend and nothing else: neither project nor secrets. A source asks for its
secrets first, if it has any."""


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[..., Path]:
    """`unpacked(folder, overlay=..., by=...)`: an archive in an empty folder."""

    def unpack(folder: str, **how: Any) -> Path:
        return archives.unpack(archives.members(ROOT, folder, **how), tmp_path / "workspace" / folder)

    return unpack


# --- what is in them ---


def strangers(folder: str, held: archives.Members) -> list[str]:
    """The files that no function, or not this one, needs."""
    return [
        path
        for path in held
        if path.partition("/")[0] not in PLACES
        or {"tests", "sandbox"}.intersection(path.split("/"))
        or ("console" in path and folder != "console")
        or (path.startswith("functions/") and path.endswith("/main.py") and path != f"functions/{folder}/main.py")
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_archive_holds_nothing_of_tests_sandbox_or_console(folder: str) -> None:
    assert strangers(folder, archives.members(ROOT, folder)) == []


@pytest.mark.parametrize(
    "by",
    [
        {"always": [*RULES["always"], "tests/**"]},
        {"always": [*RULES["always"], "tests/sandbox/*.py"]},
        {"always": [*RULES["always"], "waybill"]},
        {"never_besides": []},
        {"own": ["functions/*/**"]},
    ],
)
def test_what_does_not_belong_there_is_found(by: dict[str, list[str]]) -> None:
    assert strangers("ploomes_to_milvus", archives.members(ROOT, "ploomes_to_milvus", by={**RULES, **by}))


def test_a_file_of_the_console_is_found_where_it_is_not_needed() -> None:
    page = {"infra/console/page.html": b""}
    assert strangers("operations", page) and not strangers("console", page)


def known(functions: Path, folder: str) -> dict[str, Any]:
    """What the hub of a function knows of its integration's streams."""
    hub = Wiring({}, functions)
    try:
        streams = hub.sound_streams(hub.integration(folder), disabled=True)[0]
    finally:
        hub.close()
    return {each.name: (each.opposite.integration if each.opposite else None, each.others) for each in streams}


@pytest.mark.parametrize("folder", DEPLOYED)
def test_a_hub_in_an_archive_knows_what_the_whole_one_knows(unpacked: Callable[..., Path], folder: str) -> None:
    assert known(unpacked(folder) / "functions", folder) == known(ROOT / "functions", folder)


def test_an_archive_without_the_other_direction_is_found(unpacked: Callable[..., Path]) -> None:
    folder = "ploomes_to_milvus"
    alone = unpacked(folder, by={**RULES, "besides": []})
    assert known(alone / "functions", folder) != known(ROOT / "functions", folder)


def test_what_an_overlay_says_travels_with_whom_it_is_about() -> None:
    overlay = {"ploomes_to_milvus": {"sink": {"lanes": 2}}, "tagless_crm": {"sink": {"lanes": 1}}}
    held = {folder: archives.members(ROOT, folder, overlay).get("overlay.yaml", b"") for folder in FOLDERS}
    assert held["ploomes_to_milvus"] == held["milvus_to_ploomes"] == b'{"ploomes_to_milvus": {"sink": {"lanes": 2}}}'
    assert held["tagless_crm"] == b'{"tagless_crm": {"sink": {"lanes": 1}}}'
    assert b"lanes" in held["operations"]
    assert held["okki_to_qeasy"] == b""


# --- and that they start ---


def test_the_environment_of_the_archives_holds_nothing_of_the_tests(runtime: Path) -> None:
    tried = [runtime / "python", "-c", "import functions_framework, google.cloud.firestore; import pytest"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'pytest'"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_function_starts_from_its_archive_and_answers(
    runtime: Path, unpacked: Callable[..., Path], folder: str
) -> None:
    place = unpacked(folder)
    for target in archives.entry_points(ROOT, folder):
        with Archived(runtime, place, target, {"WAYBILL_BACKEND": "gcp"}) as function:
            answers = {asked: function.post(body=asked(folder)) for asked in ANSWERS[target]}
        assert "Traceback" not in function.said
        for asked, answer in answers.items():
            assert answer.status_code in ANSWERS[target][asked], answer.text
            assert answer.headers["Content-Type"] in ("application/problem+json", "application/json")


def test_a_function_that_lacks_a_setting_says_which(runtime: Path, unpacked: Callable[..., Path]) -> None:
    place = unpacked("ploomes_to_milvus")
    with Archived(runtime, place, "source", {"WAYBILL_BACKEND": "gcp"}) as function:
        lacking = function.post(body=trigger("ploomes_to_milvus")).json()["detail"]
    assert "PLOOMES_USER_KEY" in lacking
    assert "MILVUS_TOKEN" not in lacking, "a source was given the secrets of a sink"
    with Archived(runtime, unpacked("operations"), "sweep", {"WAYBILL_BACKEND": "gcp"}) as function:
        assert "Google Cloud project" in function.post(body=b"").text


def test_an_archive_that_lacks_a_package_does_not_start(runtime: Path, unpacked: Callable[..., Path]) -> None:
    place = unpacked("operations", by={**RULES, "never": [*RULES["never"], "^shared/declared/"]})
    with pytest.raises(AssertionError, match=r"No module named 'shared\.declared'"):
        Archived(runtime, place, "sweep", {}).start()


@pytest.mark.parametrize("folder", DEPLOYED)
def test_each_integration_runs_from_its_archive(
    make_hub: MakeHub, tmp_path: Path, runtime: Path, unpacked: Callable[..., Path], folder: str
) -> None:
    hub = make_hub(3, clients=3, users=5, departments=1)
    rows = tmp_path / "rows.csv"
    rows.write_text("name,client_id\nsign_up,1.17\nlogin,2.17\n")
    ga4 = {"from": {"system": "files", "path": str(rows)}}
    hub.overlay({}, milvus_to_ploomes={}, okki_to_qeasy={}, tagless_crm={"streams": {"ga4": ga4}})
    home = EmbeddedHome(hub.home)
    home.ports.objects.put("customers", {"7": {"name": "Ana"}}, home.ports.clock.now())
    overlay = json.loads(Path(hub.environment["WAYBILL_OVERLAY"]).read_text())
    told = {**hub.environment, "WAYBILL_OVERLAY": RULES["overlay"]}
    start = partial(Archived, runtime, unpacked(folder, overlay=overlay), environment=told)
    with start("source") as source, start("sink") as sink:
        read = source.post(body=trigger(folder))
        assert read.status_code == 200, read.text
        taken = 0
        while (claimed := home.bus.claim([topic_of(folder)])) is not None:
            answer = sink.post(body=push_body(claimed.message, "projects/local/subscriptions/s", claimed.attempts))
            assert answer.status_code == 204, answer.text
            home.bus.acknowledge(claimed)
            taken += 1
        assert taken
    home.close()
    assert hub("audit", folder).document["streams"][DEPLOYED[folder]]["pending"] == 0


def test_no_integration_is_left_out() -> None:
    assert set(DEPLOYED) == {file.parent.name for file in (ROOT / "functions").glob("*/integration.yaml")}
