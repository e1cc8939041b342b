"""Snapshots as Oracle's clients call them: exports and imports, and how their jobs stand."""

from pathlib import Path

from infra.snapshots.rest import snapshots_function

snapshots = snapshots_function(Path(__file__).resolve().parent.parent)
