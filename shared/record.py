"""What travels: a record, and the envelope that carries a batch of them in one message."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from shared.errors import MalformedEnvelope

Operation = Literal["upsert", "delete"]


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One version of one source object. An array on the wire, since a batch repeats its shape hundreds of times."""

    key: str
    """Identity: equal keys are the same object at the target."""
    version: str
    """The source's own ordering as text that sorts: see `version_at` and `version_number`."""
    operation: Operation
    origin: str
    """The source's id of the object, which tells two objects with one key apart."""
    position: str
    """Where in the source it stood: a page and row, a line, an id."""
    data: dict[str, Any]

    def to_bytes(self) -> bytes:
        """As it stands in an envelope. Raises UnicodeEncodeError for a text with half a character."""
        return _encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Of bytes that `to_bytes` made."""
        return _decode_record(data)


class Envelope(msgspec.Struct, frozen=True):
    """The payload of one message: the records of one batch, all of one lane."""

    integration: str
    stream: str
    run: str
    batch: str
    lane: int
    records: list[Record]
    location: str = ""
    """Where the records were read (`Source.location`). Messages of an earlier version do not say."""

    def to_bytes(self) -> bytes:
        return _encode(self)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Envelope:
        """Raises MalformedEnvelope for anything that `to_bytes` did not make."""
        try:
            return _decoder.decode(data)
        except msgspec.DecodeError as error:
            raise MalformedEnvelope(f"the message is not an envelope: {error}") from error


_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
_decoder = msgspec.json.Decoder(Envelope)
_decode_record = msgspec.json.Decoder(Record).decode


def join_envelope(
    integration: str, stream: str, run: str, batch: str, lane: int, records: Sequence[bytes], location: str = ""
) -> bytes:
    """The bytes of an envelope whose records are encoded already; the same as `Envelope.to_bytes` makes."""
    whole = _encode(Envelope(integration, stream, run, batch, lane, [], location))
    tail = b'],"location":' + _encode(location) + b"}"
    return whole.removesuffix(tail) + b",".join(records) + tail


def lane_of(key: str, lanes: int) -> int:
    """The lane of a key. Versions of a key share a lane, so that they never overtake each other."""
    return zlib.crc32(key.encode()) % lanes


def content_hash(content: Any) -> str:
    """A fingerprint of what is sent: equal content has equal fingerprints, in whatever order it was built."""
    return hashlib.blake2b(_encode_sorted(content), digest_size=12).hexdigest()


def version_at(instant: datetime, origin: int | str = "") -> str:
    """A version from an aware instant; the origin orders two objects of one identity that changed in the same tick."""
    return f"{instant.astimezone(UTC).isoformat(timespec='microseconds')[:26]}~{origin:0>12}"


def version_number(sequence: int) -> str:
    """A version from a non-negative sequence number."""
    return f"{sequence:020d}"


def failure_id(integration: str, stream: str, key: str, version: str) -> str:
    """The id of the failure of one record version: the same record fails under the same id, however often."""
    text = "\x1f".join((integration, stream, key, version))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
