"""There and back through data syncs: OKKI's users into one hub's API and out of it, by nothing but its address."""

from __future__ import annotations

import csv
import io
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.acceptance.conftest import hubs_in
from tests.acceptance.hub import wait_until
from tests.acceptance.servers import Serve
from tests.systems.prisma_hub import Client, Provider, Row, Way, report

TO, FRO = "okki_to_prisma", "prisma_to_store"
USERS = 35
A_FILE = 20
"""Rows, by `sink.batch_size`."""
CALLS = 6
"""Of a run that sends two files: a look at the launches, the file, and another look for each."""
Provide = Callable[..., Provider]


@pytest.fixture
def provide(tmp_path: Path) -> Iterator[Provide]:
    """`provide(customers_import={...}, ...)`: a served hub beside a sandbox, with these settings of its data syncs."""
    served: list[Serve] = []
    with hubs_in(tmp_path) as make_hub:

        def one(**streams: Row) -> Provider:
            hub = make_hub(0, users=USERS, departments=5)
            hub.overlay({}, data_syncs={"streams": streams})
            serve = Serve(hub)
            serve.__enter__()
            served.append(serve)
            return Provider(hub, serve)

        yield one
        for each in served:
            each.__exit__(None, None, None)


def people_of(provider: Provider) -> dict[str, Row]:
    """The users whom OKKI has, as customers."""
    return {
        str(row["user_id"]): {"id": str(row["user_id"]), "name": row["full_name"], "email": row["email"]}
        for row in provider.hub.rows("okki")
        if str(row["enable_flag"]) != "2"
    }


def customers_of(provider: Provider) -> dict[str, Row]:
    """The customers whom the provider has, by its export. One that is there twice is an error."""
    for name in ("IMPORT", "DELETE"):
        wait_until(lambda name=name: provider.is_idle(name), "all files are read")
    provider.export()
    answer = provider.get("EXPORT", f"/{provider.launches('EXPORT')[0]['id']}/download")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode(), newline=""), strict=True))
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def edit(provider: Provider, ids: list[str], **fields: str) -> None:
    provider.hub.control("okki", "edit", ids=[int(each) for each in ids], fields=fields)


