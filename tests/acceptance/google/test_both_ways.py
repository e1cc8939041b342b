"""Tickets and both directions on Google Cloud's parts: the same rules, another home."""

from __future__ import annotations

from collections import Counter

from shared.books import FailureQuery
from tests.acceptance.google.cloud import GoogleHub
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.hub import NAME, wait_until
from tests.acceptance.servers import Serve
from tests.acceptance.test_tickets import made, tickets, wanted
from tests.acceptance.test_two_way import BACK, names, rename, writes


def trigger(hub: GoogleHub, serve: Serve, integration: str, stream: str) -> None:
    """A run of one stream by its source function, until the sink function has settled all of it."""
    answer = serve.post(f"/functions/{integration}/source", {"stream": stream})
    assert answer.status_code == 200, answer.text
    run = answer.json()["streams"][stream]["run"]
    waiting = hub.stored.batches.unsettled
    wait_until(lambda: next(waiting(integration, stream), None) is None, f"{run} settled")


def test_tickets_wait_for_their_customers_and_changes_travel_once(make_google: MakeGoogleHub) -> None:
    hub = make_google(20, tasks=40, clients=10, faults="milvus.drop=5%")
    hub.overlay({**tickets(max_age="none"), "sink": {"max_attempts": 2, "batch_size": 20}}, **{BACK: {}})
    with Serve(hub) as serve:
        trigger(hub, serve, NAME, "tasks")
        failures = hub.stored.failures
        early = list(failures.find(FailureQuery(NAME, "tasks")))
        assert {failure.number for failure in early} == {27}
        assert len(early) == len(wanted(hub))
        trigger(hub, serve, NAME, "customers")
        assert hub("replay", NAME, "--reason", "their customers are there", "--yes").code == 0
        assert made(hub) == Counter(wanted(hub).items())
        hub.faults("milvus", "")

        trigger(hub, serve, BACK, "customers")
        trigger(hub, serve, NAME, "customers")
        assert names(hub)[0] == names(hub)[1]
        before = writes(hub)
        documents = sorted(names(hub)[0])
        for document in documents[:4]:
            rename(hub, "ploomes", document, f"De Ploomes {document[:3]}")
        for document in documents[3:7]:
            rename(hub, "milvus", document, f"De Milvus {document[:3]}")
        for _ in range(2):
            trigger(hub, serve, NAME, "customers")
            trigger(hub, serve, BACK, "customers")
        assert names(hub)[0] == names(hub)[1]
        assert writes(hub) - before == 7
        assert serve.end() == 0, serve.said
    for name in (NAME, BACK):
        audit = hub("audit", name)
        assert (audit.code, audit.document["unaccounted"]) == (0, []), audit
