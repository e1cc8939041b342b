"""Data syncs from outside: files there and back, side by side, through a kill, and with tokens."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.data_syncs import (
    COLUMNS,
    NAME,
    Caller,
    audited,
    customers,
    export,
    fingerprints,
    peak_memory,
    write,
)
from tests.acceptance.hub import Hub, wait_until
from tests.acceptance.servers import Serve

MANY = 200_000
FEW = 20_000
MEMORY = 60_000_000
"""How many bytes more 200,000 rows may take than 20,000: what the allocator leaves lying about, and no rows."""


def hub_of(make_hub: MakeHub, **streams: object) -> Hub:
    hub = make_hub(0)
    hub.overlay({}, **{NAME: {"streams": streams}})
    return hub


def test_two_hundred_thousand_customers_there_and_back(make_hub: MakeHub, tmp_path: Path) -> None:
    hub = hub_of(make_hub)
    few = write(tmp_path / "few.csv", customers(1, FEW, city="before"))
    many = write(tmp_path / "many.csv", customers(1, MANY))
    gone = write(tmp_path / "gone.csv", ([str(n)] for n in range(1, MANY, 10)), ["id"])
    with Serve(hub) as serve:
        api = Caller(hub, serve)
        for path, table in (("import/customers_import", few), ("import/customers_import", many)):
            answer = api.send(path, table)
            assert (answer.status_code, answer.text) == (200, "File queued")
            count = 1 if table is few else 2
            assert "status-message" not in api.finished("customers_import", count)[0]
            export(hub, "customers_export")
            if table is few:
                small = peak_memory(serve)
        header, *_ = api.rows("export/customers_export")
        assert header == COLUMNS
        assert fingerprints(api.rows("export/customers_export")) == fingerprints([COLUMNS, *customers(1, MANY)])

        assert api.send("import/customers_delete", gone).text == "File queued"
        assert "status-message" not in api.finished("customers_delete")[0]
        export(hub, "customers_export")
        left = (row for row in customers(1, MANY) if int(row[0]) % 10 != 1)
        assert fingerprints(api.rows("export/customers_export")) == fingerprints([COLUMNS, *left])
        assert peak_memory(serve) < small + MEMORY
        assert serve.end() == 0
    books = audited(hub)
    assert books["customers_import"]["delivered"] == FEW + MANY
    assert books["customers_delete"]["delivered"] == MANY // 10
    assert books["customers_export"]["delivered"] == FEW + MANY + MANY - MANY // 10


def test_the_same_file_again_is_unchanged_unless_others_changed_the_store(make_hub: MakeHub, tmp_path: Path) -> None:
    hub = hub_of(make_hub)
    table = write(tmp_path / "customers.csv", customers(1, 50))
    with Serve(hub) as serve:
        api = Caller(hub, serve)
        api.send("import/customers_import", table)
        api.finished("customers_import")
        api.send("delete/customers_delete", b"id\n7\n8\n")
        api.finished("customers_delete")
        api.send("import/customers_import", table)
        latest = api.finished("customers_import", 2)[0]
        rows = api.get(f"customers_import/{latest['id']}/result").json()["rows"]
        assert Counter(row["outcome"] for row in rows) == {"unchanged": 48, "delivered": 2}
        assert [row["key"] for row in rows if row["outcome"] == "delivered"] == ["7", "8"]
        export(hub, "customers_export")
        assert fingerprints(api.rows("export/customers_export")) == fingerprints([COLUMNS, *customers(1, 50)])


def test_fifty_uploads_to_five_data_syncs_at_once_are_all_accounted_for(make_hub: MakeHub, tmp_path: Path) -> None:
    syncs = [f"import_{n}" for n in range(5)]
    hub = hub_of(make_hub, **{sync: {"type": "import", "kind": "customers"} for sync in syncs})
    tables = [write(tmp_path / f"{n}.csv", customers(1 + n * 40, 40)) for n in range(50)]
    answers: list[tuple[int, str]] = []
    with Serve(hub) as serve:
        api = Caller(hub, serve)

        def send(number: int) -> None:
            answer = api.send(f"import/{syncs[number % 5]}", tables[number])
            answers.append((answer.status_code, answer.text))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [(200, "File queued")] * 50
        for sync in syncs:
            launches = api.finished(sync, 10)
            assert len({launch["id"] for launch in launches}) == 10
            assert all("status-message" not in launch for launch in launches)
        export(hub, "customers_export")
        assert fingerprints(api.rows("export/customers_export")) == fingerprints([COLUMNS, *customers(1, 2_000)])
    books = audited(hub)
    assert {sync: books[sync]["delivered"] for sync in syncs} == dict.fromkeys(syncs, 400)


def test_kills_between_the_answer_and_the_end_of_a_launch_lose_no_row(make_hub: MakeHub, tmp_path: Path) -> None:
    chance = random.Random(7)
    hub = hub_of(make_hub)
    tables = [write(tmp_path / f"{n}.csv", customers(1 + n * 3_000, 3_000)) for n in range(5)]
    with Serve(hub) as serve:
        api = Caller(hub, serve)
        for table in tables:
            assert api.send("import/customers_import", table).text == "File queued"
            if chance.random() < 0.7:
                wait_until(lambda: api.latest("customers_import")["status"] != "scheduled", "the launch begins")
            serve.kill()
            serve.start()
        launches = api.finished("customers_import", 5)
        assert all("status-message" not in launch for launch in launches)
        export(hub, "customers_export")
        assert fingerprints(api.rows("export/customers_export")) == fingerprints([COLUMNS, *customers(1, 15_000)])
        for launch in launches:
            rows = api.get(f"customers_import/{launch['id']}/result").json()["rows"]
            assert [row["line"] for row in rows] == sorted({row["line"] for row in rows})
            assert Counter(row["outcome"] for row in rows) == {"delivered": 3_000}
    assert audited(hub)["customers_import"]["delivered"] == 15_000


def test_a_token_opens_one_data_sync_until_it_is_revoked(make_hub: MakeHub) -> None:
    hub = hub_of(make_hub)
    with Serve(hub) as serve:
        assert Caller(hub, serve).get("customers_import").status_code == 200, "no token was made, so it is open"
        made = [hub("token", "create", "customers_import").document for _ in range(2)]
        foreign = hub("token", "create", "customers_delete").document["token"]
        first, second = (Caller(hub, serve, each["token"]) for each in made)
        refused = [Caller(hub, serve, token).get("customers_import") for token in ("", "wrong", foreign)]
        assert {(answer.status_code, answer.text) for answer in refused} == {(403, refused[0].text)}
        assert "WWW-Authenticate" not in refused[0].headers
        assert [each.get("customers_import").status_code for each in (first, second)] == [200, 200]
        assert hub("token", "revoke", "customers_import", made[0]["id"]).code == 0
        assert [each.get("customers_import").status_code for each in (first, second)] == [403, 200]
        assert hub("token", "revoke", "customers_import", made[1]["id"]).code == 0
        assert [each.get("customers_import").status_code for each in (first, second)] == [403, 403]
        listed = hub("token", "list", "customers_import")
        assert [each["state"] for each in listed.document["tokens"]] == ["revoked", "revoked"]
        assert not any(each["token"] in str(listed.document) for each in made)
        assert serve.end() == 0
        assert not any(each["token"] in serve.said for each in made)
    for file in hub.home.rglob("*"):
        if file.is_file():
            assert not any(each["token"].encode() in file.read_bytes() for each in made)


def test_check_warns_of_what_is_open(make_hub: MakeHub) -> None:
    hub = hub_of(make_hub, customers_delete={"authentication": False})
    notes = hub("check", NAME).document["notes"]
    assert any("open to everybody" in note and "customers_import" in note for note in notes)
    assert any("customers_delete" in note and "authentication: false" in note for note in notes)
    hub("token", "create", "customers_import")
    notes = hub("check", NAME).document["notes"]
    assert not any("customers_import" in note for note in notes)


@pytest.mark.parametrize("command", [("create", "nobody"), ("list", "nobody"), ("revoke", "customers_import", "x")])
def test_what_is_no_data_sync_or_token_is_named_with_a_cure(make_hub: MakeHub, command: tuple[str, ...]) -> None:
    done = hub_of(make_hub)("token", *command)
    assert done.code == 2
    assert done.document["error"]["cure"]