def test_users_go_there_are_confirmed_and_come_back(provide: Provide, tmp_path: Path) -> None:
    provider = provide()
    client = Client(tmp_path / "client", provider)
    people = people_of(provider)

    done = client("run", TO)

    assert (done.code, report(done, "users")["delivered"]) == (0, len(people)), done
    files = -(-len(people) // A_FILE)
    assert len(provider.launches("IMPORT")) == files
    assert client.pending(TO, "users") == (files, len(people))
    assert customers_of(provider) == people
    assert client.swept(TO)["confirmed"] == files + len(provider.launches("DELETE"))
    assert client.pending(TO, "users") == (0, 0)
    back = client("run", FRO)
    assert (back.code, report(back, "customers")["delivered"]) == (0, len(people)), back
    assert client.stored() == people
    assert client.books(TO)["users"]["delivered"] == client.books(FRO)["customers"]["delivered"] == len(people)
    for token in provider.tokens.values():
        assert token not in done.notes + back.notes + provider.serve.said + str(done.document) + str(back.document)


def test_what_did_not_change_is_not_sent_again(provide: Provide, tmp_path: Path) -> None:
    provider = provide()
    client = Client(tmp_path / "client", provider)
    client("run", TO)
    before = len(provider.launches("IMPORT"))
    again = client("run", TO)
    assert (again.code, report(again, "users")["unchanged"]) == (0, len(people_of(provider)))
    assert len(provider.launches("IMPORT")) == before

    edit(provider, sorted(people_of(provider))[:3], full_name='Ana "A",\nMüller')
    third = client("run", TO)

    assert (third.code, report(third, "users")["delivered"]) == (0, 3)
    newest, *others = provider.launches("IMPORT")
    assert len(others) == before
    sent = provider.get("IMPORT", f"/{newest['id']}/download").content.decode()
    assert sent.startswith("id,name,email\r\n") and sent.count('"Ana ""A"",\nMüller"') == 3
    assert customers_of(provider) == people_of(provider)


def test_a_past_export_can_be_read_again(provide: Provide, tmp_path: Path) -> None:
    provider = provide()
    client = Client(tmp_path / "client", provider)
    client("run", TO)
    before = customers_of(provider)
    edit(provider, sorted(before)[:3], full_name="somebody else")
    client("run", TO)
    after = customers_of(provider)
    assert client("run", FRO).code == 0
    assert client.stored() == after != before
    past = provider.launches("EXPORT")[-1]["id"]
    client.overlay_with({FRO: {"streams": {"customers": {"launch": past}}}})
    assert report(client("run", FRO), "customers")["delivered"] == 3
    assert client.stored() == before


def test_who_left_is_taken_out_and_who_comes_back_is_sent_again(provide: Provide, tmp_path: Path) -> None:
    provider = provide()
    client = Client(tmp_path / "client", provider)
    client("run", TO)
    gone = sorted(customers_of(provider))[:4]

    edit(provider, gone, enable_flag="2")
    assert client("run", TO).code == 0

    assert customers_of(provider) == people_of(provider)
    edit(provider, gone[:2], enable_flag="1")
    assert report(client("run", TO), "users")["delivered"] == 2
    assert customers_of(provider) == people_of(provider)


def test_a_file_that_could_not_be_read_becomes_failures_and_a_replay_brings_them_there(
    provide: Provide, tmp_path: Path
) -> None:
    provider = provide(customers_import={"mapping": {"id": "id", "name": "nome", "email": "email"}})
    client = Client(tmp_path / "client", provider)
    people = people_of(provider)
    assert report(client("run", TO), "users")["delivered"] == len(people)
    wait_until(lambda: provider.is_idle("IMPORT"), "all files are looked at")

    assert client.swept(TO)["refused"] == len(people)

    failures = client("failures", TO).document["failures"]
    assert {(each["outcome"], each["number"]) for each in failures} == {("rejected", 172)}
    assert {each["key"] for each in failures} == people.keys()
    assert all("nome" in each["reason"] for each in failures)
    assert client.books(TO)["users"]["rejected"] == len(people)
    assert provider.serve.end() == 0
    provider.hub.overlay({}, data_syncs={"streams": {"customers_import": {"mapping": None}}})
    provider.serve.start()
    client.environment["PRISMA_URL"] = provider.serve.url
    replayed = client.replayed(TO)
    assert (replayed["state"], replayed["delivered"]) == ("settled", len(people)), replayed
    assert customers_of(provider) == people
    assert client("failures", TO).document["failures"] == []
    assert client.books(TO)["users"]["delivered"] == len(people)


def test_rows_that_were_refused_are_counted_and_nobody_knows_which(provide: Provide, tmp_path: Path) -> None:
    """Only customers who are there already are known by their address."""
    provider = provide(customers_import={"match": "email"}, known={"type": "import", "kind": "customers"})
    client = Client(tmp_path / "client", provider)
    people = people_of(provider)
    strangers = sorted(people)[::3]
    file = "id,email\r\n" + "".join(f"{key},{row['email']}\r\n" for key, row in people.items() if key not in strangers)
    sent = requests.post(f"{provider.serve.url}/api/data-sync/import/known", files={"file": file}, timeout=60)
    assert sent.text == "File queued"
    wait_until(lambda: len(people) - len(strangers) == len(customers_of(provider)), "those who are known")
    assert report(client("run", TO), "users")["delivered"] == len(people)
    wait_until(lambda: provider.is_idle("IMPORT"), "all files are read")

    swept = client.swept(TO)

    assert (swept["refused"], swept["alerts"]) == (len(strangers), 1)
    assert client("failures", TO).document["failures"] == []
    assert client.books(TO)["users"]["delivered"] == len(people)
    status = client("status", TO).document
    assert status["integrations"][0]["streams"][0]["confirmation"]["refused"] == {"ROWS_REFUSED": len(strangers)}


def test_files_that_are_too_large_go_in_parts_until_they_are_taken(provide: Provide, tmp_path: Path) -> None:
    provider = provide(customers_import={"max_upload": 400})
    client = Client(tmp_path / "client", provider)
    people = people_of(provider)
    done = client("run", TO, "--stream", "users")
    assert (done.code, report(done, "users")["delivered"]) == (0, len(people)), done
    assert customers_of(provider) == people
    assert client.pending(TO, "users") == (len(provider.launches("IMPORT")), len(people))
    assert len(provider.launches("IMPORT")) > 2 * -(-len(people) // A_FILE)


def test_a_disabled_data_sync_keeps_everything_pending_until_it_is_enabled(provide: Provide, tmp_path: Path) -> None:
    provider = provide(customers_import={"enabled": False})
    client = Client(tmp_path / "client", provider)
    people = people_of(provider)
    done = client("run", TO)
    assert (done.code, report(done, "users")["pending"]) == (4, len(people)), done
    assert provider.serve.end() == 0
    provider.hub.overlay({}, data_syncs={})
    provider.serve.start()
    client.environment["PRISMA_URL"] = provider.serve.url
    assert client("run", TO).code == 0
    assert customers_of(provider) == people


def test_a_wrong_token_stops_the_stream_and_consumes_nothing(provide: Provide, tmp_path: Path) -> None:
    provider = provide()
    client = Client(tmp_path / "client", provider)
    client.environment["PRISMA_TOKEN_IMPORT"] = provider.tokens["DELETE"]
    done = client("run", TO)
    assert (done.code, report(done, "users")["error"]["class"]) == (4, "AuthError"), done
    assert (report(done, "users")["pending"], provider.launches("IMPORT")) == (len(people_of(provider)), [])
    del client.environment["PRISMA_TOKEN_IMPORT"]
    done = client("run", TO)
    assert (done.code, "PRISMA_TOKEN_IMPORT" in str(done.document)) == (2, True), done


def test_a_run_killed_at_each_of_its_calls_leaves_each_row_there_once(provide: Provide, tmp_path: Path) -> None:
    """Before a call arrives, and before its answer does; each time in the middle of two files."""
    provider = provide()
    kills = 0
    with Way(provider.serve.url) as way:
        client = Client(tmp_path / "client", provider, way.url)
        for number in range(1, CALLS + 1):
            for with_answer in (False, True):
                edit(provider, list(people_of(provider)), full_name=f"name {number} {with_answer}")
                run = client.start("run", TO, "--stream", "users")
                way.watch(run, number, with_answer=with_answer)
                done = client.finish(run)
                assert done.code == -signal.SIGKILL, done
                kills += 1
                done = client("run", TO, "--stream", "users")
                assert done.code == 0, done
    assert kills == 2 * CALLS
    assert customers_of(provider) == people_of(provider)
    books = client.books(TO)["users"]
    assert books["fetched"] == sum(books[name] for name in ("filtered", "delivered", "unchanged", "superseded")), books
    assert client("failures", TO).document["failures"] == []
    assert client.swept(TO)["refused"] == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_stock_client_does_the_same_by_curl(provide: Provide, tmp_path: Path) -> None:
    """As the vendor's documentation has it: a form, a token as password, a Content-Type even where nothing is sent."""
    provider = provide()
    people = people_of(provider)
    file = tmp_path / "customers.csv"
    file.write_text(
        "id,name,email\n" + "".join(f"{row['id']},{row['name']},{row['email']}\n" for row in people.values())
    )

    def curl(name: str, path: str, *options: str) -> str:
        url = f"{provider.serve.url}/api/data-sync/{path}"
        command = ["curl", "-sS", "-u", f"api:{provider.tokens[name]}", *options, url]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    assert curl("IMPORT", "import/customers_import", "-F", f"file=@{file}") == "File queued"
    assert customers_of(provider) == people
    status = curl("IMPORT", "customers_import", "-H", "Content-Type: application/edn")
    assert ':status "finished"' in status and ":latest-launch {" in status
    assert '"status":"finished"' in curl("IMPORT", "customers_import", "-H", "Content-Type: application/json").replace(
        " ", ""
    )
    assert curl("EXPORT", "export/customers_export").count("\n") == len(people) + 1
