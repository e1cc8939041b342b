"""What records cost on Google Cloud is known, and does not grow unnoticed."""

from tests.bench.counts import count
from tests.emulators import Emulators


def test_a_thousand_records_in_full_batches_stay_within_the_budget(emulators: Emulators) -> None:
    counted = count(emulators.environ)

    assert counted.over_budget() == {}, counted.per_thousand
    assert "MISSED" not in "\n".join(counted.lines())
