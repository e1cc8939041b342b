"""Snapshots, as far as they are not about where things are stored: what belongs together, and how it is written.

A point of view (POV) is what an integration (its location) knew of a stream (its category) from a span of time (its
period). Each has a file of its own in a snapshot, one row per thing (`rows.py`); what the files are, and what an import
must know of them, stands in `SnapshotParams.json` (`params.py`).
"""

from __future__ import annotations

from typing import Literal

SnapshotType = Literal["ALL", "ALL_INCREMENTAL", "INCREMENTAL", "SETUP"]
"""ALL writes every POV anew. ALL_INCREMENTAL writes those that changed, and carries all. INCREMENTAL carries what it
writes, and what was removed since the snapshot that it is based on. SETUP carries the set-up alone."""
