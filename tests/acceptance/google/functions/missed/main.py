"""The functions of ploomes_to_milvus where whoever died is missed after four seconds, not after sixty."""

from datetime import timedelta
from pathlib import Path

from infra.entrypoints import operation_function, sink_function, source_function
from infra.gcp import batches, leases

FUNCTIONS = Path(__file__).resolve().parents[5] / "functions"
FOLDER = FUNCTIONS / "ploomes_to_milvus"

leases.TIME_TO_LIVE = batches.TIME_TO_LIVE = timedelta(seconds=4)  # type: ignore[misc]
source = source_function(FOLDER)
sink = sink_function(FOLDER)
dead_letter = operation_function(FUNCTIONS, "dead_letter")
