"""Entry points of data_syncs: Cloud Scheduler calls `source`, the push subscription `sink`, everybody else `api`."""

from pathlib import Path

from infra.entrypoints import data_sync_function, sink_function, source_function

FOLDER = Path(__file__).resolve().parent

source = source_function(FOLDER)
sink = sink_function(FOLDER)
api = data_sync_function(FOLDER)
