"""What a POV comes to, whatever the order in which its rows are met: its newest process, and its fingerprint."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

_encode = msgspec.json.Encoder(order="deterministic").encode
_MODULUS = 1 << 128


class Summary:
    """Of one POV, while its rows are met. The fingerprint is a sum, so that no order counts and nothing is kept."""

    def __init__(self) -> None:
        self.process_id = 0
        self._sum = 0

    def add(self, process_id: int, about: Any) -> None:
        """A row with the process that left it, or changed it last; `about` tells it from what it was before."""
        self.process_id = max(self.process_id, process_id)
        digest = hashlib.blake2b(_encode(about), digest_size=16).digest()
        self._sum = (self._sum + int.from_bytes(digest, "big")) % _MODULUS

    @property
    def fingerprint(self) -> str:
        return f"{self._sum:032x}"
