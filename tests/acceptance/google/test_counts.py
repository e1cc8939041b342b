"""What records cost on Google Cloud is known, and does not grow unnoticed."""

import pytest

from tests.bench.counts import WAYS, Way, count
from tests.emulators import Emulators


@pytest.mark.parametrize("way", WAYS, ids=[way.integration for way in WAYS])
def test_a_thousand_records_in_full_batches_stay_within_the_budget(emulators: Emulators, way: Way) -> None:
    counted = count(emulators.environ, way)

    assert counted.over_budget() == {}, counted.per_thousand
    assert "MISSED" not in "\n".join(counted.lines())
