"""OKKI's users with their departments in a Qeasy scheme, read as the scheme's metadata says."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import ROOT, Document, Done, Hub

NAME = "okki_to_qeasy"
FOLDER = ROOT / "functions" / NAME
KILLS = 10
FAULTS = "429=3%,retry_after=0,503=3%,drop=3%,drop_before=1%"


def make(make_hub: MakeHub, users: int = 200, stream: Document | None = None, **settings: Any) -> Hub:
    settings = {"departments": 40, "qeasy_per_minute": None} | settings
    hub = make_hub(0, users=users, **settings)
    configure(hub, **(stream or {}))
    return hub


def configure(hub: Hub, *, sink: Document | None = None, alerts: Document | None = None, **stream: Any) -> None:
    hub.overlay({}, **{NAME: {"streams": {"users": stream}, "sink": sink or {}, "alerts": alerts or {}}})


def run(hub: Hub, *options: str) -> Done:
    return hub("run", NAME, *options)


def report(done: Done) -> Document:
    found: Document = done.document["streams"]["users"]
    return found


def active(hub: Hub) -> dict[str, Document]:
    return {str(row["user_id"]): row for row in hub.rows("okki") if str(row["enable_flag"]) == "1"}


def departments(hub: Hub) -> dict[str, str]:
    return {str(row["id"]): row["name"] for row in hub.rows("okki", "departments")}


def stored(hub: Hub) -> dict[str, Document]:
    """The rows of the scheme by their id; one that is there twice is an error."""
    rows = hub.rows("qeasy")
    found = {str(row["id"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def assert_all_there(hub: Hub) -> None:
    names, rows, people = departments(hub), stored(hub), active(hub)
    assert rows.keys() == people.keys()
    for number, person in people.items():
        assert rows[number]["name"] == person["nickname"]
        assert rows[number]["department_name"] == names[str(person["department_id"])]


def test_five_thousand_users_arrive_once_each_with_their_departments(make_hub: MakeHub) -> None:
    """With three in a hundred calls refused, failing or unanswered, and the run killed ten times."""
    chance = random.Random(5)
    hub = make(make_hub, 5_000, {"metadata": {"target": str(FOLDER / "once.json")}}, faults=FAULTS, same_nicknames=40)
    # As the shipped file, but a row that is stored already is not overwritten: a second arrival would be seen.
    once = json.loads((FOLDER / "store.json").read_text()) | {"idCheck": True}
    target = hub.home.parent / "once.json"
    target.write_text(json.dumps(once))
    configure(hub, metadata={"source": "source.json", "target": str(target)}, sink={"batch_size": 50})
    kills = 0
    while kills < KILLS:
        process = hub.start("run", NAME)
        enough = hub.asked("qeasy") + chance.randrange(0, 12)
        while process.poll() is None and hub.asked("qeasy") < enough:
            sleep(0.001)
        sleep(chance.random() * 0.02)
        process.kill()
        done = hub.finish(process)
        kills += 1
        assert done.code in (-signal.SIGKILL, 0), done
        if done.code == 0:
            hub.control("okki", "add", count=50)

    assert run(hub).code == 0

    assert_all_there(hub)
    ids = hub.stats("qeasy")["repeated_ids"]
    assert not any(ids.values())
    audit = hub("audit", NAME, "--deep")
    assert (audit.code, audit.document.get("unaccounted")) == (0, []), audit
    again = run(hub)
    assert (again.code, report(again)["delivered"]) == (0, 0)


def test_a_renamed_department_updates_just_its_members(make_hub: MakeHub) -> None:
    hub = make(make_hub)
    assert run(hub).code == 0
    assert_all_there(hub)
    members = Counter(str(person["department_id"]) for person in active(hub).values())
    number, count = members.most_common(1)[0]
    hub.control("okki", "edit", kind="departments", ids=[int(number)], fields={"name": "改名部门"})

    done = run(hub)

    assert (done.code, report(done)["delivered"], report(done)["unchanged"]) == (0, count, len(active(hub)) - count)
    assert_all_there(hub)
    assert Counter(row["department_name"] for row in stored(hub).values())["改名部门"] == count


def test_users_with_one_nickname_are_never_made_one(make_hub: MakeHub) -> None:
    hub = make(make_hub, same_nicknames=10)
    assert run(hub).code == 0
    assert_all_there(hub)
    shared = {name for name, count in Counter(p["nickname"] for p in active(hub).values()).items() if count > 1}
    people = [person for person in active(hub).values() if person["nickname"] in shared]
    assert len(shared) >= 8

    configure(hub, key="nickname")
    hub.environment["WAYBILL_HOME"] = str(hub.home.parent / "by nickname")
    by_nickname = run(hub)

    assert by_nickname.code == 3
    assert report(by_nickname)["invalid"] == len(people)
    assert report(by_nickname)["delivered"] == len(active(hub)) - len(people)
    again = run(hub)
    assert (again.code, report(again)["duplicate"], report(again)["invalid"]) == (0, len(people), 0)
    found = hub("failures", NAME).document["failures"]
    assert {failure["key"] for failure in found} == {f"okki:{person['user_id']}" for person in people}
    assert {failure["number"] for failure in found} == {111}


def test_who_is_frozen_or_deleted_stays_at_home_unless_asked_for(make_hub: MakeHub) -> None:
    hub = make(make_hub)
    everybody = hub.rows("okki")
    first = run(hub)
    assert report(first)["rules"] == {"inactive": len(everybody) - len(active(hub))}
    configure(hub, inactive=True)
    assert run(hub).code == 0
    assert stored(hub).keys() == {str(row["user_id"]) for row in everybody}


def test_the_empty_write_stores_rows_in_the_hub_and_calls_nobody(make_hub: MakeHub) -> None:
    """The two blocks of metadata as they were published, unmodified."""
    hub = make(make_hub, stream={"metadata": {"source": "source.json", "target": "target.json"}})
    done = run(hub)
    assert (done.code, report(done)["delivered"]) == (0, len(active(hub)))
    chosen = next(iter(active(hub)))
    hub.control("okki", "edit", ids=[int(chosen)], fields={"nickname": "换了名字"})
    again = run(hub)
    assert (again.code, report(again)["unchanged"], report(again)["delivered"]) == (0, len(active(hub)), 0)
    assert hub.asked("qeasy") == 0
    cell = hub("trace", NAME, "--stream", "users", "--key", chosen).document["cell"]
    assert cell["hash"]


def test_fields_conditions_and_look_ups_are_declared(make_hub: MakeHub) -> None:
    fields = {
        "name": "nickname",
        "full_name": None,
        "email": None,
        "mobile": None,
        "position": None,
        "dept_id": None,
        "active": {"from": "enable_flag", "as": "boolean"},
        "sex": {"from": "gender", "look_up": {"table": {"0": "未知", "1": "男", "2": "女"}}},
        "top": {"from": "department.path.0", "default": "?"},
    }
    hub = make(make_hub, stream={"fields": fields, "only": [{"name": "few", "field": "gender", "in": ["1", "2"]}]})
    done = run(hub)
    assert done.code == 0, done
    rows = stored(hub).values()
    assert {row["sex"] for row in rows} == {"男", "女"}
    assert {row["active"] for row in rows} == {True}
    assert {row["top"] for row in rows} == {departments(hub)["0"]}
    assert report(done)["rules"]["few"] == sum(p["gender"] not in ("1", "2") for p in active(hub).values())


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"api": None}, "api", "nothing"),
        ({"idCheck": "yes"}, "idCheck", "`yes`"),
        ({"request": [{"field": "now", "value": "{{LAST_SYNC_TIME|datetme}}"}]}, "request[0].value", "datetme"),
        ({"request": [{"field": "now", "type": "instant"}]}, "request[0].type", "instant"),
        ({"request": [{"field": "now", "value": "{{YESTERDAY}}"}]}, "request[0].value", "YESTERDAY"),
    ],
)
def test_wrong_metadata_is_refused_by_check_with_file_and_place(
    make_hub: MakeHub, changes: Document, place: str, said: str
) -> None:
    wrong = json.loads((FOLDER / "source.json").read_text()) | changes
    hub = make(make_hub, 1)
    file = hub.home.parent / "wrong.json"
    file.write_text(json.dumps({name: value for name, value in wrong.items() if value is not None}))
    configure(hub, metadata={"source": str(file)})
    checked = hub("check", NAME)
    assert checked.code == 2
    (mistake,) = checked.document["mistakes"]
    assert (mistake["file"], mistake["path"]) == (str(file), place)
    assert said in mistake["found"]
    assert mistake["cure"]
    assert run(hub).code == 2


def test_wrong_declarations_are_all_named_by_check(make_hub: MakeHub) -> None:
    fields = {"a": {"from": "x", "as": "integr"}, "b": {"from": "t", "as": "date", "zone": "Asia/Shanghaj"}}
    hub = make(make_hub, 1, {"fields": fields, "only": [{"field": "x", "matches": "("}]})
    checked = hub("check", NAME)
    assert checked.code == 2
    found = {mistake["path"]: mistake["cure"] for mistake in checked.document["mistakes"]}
    keys = ("fields.a.as", "fields.b.zone", "only[0].matches")
    assert found.keys() <= {f"{NAME}.streams.users.{key}" for key in keys}
    assert all(mistake["file"].endswith("overlay.yaml") for mistake in checked.document["mistakes"])
    assert len(found) >= 2
    assert all(found.values())


def test_metadata_that_is_not_there_or_means_something_else_is_refused(make_hub: MakeHub) -> None:
    hub = make(make_hub, 1, {"metadata": {"source": "sauce.json"}})
    (mistake,) = hub("check", NAME).document["mistakes"]
    assert mistake["file"].endswith("okki_to_qeasy/sauce.json")
    configure(hub, metadata={"source": "~nobody-at-all/x.json"})
    (mistake,) = hub("check", NAME).document["mistakes"]
    assert "home directory" in mistake["expected"]
    other = hub.home.parent / "other.json"
    other.write_text(json.dumps({"api": "/v1/orders", "method": "GET"}))
    configure(hub, metadata={"source": str(other)})
    (mistake,) = hub("check", NAME).document["mistakes"]
    assert "/v1/orders" in mistake["found"]
    assert "/v1/user/list" in mistake["cure"]


def test_a_missing_scheme_is_said_before_anything_is_read(make_hub: MakeHub) -> None:
    hub = make(make_hub, 5)
    del hub.environment["QEASY_SCHEME"]
    done = run(hub)
    assert (done.code, done.document["error"]["class"]) == (2, "ConfigError")
    assert "QEASY_SCHEME" in done.document["error"]["cure"]
    assert hub.asked("okki") == 0
    configure(hub, scheme=hub.sandbox.qeasy.scheme)
    assert run(hub).code == 0


def test_a_missing_row_is_named_by_the_deep_audit(make_hub: MakeHub) -> None:
    hub = make(make_hub, 50)
    assert run(hub).code == 0
    gone = sorted(stored(hub))[:3]
    hub.control("qeasy", "delete", ids=[int(each) for each in gone])
    audit = hub("audit", NAME, "--deep")
    assert audit.code == 8
    assert {one["key"] for one in audit.document["unaccounted"]} == set(gone)


def test_the_files_of_the_integration_are_the_published_blocks() -> None:
    assert json.loads(Path(FOLDER / "target.json").read_text()) == {
        "api": "写入空操作",
        "method": "POST",
        "idCheck": True,
    }
    source = json.loads(Path(FOLDER / "source.json").read_text())
    assert (source["api"], source["id"], source["idCheck"]) == ("/v1/user/list", "nickname", True)
    assert source["request"][1]["value"] == "{{LAST_SYNC_TIME|datetime}}"
