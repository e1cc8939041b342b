"""The metadata of the two ends of a stream: read where it is needed, since its templates are slow to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from shared.declared.scheme import Scheme


class Metadata(msgspec.Struct, frozen=True):
    """The schemes of the two ends, each where it is given."""

    source: Scheme | None = None
    target: Scheme | None = None
