"""The platform functions: dead letters, sweeper, replay and clean-up, for all integrations of the hub."""

from pathlib import Path

from infra.entrypoints import operation_function

FUNCTIONS = Path(__file__).resolve().parent.parent

dead_letter = operation_function(FUNCTIONS, "dead_letter")
sweep = operation_function(FUNCTIONS, "sweep")
replay = operation_function(FUNCTIONS, "replay")
cleanup = operation_function(FUNCTIONS, "cleanup")
tcrm_monitoring_cleanup = operation_function(FUNCTIONS, "tcrm_monitoring_cleanup")
