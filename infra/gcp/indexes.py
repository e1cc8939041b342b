"""What Firestore has to index, as Terraform makes it.

Every field is indexed unless told otherwise, and an index on something that only grows holds a collection down to 500
writes a second; so single fields are indexed only where they are asked for, and each question with an order has an
index of its own. Those that end in an instant are per run, stream, integration or shard, of which none commits 500
batches or objects a second.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Order = Literal["ASCENDING", "DESCENDING", "CONTAINS"]


class Index(NamedTuple):
    """A composite index: fields in their order."""

    collection: str
    fields: tuple[tuple[str, Order], ...]


FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "alerts": ("raised",),
    "awaited": ("waiting",),
    "batches": ("run", "of", "waiting", "lane"),
    "cells": (),
    "failures": ("integration", "of", "key", "outcome", "number", "http_status", "open"),
    "kinds": (),
    "launches": ("of", "waiting"),
    "leases": (),
    "objects": ("found_by", "owner"),
    "replacements": (),
    "runs": ("of", "open", "kind", "names"),
    "schedules": (),
    "streams": (),
    "tokens": ("of",),
}
"""The fields that keep their single-field index. `found_by`, `names` and, of batches, `waiting` are lists, so they need
the one for members."""

EXEMPT: Final[dict[str, tuple[str, ...]]] = {
    "alerts": ("name", "at", "text", "mark"),
    "awaited": (
        "id", "integration", "stream", "batch", "records", "sent_at", "look_at", "looks", "state", "refused", "repeats",
        "warnings", "ended_at", "refusing", "expires_at",
    ),
    "batches": (
        "id", "integration", "stream", "kind", "state", "outcomes", "amended", "idents", "rules", "blob", "offset",
        "length", "committed_at", "published_at", "touched_at", "attempt", "attempts", "until", "mark",
    ),
    "cells": ("cell",),
    "failures": ("doc", "data", "blob", "first_at", "last_at", "closed_as", "closed_by", "closed_at", "expires_at"),
    "kinds": ("kind", "names"),
    "launches": ("number", "doc", "mark"),
    "leases": ("name", "token", "holder", "until", "mark"),
    "objects": ("id", "fields", "shard", "changed_at"),
    "replacements": ("intent", "replaced", "token", "mark"),
    "runs": ("doc", "fetched", "started_at"),
    "schedules": ("integration", "paused"),
    "streams": ("of", "state"),
    "tokens": ("id", "salt", "digest", "made_at", "revoked_at", "mark"),
}  # fmt: skip
"""The fields whose single-field index is switched off: every other one that is written."""

COMPOSITE: Final[tuple[Index, ...]] = (
    Index("awaited", (("integration", "ASCENDING"), ("ended_at", "ASCENDING"))),
    Index("awaited", (("refusing", "ASCENDING"), ("ended_at", "ASCENDING"))),
    Index("awaited", (("waiting", "ASCENDING"), ("look_at", "ASCENDING"))),
    Index("awaited", (("waiting", "ASCENDING"), ("records", "ASCENDING"))),
    Index("batches", (("of", "ASCENDING"), ("committed_at", "ASCENDING"))),
    Index("batches", (("run", "ASCENDING"), ("committed_at", "ASCENDING"))),
    Index("batches", (("waiting", "CONTAINS"), ("committed_at", "ASCENDING"))),
    Index("failures", (("integration", "ASCENDING"), ("closed_at", "ASCENDING"))),
    Index("launches", (("of", "ASCENDING"), ("number", "DESCENDING"))),
    Index("objects", (("shard", "ASCENDING"), ("changed_at", "ASCENDING"))),
    Index("runs", (("of", "ASCENDING"), ("started_at", "ASCENDING"))),
    Index("runs", (("names", "CONTAINS"), ("started_at", "DESCENDING"))),
    Index("runs", (("of", "ASCENDING"), ("kind", "ASCENDING"), ("fetched", "ASCENDING"))),
)

TIME_TO_LIVE: Final[dict[str, str]] = {"awaited": "expires_at", "failures": "expires_at"}
"""The field of each collection after whose time Firestore removes a document: requests that have ended and closed
failures only."""
