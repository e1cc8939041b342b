"""A source function whose slices are used up at once: it hands over after each group of batches."""

from pathlib import Path

from infra import entrypoints

entrypoints.SLICE_SECONDS = -1.0
source = entrypoints.source_function(Path(__file__).resolve().parents[5] / "functions" / "ploomes_to_milvus")
