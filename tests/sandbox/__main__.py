"""`python -m tests.sandbox`: the fake systems until interrupted; prints the environment to export."""

import shlex
import signal
from collections.abc import Callable
from threading import Event
from typing import Any

import click

from tests.sandbox.faults import SWITCHES
from tests.sandbox.ploomes import PER_MINUTE
from tests.sandbox.sandbox import Sandbox

__all__ = ["Sandbox", "main", "run"]


NUMBERS = {
    "customers": (100, "Contacts in Ploomes."),
    "invalid": (0, "So many of them with an invalid document."),
    "duplicates": (0, "So many of them with an earlier contact's document."),
    "undocumented": (0, "So many of them without a document."),
    "tasks": (0, "Tasks in Ploomes."),
    "interactions": (0, "Interaction records in Ploomes."),
    "clients": (0, "Clients that Milvus has of its own."),
    "users": (0, "Users in OKKI."),
    "departments": (0, "Departments in OKKI beside the root."),
    "same_nicknames": (0, "So many of the users with another's nickname."),
    "conversions": (0, "Rows of the table sandbox.crm.conversions in BigQuery."),
}
"""How many of what there are: the usual number, and what it is."""


def run(**settings: Any) -> int:
    """Serves until SIGINT or SIGTERM and returns 0; `export NAME=value` lines on stdout say that it is ready.

    `settings` are those of `Sandbox`. ValueError if they make no sense, OSError if a port is taken. Main thread only.
    """
    ended = Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in signals}
    try:
        with Sandbox(**settings) as sandbox:
            for name, value in sandbox.environment.items():
                print(f"export {name}={shlex.quote(value)}", flush=True)
            ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def numbers(command: Callable[..., None]) -> Callable[..., None]:
    for name, (usual, what) in reversed(NUMBERS.items()):
        option = click.option(f"--{name.replace('_', '-')}", default=usual, show_default=True, help=what)
        command = option(command)
    return command


@click.command(epilog="Faults: " + "; ".join(f"{name} ({each.meaning})" for name, each in SWITCHES.items()))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same people and keys.")
@numbers
@click.option("--faults", default="", help="Such as 429=2%,milvus.drop=5%,retry_after=1.")
@click.option("--ploomes-per-minute", default=PER_MINUTE, show_default=True, help="Rate limit; 0 for none.")
@click.option("--ploomes-port", default=0, help="A free one if not given.")
@click.option("--milvus-port", default=0, help="A free one if not given.")
def main(ploomes_per_minute: int, ploomes_port: int, milvus_port: int, **settings: Any) -> None:
    """Runs the fake systems on 127.0.0.1 until interrupted."""
    ports = {"ploomes": ploomes_port, "milvus": milvus_port}
    try:
        run(ploomes_per_minute=ploomes_per_minute or None, ports=ports, **settings)
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
