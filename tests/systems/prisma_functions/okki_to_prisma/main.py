"""Entry points of okki_to_prisma: Cloud Scheduler calls `source`, the push subscription calls `sink`."""

from pathlib import Path

from infra.entrypoints import sink_function, source_function

FOLDER = Path(__file__).resolve().parent

source = source_function(FOLDER)
sink = sink_function(FOLDER)
