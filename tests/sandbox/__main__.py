"""`python -m tests.sandbox`: the fake systems until interrupted; prints the environment to export."""

import shlex
import signal
from collections.abc import Mapping
from threading import Event

import click

from tests.sandbox.faults import SWITCHES
from tests.sandbox.ploomes import PER_MINUTE
from tests.sandbox.sandbox import Sandbox

__all__ = ["Sandbox", "main", "run"]


def run(
    seed: int = 1,
    customers: int = 100,
    faults: str = "",
    *,
    invalid: int = 0,
    duplicates: int = 0,
    undocumented: int = 0,
    ploomes_per_minute: int | None = PER_MINUTE,
    milvus_per_minute: int | None = None,
    ports: Mapping[str, int] | None = None,
) -> int:
    """Serves until SIGINT or SIGTERM and returns 0; `export NAME=value` lines on stdout say that it is ready.

    ValueError if the faults or the numbers make no sense, OSError if a port is taken. Main thread only.
    """
    ended = Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in signals}
    try:
        with Sandbox(
            seed=seed,
            customers=customers,
            faults=faults,
            invalid=invalid,
            duplicates=duplicates,
            undocumented=undocumented,
            ploomes_per_minute=ploomes_per_minute,
            milvus_per_minute=milvus_per_minute,
            ports=ports,
        ) as sandbox:
            for name, value in sandbox.environment.items():
                print(f"export {name}={shlex.quote(value)}", flush=True)
            ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


@click.command(epilog="Faults: " + "; ".join(f"{name} ({each.meaning})" for name, each in SWITCHES.items()))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same people and keys.")
@click.option("--customers", default=100, show_default=True, help="Contacts in Ploomes.")
@click.option("--invalid", default=0, help="So many of them with an invalid document.")
@click.option("--duplicates", default=0, help="So many of them with an earlier contact's document.")
@click.option("--undocumented", default=0, help="So many of them without a document.")
@click.option("--faults", default="", help="Such as 429=2%,milvus.drop=5%,retry_after=1.")
@click.option("--ploomes-per-minute", default=PER_MINUTE, show_default=True, help="Rate limit; 0 for none.")
@click.option("--ploomes-port", default=0, help="A free one if not given.")
@click.option("--milvus-port", default=0, help="A free one if not given.")
def main(
    seed: int,
    customers: int,
    invalid: int,
    duplicates: int,
    undocumented: int,
    faults: str,
    ploomes_per_minute: int,
    ploomes_port: int,
    milvus_port: int,
) -> None:
    """Runs fake CRMs on 127.0.0.1 until interrupted."""
    try:
        run(
            seed,
            customers,
            faults,
            invalid=invalid,
            duplicates=duplicates,
            undocumented=undocumented,
            ploomes_per_minute=ploomes_per_minute or None,
            ports={"ploomes": ploomes_port, "milvus": milvus_port},
        )
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
