"""The rules of the bench's contacts: those of every contender."""

from __future__ import annotations

from typing import Final

from shared.rules import Rules
from tests.bench.contact import document_of, to_target

STREAMS: Final = {
    "single": Rules(read="Contacts", write="single", identify=document_of, to_target=to_target),
    "batch": Rules(read="Contacts", write="batch", identify=document_of, to_target=to_target),
}
