"""Snapshots, as far as they are not about where things are stored: what belongs together, and how it is written."""

from __future__ import annotations

from typing import Literal

SnapshotType = Literal["ALL", "ALL_INCREMENTAL", "INCREMENTAL", "SETUP"]
