"""What records, and a month without any, cost on Google Cloud is known, does not grow unnoticed, and is what
docs/operating.md says."""

import pytest

from tests.bench.counts import BUDGET, WAYS, Way, count
from tests.bench.rest import READ_AGAIN, month, read_again
from tests.documents import OPERATING, number, table
from tests.emulators import Emulators

TEXT = OPERATING.read_text(encoding="utf8")
ROWS = {
    "reads": "Firestore reads",
    "writes": "Firestore writes",
    "messages": "Pub/Sub messages",
    "carried_bytes": "bytes published and delivered",
    "blob_operations": "Cloud Storage operations",
    "invocations": "function invocations",
}
JOB = {
    "reads": "each reads",
    "writes": "writes",
    "blob_operations": "Cloud Storage operations",
    "secret_reads": "reads of secrets",
}


def said(column: str) -> dict[str, float]:
    rows = table(TEXT, "per 1,000 records")
    return {name: number(rows[row][column]) for name, row in ROWS.items()}


def close(amounts: dict[str, float]) -> object:
    """A date or a number may be a little longer, and a batch end elsewhere."""
    return pytest.approx(amounts, rel=0.02, abs=1)


@pytest.mark.parametrize("way", WAYS, ids=[way.integration for way in WAYS])
def test_a_thousand_records_in_full_batches_stay_within_the_budget(emulators: Emulators, way: Way) -> None:
    counted = count(emulators.environ, way)

    assert counted.over_budget() == {}, counted.per_thousand
    assert "MISSED" not in "\n".join(counted.lines())
    assert {name: counted.per_thousand[name] for name in ROWS} == close(said(f"`{way.integration}`"))
    rows = table(TEXT, "per 1,000 records")
    for name, row in {**ROWS, "sink_invocations": "of them of the sink"}.items():
        assert rows[row]["at most"] == (f"{BUDGET[name]:,}" if name in BUDGET else "")


@pytest.mark.parametrize("integration", READ_AGAIN)
def test_a_thousand_records_that_are_read_again_take_what_the_manual_says(
    emulators: Emulators, integration: str
) -> None:
    amounts = read_again(emulators.environ, integration)

    assert {name: amounts[name] for name in ROWS} == close(said(f"`{integration}` again"))


def test_a_month_in_which_nothing_happens_takes_what_the_manual_says(emulators: Emulators) -> None:
    counted = month(emulators.environ)

    jobs = table(TEXT, "a month in which nothing happens")
    assert {job.name: job.calls for job in counted.jobs} == {name: number(row["calls"]) for name, row in jobs.items()}
    for job in counted.jobs:
        row = jobs[job.name]
        assert {name: job.amounts[name] for name in JOB} == close({name: number(row[JOB[name]]) for name in JOB})
        assert {name for name, amount in job.amounts.items() if amount} <= {*JOB, "invocations"}
    assert counted.secrets == number(table(TEXT, "a month at rest")["versions of secrets"]["how many"])
