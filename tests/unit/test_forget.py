"""A person is forgotten in records of other things, in both homes and whatever write was the last before a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from functions.ploomes_to_milvus.mapping import customer_of
from infra.gcp import erase as google
from infra.gcp.home import GoogleHome
from infra.local import erase as embedded
from infra.local.home import EmbeddedHome
from shared.accounting import audit_stream
from shared.books import Batch, Failure, FailureQuery, Run
from shared.deliver import may_have_arrived
from shared.errors import CUSTOMER_MISSING, IN_DOUBT, Leased, StoreUnavailable
from shared.forget import FORGOTTEN, Telling
from shared.outcome import Outcome
from shared.ports import Home
from shared.record import Envelope, Record
from tests.contract import make
from tests.contract.world import ManualClock
from tests.unit.gcp_homes import Hub

PERSON, NAME, NUMBER = "52998224725", "Zulmira Esquecida", "7"
TASKS = "tasks"
OF_TASKS = (make.SHOP, TASKS)
STREAMS = [(make.SHOP, make.CUSTOMERS), OF_TASKS]
TELLING = Telling(make.SHOP, TASKS, make.CUSTOMERS, "crm", lambda data: str(data.get("of", "")))
LARGE = "x" * 800_000
NO_CUSTOMER = {"objects": 0, "uploaded rows": 0, "unreadable uploads": 0, "exported rows": 0}


class Place:
    """One of the two homes, and what it holds as one text."""

    def __init__(self, folder: Path, hub: Hub | None) -> None:
        self._folder, self._hub = folder, hub
        self._clock = ManualClock()
        self._homes: list[EmbeddedHome] = []
        self.open()

    def open(self) -> None:
        """As another process finds it."""
        self.close()
        if self._hub is None:
            self._homes.append(EmbeddedHome(self._folder, self._clock))
        self.home: EmbeddedHome | GoogleHome = self._hub.home() if self._hub else self._homes[0]
        self.ports: Home = self.home.ports

    def close(self) -> None:
        while self._homes:
            self._homes.pop().close()

    def forget(self, key: str = PERSON) -> dict[str, Any]:
        if isinstance(self.home, EmbeddedHome):
            return embedded.forget(self.home, key, [TELLING])
        return google.forget(self.home, STREAMS, key, [TELLING])

    def counted(self, **counts: int) -> dict[str, int]:
        """Embedded, the monitoring table is one of the places; in BigQuery nobody can be found."""
        return counts | NO_CUSTOMER | ({"monitoring rows": 0} if isinstance(self.home, EmbeddedHome) else {})

    def traces(self) -> dict[str, int]:
        if isinstance(self.home, EmbeddedHome):
            return embedded.find_traces(self.home, PERSON, [TELLING])
        return google.find_traces(self.home, STREAMS, PERSON, [TELLING])

    def everything(self) -> str:
        if isinstance(self.home, EmbeddedHome):
            files = [file for file in self._folder.rglob("*") if file.is_file()]
            return "".join(file.read_bytes().decode("latin1") for file in files)
        documents = [self.home.store.first(google.Query((name,)), 100) for name in ("failures", "batches")]
        blobs = [self.ports.blobs.read(name).decode() for name, _ in self.ports.blobs.names("")]
        return repr([documents, blobs])

    def dies_after(self, writes: int) -> None:
        """So many more writes come through, of documents or of blobs."""
        left = [writes]

        def dying(work: Callable[..., Any]) -> Callable[..., Any]:
            def write(*values: Any) -> Any:
                if not left[0]:
                    raise StoreUnavailable("gone")
                left[0] -= 1
                return work(*values)

            return write

        blobs: Any = self.ports.blobs
        written: list[tuple[Any, str]] = [(blobs, "write"), (blobs, "delete")]
        if isinstance(self.home, EmbeddedHome):
            written += [(self.home.state, "write"), (self.home.transport, "write")]
        else:
            written.append((self.home.store, "commit"))
        for of, name in written:
            setattr(of, name, dying(getattr(of, name)))


@pytest.fixture(params=["embedded", "google"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    hub = Hub(request.getfixturevalue("emulators"), tmp_path) if request.param == "google" else None
    place = Place(tmp_path / "home", hub)
    yield place
    place.close()
    if hub is not None:
        hub.close()


def remember(ports: Home) -> tuple[Batch, list[Failure]]:
    """Tasks of the person, of the same one before the document was known, and of somebody else: archived in two
    batches of a blob, in the ledger, and failed for different reasons."""
    customers = make.run(fetched=0)
    make.commit_cells(ports, [make.cell(PERSON, origin=NUMBER)], customers)
    run = make.run(stream=TASKS, fetched=7, groups=1)
    whose = {"t1": PERSON, "t3": "somebody", "t2": f"crm:{NUMBER}"}
    data = [envelope(run, 0, {key: whose[key] for key in ("t1", "t3")}), envelope(run, 1, {"t2": whose["t2"]})]
    blob = archive(run, "1-000000")
    ports.blobs.write(blob, b"before" + b"".join(data) + b"after")
    ends = len(data[0]) + 6
    batches = [
        make.batch(0, run, "..", keys=["t1", "t3"], blob=blob, offset=6, length=len(data[0])),
        make.batch(1, run, ".", keys=["t2"], blob=blob, offset=ends, length=len(data[1])),
    ]
    ended = make.settled_batch(2, run, "xkkx", keys=["t4", "t5", "t6", "t7"], versions=["v1"] * 4)
    reason = f"the customer {PERSON} is not there"
    failures = [
        make.failure(ended, 0, outcome=Outcome.EXHAUSTED, number=CUSTOMER_MISSING, reason=reason, data=task(PERSON)),
        make.failure(ended, 1, outcome=Outcome.UNKNOWN, number=IN_DOUBT, data=task(PERSON, LARGE)),
        make.failure(ended, 2, outcome=Outcome.UNKNOWN, number=IN_DOUBT, reason=reason, data=task(PERSON)),
        make.failure(ended, 3, outcome=Outcome.EXHAUSTED, number=CUSTOMER_MISSING, data=task("somebody")),
    ]
    make.commit(ports, run, batches=[*batches, ended], failures=failures)
    make.commit_cells(ports, [make.cell(f.key, "", failed="v1", hash="", target_id="") for f in failures], run)
    make.commit(ports, run, closures=[make.closure(failures[2], Outcome.SUPERSEDED)])
    for batch in batches:
        ports.batches.begin(batch.id, "one")
        cells = [make.cell(key, "v1", origin=key) for key in batch.keys]
        ports.batches.settle(make.settlement(batch, "one", "d" * len(cells), cells=cells))
    return batches[0], failures


def envelope(run: Run, number: int, whose: dict[str, str]) -> bytes:
    records = [Record(key, "v1", "upsert", key, "p", task(of)) for key, of in whose.items()]
    return Envelope(*OF_TASKS, run.id, f"{run.id}.{number}", 0, records).to_bytes()


def archive(run: Run, name: str) -> str:
    return f"archive/{make.SHOP}/{TASKS}/{run.id}/{name}"


def task(of: str, text: str = "") -> dict[str, Any]:
    return {"of": of, "contact": NAME if of in (PERSON, f"crm:{NUMBER}") else "Somebody", "text": text}


def balanced(ports: Home) -> bool:
    audit = audit_stream(lambda: ports.books.entries(*OF_TASKS), lambda: ports.ledger.versions(*OF_TASKS), 7)
    return audit.balanced and audit.counts.fetched == 7


def in_ledger(ports: Home) -> list[str]:
    return sorted(repr(cell) for cell in ports.ledger.scan(*OF_TASKS))


def test_what_tells_of_a_person_goes_and_what_is_known_of_the_record_stays(place: Place) -> None:
    batch, failures = remember(place.ports)
    known = in_ledger(place.ports)
    assert place.traces() == place.counted(cells=1, failures=3, batches=2)

    receipt = place.forget()

    assert receipt["erased"] == place.counted(cells=1, failures=3, batches=2, **{"archived records": 2})
    assert NAME not in place.everything() and PERSON not in place.everything()
    assert in_ledger(place.ports) == known
    assert balanced(place.ports)
    stored = place.ports.batches.get(batch.id)
    assert stored is not None and stored.keys == batch.keys
    left = Envelope.from_bytes(place.ports.blobs.read(batch.blob, batch.offset, batch.length))
    assert [record.key for record in left.records] == ["t3"]
    assert place.ports.blobs.read(batch.blob)[-5:] == b"after"
    (last,) = [f for f in place.ports.failures.find(FailureQuery(*OF_TASKS, include_closed=True)) if f.key == "t7"]
    assert last == failures[3]
    assert place.traces() == place.counted(cells=0, failures=0, batches=0)
    assert not any(place.forget()["erased"].values())


def test_the_doubt_stays_whether_a_record_arrived(place: Place) -> None:
    """Else the next version would be sent without asking."""
    remember(place.ports)

    place.forget()

    kept = [f for f in place.ports.failures.find(FailureQuery(*OF_TASKS, include_closed=True)) if f.key != "t7"]
    (doubt,) = kept
    assert (doubt.key, doubt.data, doubt.reason, doubt.closed_at) == ("t5", {}, FORGOTTEN, None)
    assert may_have_arrived(doubt)


@pytest.mark.parametrize("writes", range(12))
def test_after_a_crash_in_the_middle_the_rest_is_forgotten(place: Place, writes: int) -> None:
    remember(place.ports)
    known = in_ledger(place.ports)
    place.dies_after(writes)
    try:
        place.forget()
    except StoreUnavailable:
        assert writes < 11
    place.open()
    assert balanced(place.ports)

    place.forget()

    assert NAME not in place.everything() and PERSON not in place.everything()
    assert balanced(place.ports)
    assert in_ledger(place.ports) == known


def test_nobody_is_forgotten_while_a_record_that_tells_of_them_is_on_its_way(place: Place) -> None:
    run = make.run(stream=TASKS)
    data, blob = envelope(run, 0, {"t1": PERSON}), archive(run, "1-000000")
    place.ports.blobs.write(blob, data)
    batch = make.batch(0, run, ".", keys=["t1"], blob=blob, length=len(data))
    make.commit(place.ports, run, batches=[batch])

    with pytest.raises(Leased):
        place.forget()
    place.forget("somebody")

    assert place.ports.blobs.read(blob) == data


def test_the_key_of_a_record_that_tells_of_others_names_its_content_alone(place: Place) -> None:
    """Its place in the books is what keeps it from being sent twice."""
    remember(place.ports)
    known = in_ledger(place.ports)

    receipt = place.forget("t3")

    assert receipt["erased"] == place.counted(cells=0, failures=0, batches=1, **{"archived records": 1})
    assert in_ledger(place.ports) == known
    assert balanced(place.ports)


def test_an_archive_that_is_gone_is_no_hindrance(place: Place) -> None:
    batch, _ = remember(place.ports)
    place.ports.blobs.delete(batch.blob)
    assert place.forget()["erased"]["archived records"] == 0


def test_what_a_crashed_run_archived_and_never_committed_goes_too(place: Place) -> None:
    """Unless a run may still commit it."""
    remember(place.ports)
    run = make.run(stream=TASKS)
    for name in ("9-000000", "9-000001"):
        place.ports.blobs.write(archive(run, name), envelope(run, 0, {"t1": "anybody"}))

    place.forget()

    names = [name for name, _ in place.ports.blobs.names("archive/")]
    assert sorted(names) == [archive(run, "1-000000"), archive(run, "9-000001")]


def test_a_write_of_the_archive_that_was_cut_off_leaves_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "home", None)
    remember(place.ports)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("infra.local.blobs.os.replace", killed)
        place.forget()
    place.open()

    place.forget()

    assert NAME not in place.everything() and PERSON not in place.everything()
    place.close()


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_two_streams_may_be_told_of_in_one(place: Place) -> None:
    batch, _ = remember(place.ports)
    other = msgspec.structs.replace(TELLING, of="suppliers", key_in=lambda data: str(data.get("contact", "")))
    if isinstance(place.home, EmbeddedHome):
        embedded.forget(place.home, NAME, [TELLING, other])
    else:
        google.forget(place.home, STREAMS, NAME, [TELLING, other])
    assert NAME not in place.ports.blobs.read(batch.blob).decode()


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"ContactId": 7, "Contact": {"Id": 7, "Register": "529.982.247-25"}}, PERSON),
        ({"ContactId": 7, "Contact": {"Id": 7, "CNPJ": "", "CPF": PERSON}}, PERSON),
        ({"ContactId": 7, "Contact": {"Id": 7, "Register": "529.982.247-20"}}, "ploomes:7"),
        ({"ContactId": 7, "Contact": {"Id": 7, "Register": 52998224725}}, "ploomes:7"),
        ({"ContactId": 7, "Contact": None}, "ploomes:7"),
        ({"ContactId": 7, "Contact": [{"Id": 7}]}, "ploomes:7"),
        ({"Contact": {}}, ""),
        ({}, ""),
    ],
)
def test_a_task_tells_of_its_contact_by_the_key_that_customers_have(data: dict[str, Any], key: str) -> None:
    assert customer_of(data) == key
