"""The paths of the API: what stands there, in which form, and what is answered to what is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.data_sync.openapi import document
from infra.data_sync.status import LATEST
from infra.log import silent
from infra.operations import Operations
from infra.serve import Server
from infra.snapshots.rest import SnapshotApi
from shared.books import Run
from shared.errors import StoreUnavailable
from shared.fetch import new_run_id
from shared.ports import lease_name
from tests.systems.data_sync_desk import NAME, ROOT, SYNCS, Desk, make_hub

AT = datetime(2022, 1, 14, 20, 0, 0, 500_000, UTC)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    hub = make_hub(tmp_path, SYNCS + '  nightly: {does: import, authentication: false, schedule: "0 13 * * *"}\n')
    yield Desk(hub)
    hub.close()


def test_a_sync_that_was_never_launched_has_a_name_and_a_status(desk: Desk) -> None:
    answer = desk.get("open_import")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.text == '{"name":"open_import","status":"enabled"}'
    assert desk.get("customers").json["name"] == "Customers"
    assert desk.get("open_import/latest-launches").text == "[]"


def test_keys_come_in_the_order_of_the_documentation(desk: Desk) -> None:
    launch = desk.add("nightly", id=1790000000000, scheduled_at=AT, state="cancelled", cancelled_by="api")
    assert launch.id == 1790000000000
    text = desk.get("nightly").text
    after = re.search(r'"next-launch":"(.*)"', text)
    assert after is not None
    assert text == (
        '{"name":"nightly","status":"enabled","latest-launch":{"id":1790000000000,"status":"cancelled",'
        '"scheduled-time":"2022-01-14T20:00:00","status-message":"Cancelled by user: api"},'
        f'"next-launch":"{after[1]}"}}'
    )
    next_launch = datetime.fromisoformat(after[1]).replace(tzinfo=UTC)
    assert (next_launch.hour, next_launch.minute, next_launch.second) == (13, 0, 0)
    assert timedelta() < next_launch - desk.home.clock.now() <= timedelta(days=1)
    edn = desk.get("nightly", Accept="application/edn")
    assert (edn.content_type, edn.headers["Vary"]) == ("application/edn", "Accept, Content-Type")
    assert edn.text == (
        '{:name "nightly" :status "enabled" :latest-launch {:id 1790000000000 :status "cancelled" '
        ':scheduled-time "2022-01-14T20:00:00" :status-message "Cancelled by user: api"} '
        f':next-launch "{after[1]}"}}'
    )
    assert desk.get("report", Content_Type="application/edn").text == '{:name "Report \\"A\\"" :status "enabled"}'


def test_what_is_disabled_or_paused_has_no_next_launch(desk: Desk) -> None:
    assert desk.get("asleep").json == {"name": "asleep", "status": "disabled"}
    desk.home.schedule.pause(NAME)
    assert desk.get("nightly").json == {"name": "nightly", "status": "disabled"}


def test_launches_come_newest_first_and_not_all_of_them(desk: Desk) -> None:
    for number in range(LATEST + 5):
        desk.add("open_import", id=1000 + number, scheduled_at=AT)
    ids = [launch["id"] for launch in desk.get("open_import/latest-launches").json]
    assert ids == [1000 + number for number in reversed(range(5, LATEST + 5))]
    assert desk.get("open_import").json["latest-launch"]["id"] == 1000 + LATEST + 4
    assert desk.get("leavers/latest-launches").json == []


def test_each_launch_can_be_asked_for_by_its_number(desk: Desk) -> None:
    for number in range(LATEST + 5):
        desk.add("open_import", id=1000 + number, scheduled_at=AT)
    latest = {launch["id"]: launch for launch in desk.get("open_import/latest-launches").json}
    assert desk.get("open_import/1010").json == latest[1010]
    assert desk.get("open_import/1000").json == latest[1010] | {"id": 1000} and 1000 not in latest
    assert desk.get("open_import/1000", Accept="application/edn").text.startswith('{:id 1000 :status "scheduled"')
    for path in ("open_import/17", "leavers/1000", "nobody/1000"):
        assert desk.get(path).status_code == 404


def test_a_launch_goes_from_scheduled_over_running_to_finished(desk: Desk) -> None:
    assert desk.send("import/open_import", "id,name\r\n1,Ana\r\n2,bad\r\n").status_code == 200
    (launch,) = desk.launches("open_import")
    assert desk.get("open_import").json["latest-launch"]["status"] == "scheduled"
    assert desk.handlers.go_on(b'{"integration":"%s","stream":"open_import","launch":1}' % NAME.encode()).status == 204
    running = desk.get("open_import").json["latest-launch"]
    assert (running["status"], list(running)) == ("running", ["id", "status", "scheduled-time", "started-at"])
    desk.work()
    finished = desk.get("open_import").json["latest-launch"]
    assert finished == running | {"status": "finished", "status-message": "1 of 2 rows were refused"}
    assert finished["id"] == launch.id


def test_a_file_that_cannot_be_read_finishes_its_launch_and_says_why(desk: Desk) -> None:
    assert desk.send("import/open_import", b"\xff\xfei\x00d\x00\n\x00").status_code == 200
    desk.work()
    (launch,) = desk.get("open_import/latest-launches").json
    assert launch["status"] == "finished"
    assert "UTF-8" in launch["status-message"]
    assert str(desk.hub.state_folder) not in launch["status-message"]


def test_what_waits_can_be_cancelled_and_nothing_else(desk: Desk) -> None:
    assert desk.send("import/open_import").status_code == 200
    (launch,) = desk.launches("open_import")
    answer = desk.call("DELETE", f"open_import/{launch.id}")
    assert (answer.status_code, answer.json["status"]) == (200, "cancelled")
    assert answer.json["status-message"] == "Cancelled by user: api"
    desk.work()
    assert desk.home.runs.get(launch.run) is None
    again = desk.call("DELETE", f"open_import/{launch.id}")
    assert (again.status_code, again.content_type) == (409, "application/problem+json")

    assert desk.send("import/open_import").status_code == 200
    desk.work()
    begun = desk.launches("open_import")[0]
    assert desk.call("DELETE", f"open_import/{begun.id}").status_code == 409
    assert desk.call("DELETE", "open_import/17").status_code == 404


def test_what_waits_behind_a_launch_that_is_read_can_be_cancelled(desk: Desk) -> None:
    launch = desk.add("open_import")
    lease = desk.home.leases.take(lease_name(NAME, "open_import"))
    assert desk.call("DELETE", f"open_import/{launch.id}").json["status"] == "cancelled"
    desk.home.leases.release(lease)


NOWHERE = (
    "", "nobody", "nobody/latest-launches", "nobody/17", "nobody/17/download", "nobody/17/result", "import/nobody",
    "export/nobody", "delete/nobody", "export", "open_import/", "/open_import", "open_import//latest-launches",
    "open_import/latest-launches/", "open_import/latest_launches", "open_import/17/nothing", "open_import/17/result/",
    "OPEN_IMPORT", "open_import%00", "open_import%0a", "%6fpen_import%20", "../data-sync/nobody", "..%2f..%2fstate.db",
    "%2e%2e/%2e%2e/etc/passwd", "....//open_import", "open_import/..%2f/download", "open_import/%2e%2e", "%ff%fe",
    "open_import\\latest-launches", "open_import/017/download", "open_import/0/download", "open_import/-1/download",
    "open_import/1.0/download", "open_import/%2b1/download", "open_import/1e3/download", "open_import/x/download",
    "open_import/99999999999999999999999999/download", "open_import/%d9%a1%d9%a7/download", "openapi.json/", "openapi",
    "exports/report", "import/../open_import", "loyalty", "loyalty.open_import", "openapi.yaml", "%u002e", "*",
)  # fmt: skip


@pytest.mark.parametrize("path", NOWHERE)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nothing_is_where_no_path_of_a_sync_leads(desk: Desk, method: str, path: str) -> None:
    answer = desk.call(method, path)
    assert answer.status_code in (404, 405)
    assert answer.status_code == 404 or "Allow" in answer.headers
    assert answer.content_type == "application/problem+json"
    assert answer.json["status"] == answer.status_code
    assert str(desk.hub.state_folder) not in answer.text


def test_each_address_is_for_syncs_of_its_type(desk: Desk) -> None:
    for path in ("export/open_import", "export/leavers", "export/report"):
        assert desk.get(path).status_code == 404
    assert "has produced a file" in desk.get("export/report").json["detail"]
    for path in ("import/report", "delete/report", "delete/open_import"):
        assert desk.send(path).status_code == 404
    # Of an unknown sync nobody learns whether it has launches.
    assert desk.get("open_import/17/download").json["detail"] == "this data sync has no such launch"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("import/open_import", "POST"),
        ("delete/leavers", "POST"),
        ("export/report", "GET, HEAD"),
        ("open_import", "GET, HEAD"),
        ("open_import/latest-launches", "GET, HEAD"),
        ("open_import/17", "GET, HEAD, DELETE"),
        ("open_import/17/download", "GET, HEAD"),
        ("open_import/17/result", "GET, HEAD"),
        ("openapi.json", "GET, HEAD"),
    ],
)
def test_another_method_is_told_which_one_is_right(desk: Desk, path: str, allowed: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
        if method not in allowed.split(", "):
            answer = desk.call(method, path)
            assert (answer.status_code, answer.headers["Allow"]) == (405, allowed), method


def test_head_is_answered_like_get_without_the_content(desk: Desk) -> None:
    assert desk.send("import/open_import").status_code == 200
    desk.work()
    id = desk.launches("open_import")[0].id
    paths = ("open_import", "open_import/latest-launches", "openapi.json", f"open_import/{id}/download",
             f"open_import/{id}/result", "export/report", "nobody")  # fmt: skip
    for path in paths:
        head, get = desk.call("HEAD", path), desk.get(path)
        assert (head.status_code, head.data) == (get.status_code, b""), path
        assert list(head.headers) == list(get.headers), path


@pytest.mark.parametrize("path", ["open_import", "open_import/latest-launches"])
def test_what_fails_inside_is_a_500_without_a_word_of_where(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for error in (StoreUnavailable("/srv/waybill/state.db is locked"), ZeroDivisionError("Ana Souza")):

        def fall_over(*arguments: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(desk.home.launches, "recent", fall_over)
        answer = desk.get(path)
        assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
        assert answer.json["detail"] == "something failed inside"
        assert desk.notices.pop() == ("data_sync_failed", {"path": "", "error": type(error).__name__})


def test_a_sync_that_lacks_a_setting_is_not_there_and_keeps_no_other_away(tmp_path: Path) -> None:
    hub = make_hub(tmp_path, SYNCS + "  broken: {does: export, authentication: false}\n")
    (hub.functions / NAME / "mapping.py").write_text(
        (hub.functions / NAME / "mapping.py").read_text().replace('keys["columns"]', "columns_of(keys)")
        + "\nfrom shared.errors import ConfigError\n\ndef columns_of(keys):\n"
        "    if not keys.get('columns'):\n        raise ConfigError('no columns')\n    return keys['columns']\n"
    )
    desk = Desk(hub)
    assert [desk.get(path).status_code for path in ("broken", "export/broken", "report")] == [404, 404, 200]
    hub.close()


def test_what_is_no_data_sync_is_not_found(tmp_path: Path) -> None:
    hub = make_hub(tmp_path)
    path = hub.functions / NAME / "mapping.py"
    path.write_text(path.read_text().replace('launched="sent"', 'launched=""'))
    desk = Desk(hub)
    assert desk.get("open_import").status_code == desk.send("import/open_import").status_code == 404
    assert desk.get("report").status_code == 200
    hub.close()


def test_the_document_names_every_path_and_every_code(desk: Desk) -> None:
    served = desk.get("openapi.json")
    assert (served.content_type, served.json) == ("application/json", document())
    paths = served.json["paths"]
    assert {path.removeprefix(ROOT): sorted(set(item) - {"parameters"}) for path, item in paths.items()} == {
        "/openapi.json": ["get"],
        "/import/{id}": ["post"],
        "/delete/{id}": ["post"],
        "/export/{id}": ["get"],
        "/{id}": ["get"],
        "/{id}/latest-launches": ["get"],
        "/{id}/{launch_id}": ["delete", "get"],
        "/{id}/{launch_id}/download": ["get"],
        "/{id}/{launch_id}/result": ["get"],
    }
    sent = {"200", "400", "403", "404", "408", "409", "413", "415", "500", "503"}
    assert set(paths[f"{ROOT}/import/{{id}}"]["post"]["responses"]) == sent
    assert set(paths[f"{ROOT}/export/{{id}}"]["get"]["responses"]) == {"200", "403", "404", "500", "503"}


def test_the_front_page_of_serve_lists_the_data_syncs(desk: Desk) -> None:
    operations, snapshots = Operations(desk.hub, silent), SnapshotApi(desk.hub, silent, in_background=False)
    for syncs, listed in ((desk.api, True), (None, False)):
        page = Server(desk.hub, {}, operations, snapshots, syncs).front(None).get_data(as_text=True)  # type: ignore[arg-type]
        assert (f"{ROOT}/open_import" in page, f"{ROOT}/openapi.json" in page) == (listed, listed)


def test_a_run_of_the_stream_that_is_no_launch_is_no_launch(desk: Desk) -> None:
    run = Run(new_run_id("report", AT), NAME, "report", "fetch", "settled", AT, finished_at=AT, fetch_done=True)
    lease = desk.home.leases.take(lease_name(NAME, "report"))
    desk.home.runs.commit(lease, run)
    assert desk.get("report/latest-launches").json == []
    assert desk.get("export/report").status_code == 404
