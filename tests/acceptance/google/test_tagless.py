"""Tagless CRM on Google Cloud's parts: what a shop sold goes to two ad platforms, from a bucket and from BigQuery."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from infra.gcp.clients import connect_storage
from infra.gcp.names import bucket_name
from tests.acceptance.google.cloud import OPERATIONS, Deployed, GoogleHub, routed
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.hub import ROOT, counts, wait_until
from tests.emulators import Emulators

ADS = "tagless_crm"
MAIN = ROOT / "functions" / ADS / "main.py"
EVENTS, GA4 = "data_manager_events", "ga4"
SALES = 3_000
CLIENTS = 60
ACCOUNT = {"account_type": "GOOGLE_ADS", "account_id": "1234567890"}
REFUSED = ["T3", "T300", "T1234", "T2999"]
RAGGED = "T-ragged,one cell too few"
RESERVED = "session_start"
"""An event that GA4 makes itself, and takes from nobody."""
SCHEMA = [
    {"name": "name", "type": "STRING"},
    {"name": "client_id", "type": "STRING"},
    {"name": "timestamp_micros", "type": "TIMESTAMP"},
    {
        "name": "params",
        "type": "RECORD",
        "fields": [{"name": "transaction_id", "type": "STRING"}, {"name": "value", "type": "FLOAT"}],
    },
]


class Sale(NamedTuple):
    number: int
    at: datetime

    @property
    def id(self) -> str:
        return f"T{self.number}"

    @property
    def value(self) -> float:
        return self.number % 90 + 0.9


def sales() -> list[Sale]:
    """Of the last hours, which both platforms still take."""
    now = datetime.now(UTC).replace(microsecond=0)
    return [Sale(number, now - timedelta(seconds=number)) for number in range(SALES)]


def as_csv(sold: list[Sale]) -> str:
    """As a CRM exports them, for Data Manager; the last line is broken."""
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(["transaction_id", "event_timestamp", "ad_identifiers.gclid", "email_address", "conversion_value"])
    table.writerows([s.id, s.at.isoformat(), f"click{s.number}", f"p{s.number}@example.com", s.value] for s in sold)
    return f"{file.getvalue()}{RAGGED}\r\n"


def as_rows(sold: list[Sale]) -> list[dict[str, Any]]:
    """The same in BigQuery, for GA4; and an event that it does not take."""
    events = [("purchase", sale) for sale in sold] + [(RESERVED, Sale(SALES, sold[0].at))]
    return [
        {
            "name": name,
            "client_id": f"{sale.number % CLIENTS}.17",
            "timestamp_micros": int(sale.at.timestamp()) * 1_000_000,
            "params": {"transaction_id": sale.id, "value": sale.value},
        }
        for name, sale in events
    ]


class Shop:
    """The integration deployed, and what its rows came to at the platforms."""

    def __init__(self, hub: GoogleHub, source: Deployed, operation: Deployed) -> None:
        self.hub = hub
        self.source = source
        self.operation = operation

    def run(self) -> None:
        """A trigger of all streams, until the sink has settled what they read."""
        answer = self.source.post()
        assert answer.status_code == 200, answer.text
        assert set(answer.json()["streams"]) == {EVENTS, GA4}
        self.settle()

    def replay(self, **what: str) -> list[dict[str, Any]]:
        answer = self.operation.post(body={"integration": ADS, "reason": "mended at the platform", **what})
        assert answer.status_code == 200, answer.text
        self.settle()
        runs: list[dict[str, Any]] = answer.json()["runs"]
        return runs

    def settle(self) -> None:
        waiting = self.hub.stored.batches.unsettled
        wait_until(lambda: next(waiting(ADS), None) is None, "settled streams")

    def audited(self) -> dict[str, dict[str, int]]:
        """The present outcomes, by stream, of books that balance and leave nothing out."""
        done = self.hub("audit", ADS)
        assert (done.code, done.document["balanced"], done.document["unaccounted"]) == (0, True, []), done
        return {name: counts(done.document["streams"][name]) for name in (EVENTS, GA4)}

    def failures(self) -> list[dict[str, Any]]:
        done = self.hub("failures", ADS)
        assert done.code == 0, done
        found: list[dict[str, Any]] = done.document["failures"]
        return found

    def arrived(self) -> dict[str, Counter[str]]:
        """How often each sale is counted at each platform."""
        return {
            EVENTS: Counter(event["transactionId"] for event in self.hub.rows("data_manager")),
            GA4: Counter(event["params"]["transaction_id"] for event in self.hub.rows("ga4")),
        }

    def sent(self) -> int:
        """Events that came to the platforms, whatever became of them."""
        ga4 = self.hub.stats("ga4")
        taken: int = self.hub.stats("data_manager")["received"] + ga4["events"] + sum(ga4["ignored"].values())
        return taken

    def last_runs(self) -> dict[str, dict[str, int]]:
        """What became of the rows of each stream's last run."""
        runs = self.hub("runs", ADS).document["runs"]
        return {run["stream"]: counts(run) for run in reversed(runs)}


