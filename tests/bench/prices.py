"""What Google Cloud asks for, in US dollars, before free tiers. The only place that holds prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

AS_OF: Final = "2026-11"
REGION: Final = "us-central1"
TIB: Final = 2**40


class Price(msgspec.Struct, frozen=True):
    """`usd` for so many `per` of the unit, where it was read and on which day."""

    usd: float
    per: int
    unit: str
    source: str
    read_on: str

    def of(self, amount: float) -> float:
        return amount * self.usd / self.per


_FIRESTORE: Final = "cloud.google.com/firestore/pricing (Standard edition)"
_STORAGE: Final = "cloud.google.com/storage/pricing-examples (Standard, class A for a write, which is the dearer one)"
_RUN: Final = "cloud.google.com/run/pricing (tier 1, billed by request)"
PRICES: Final[Mapping[str, Price]] = {
    "reads": Price(0.03, 100_000, "Firestore reads", _FIRESTORE, "2026-10-08"),
    "writes": Price(0.09, 100_000, "Firestore writes", _FIRESTORE, "2026-10-08"),
    "deletes": Price(0.01, 100_000, "Firestore deletes", _FIRESTORE, "2026-10-08"),
    "carried_bytes": Price(40.0, TIB, "bytes published and delivered", "cloud.google.com/pubsub/pricing", "2026-09-20"),
    "blob_operations": Price(0.005, 1_000, "Cloud Storage operations", _STORAGE, "2026-11-21"),
    "invocations": Price(0.40, 1_000_000, "function invocations", _RUN, "2026-11-21"),
}
FUNCTION_SECOND: Final = Price(0.000024 + 0.5 * 0.0000025, 1, "seconds of a function", _RUN, "2026-11-21")
"""1 vCPU and 0.5 GiB. How long a function runs is up to the system at its other end."""
_SECRETS: Final = "cloud.google.com/secret-manager/pricing"
SECRET_READ: Final = Price(0.03, 10_000, "reads of secrets", _SECRETS, "2026-11-22")
"""Each instance reads its function's secrets when it starts."""
MONTHLY: Final[Mapping[str, Price]] = {
    "jobs": Price(0.10, 1, "Cloud Scheduler jobs", "cloud.google.com/scheduler/pricing", "2026-11-22"),
    "secrets": Price(0.06, 1, "versions of secrets", _SECRETS, "2026-11-22"),
}
"""What there is, for each month."""