@contextmanager
def shop(hub: GoogleHub, sold: list[Sale]) -> Iterator[Shop]:
    """The sales in a bucket and in a table, blobs in a bucket too, and the functions where Pub/Sub pushes to them."""
    with closing(connect_storage(hub.project)) as storage:
        storage.create_bucket(bucket_name(hub.project))
        exports = storage.create_bucket(f"{hub.project}-exports")
        exports.blob("sold/today.csv").upload_from_string(as_csv(sold).encode())
    hub.control("bigquery", "tables", **{f"{hub.project}.shop.sales": {"schema": SCHEMA, "rows": as_rows(sold)}})
    to_data_manager = {
        "enabled": True,
        "from": {"system": "gcs", "path": f"gs://{hub.project}-exports/sold/"},
        "key": ["transaction_id"],
        "settings": {"destinations": [{"operating_account": ACCOUNT, "product_destination_id": "77"}]},
    }
    to_ga4 = {
        "enabled": True,
        "from": {"system": "bigquery", "table": "shop.sales"},
        "key": ["params.transaction_id"],
    }
    hub.overlay({}, **{ADS: {"streams": {EVENTS: to_data_manager, GA4: to_ga4}}})
    with (
        Deployed(hub, "source", MAIN) as source,
        Deployed(hub, "sink", MAIN) as sink,
        Deployed(hub, "replay", OPERATIONS) as replay,
        routed(hub, {f"/functions/{ADS}/source": source, f"/functions/{ADS}/sink": sink}, integration=ADS),
    ):
        yield Shop(hub, source, replay)


def test_sales_go_once_from_a_bucket_and_from_bigquery_and_the_refused_go_when_they_are_mended(
    make_google: MakeGoogleHub, emulators: Emulators
) -> None:
    hub = make_google(1, faults="data_manager.429=30%,data_manager.retry_after=0")
    hub.environment["STORAGE_EMULATOR_HOST"] = emulators.environ["STORAGE_EMULATOR_HOST"]
    hub.control("data_manager", "refuse", values=REFUSED, code="INVALID_CONVERSION_VALUE")
    sold = sales()
    once, refused = Counter(sale.id for sale in sold), len(REFUSED)
    with shop(hub, sold) as made:
        made.run()

        assert made.arrived() == {EVENTS: once - Counter(REFUSED), GA4: once}
        books = {
            EVENTS: {"fetched": SALES + 1, "invalid": 1, "delivered": SALES - refused, "rejected": refused},
            GA4: {"fetched": SALES + 1, "invalid": 1, "delivered": SALES},
        }
        assert made.audited() == made.last_runs() == books
        failures = made.failures()
        assert Counter(failure["outcome"] for failure in failures) == {"rejected": refused, "invalid": 2}
        assert {failure["key"] for failure in failures if failure["outcome"] == "rejected"} == set(REFUSED)
        (ragged,) = (f for f in failures if f["stream"] == EVENTS and f["outcome"] == "invalid")
        assert ragged["position"] == f"sold/today.csv:{SALES + 2}"
        sent = made.sent()

        made.run()

        assert made.sent() == sent
        assert made.last_runs() == {
            EVENTS: {"fetched": SALES + 1, "duplicate": refused + 1, "unchanged": SALES - refused},
            GA4: {"fetched": SALES + 1, "duplicate": 1, "unchanged": SALES},
        }
        hub.control("data_manager", "mend", values=REFUSED)

        replayed = made.replay(outcome="rejected")

        assert [(run["stream"], run["planned"]) for run in replayed] == [(EVENTS, refused)]
        assert made.sent() == sent + refused
        made.run()
        assert made.sent() == sent + refused
        assert made.arrived() == {EVENTS: once, GA4: once}
        assert hub.stats("data_manager")["repeated"] == hub.stats("ga4")["repeated"] == {}
        assert hub.stats("data_manager")["struck"].keys() == {"429"}
        assert made.audited() == {
            EVENTS: {"fetched": SALES + 1, "invalid": 1, "delivered": SALES},
            # Every run of a table without a cursor reads it anew, each row as of then.
            GA4: {"fetched": 3 * (SALES + 1), "duplicate": 2, "invalid": 1, "unchanged": 2 * SALES, "delivered": SALES},
        }
        assert [failure["outcome"] for failure in made.failures()] == ["invalid", "invalid"]
