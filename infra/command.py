"""What every command has: a session with its signals, `--json`, an example, errors with their cures, exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from copy import copy
from functools import update_wrapper
from typing import Any

import click
import msgspec

from infra.mistakes import ConfigMistakes
from infra.wiring import Hub
from shared.errors import ConfigError, GuardTripped, Leased, WaybillError

EXIT = {"usage": 2, "failures": 3, "failed": 4, "unknown": 5, "leased": 6, "stopped": 7, "unbalanced": 8, "guard": 9}


class Session:
    """One call of the command: the hub, and which signal asked it to stop."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.signal = 0
        self.json = False

    def listen(self) -> None:
        """The first signal lets the batch in hand be finished; the second one ends the process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        self.hub.clock.stop()
        note("stopping after the batch in hand; once more to end at once")

    def finish(self, code: int) -> None:
        self.hub.close()
        sys.exit(128 + self.signal if self.signal else code)


def note(text: str) -> None:
    """A line for people, on stderr."""
    click.echo(text, err=True)


def emit(document: dict[str, Any]) -> None:
    """The one JSON document of a command, on stdout."""
    click.echo(msgspec.json.format(msgspec.json.encode({"schema_version": 1, **document})).decode())


def command(
    name: str, example: str, *, of: click.Group | None = None, **settings: Any
) -> Callable[[Callable[..., int | None]], click.Command]:
    """A command with `--json`, an example in its help, and errors that say what, why and the cure."""

    def wrap(work: Callable[..., int | None]) -> click.Command:
        def run(**arguments: Any) -> None:
            session = Session()
            session.json = arguments.pop("as_json")
            try:
                code = work(session, **arguments) or 0
            except WaybillError as error:
                code = report_error(session, error)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                code = 0
            except KeyboardInterrupt:
                session.signal = session.signal or signal.SIGINT
                code = 130
            session.finish(code)

        update_wrapper(run, work)
        run.__click_params__ = [*getattr(work, "__click_params__", [])]  # type: ignore[attr-defined]
        decorated = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(run)
        epilog = f"Example: ./waybill {example}"
        return (of or main).command(name, epilog=epilog, **settings)(decorated)

    return wrap


def also_called(made: click.Command, name: str) -> None:
    """Gives a command a second name."""
    other = copy(made)
    other.name, other.epilog = name, (made.epilog or "").replace(f" {made.name} ", f" {name} ")
    main.add_command(other)


def report_error(session: Session, error: WaybillError) -> int:
    if session.json:
        document: dict[str, Any] = {"class": type(error).__name__, "message": str(error), "cure": error.cure}
        if isinstance(error, ConfigMistakes):
            document["mistakes"] = msgspec.to_builtins(error.mistakes)
        emit({"error": document})
    else:
        note(f"error: {error}")
        if error.cure:
            note(f"  what to do: {error.cure}")
    if isinstance(error, ConfigError):
        return EXIT["usage"]
    if isinstance(error, Leased):
        return EXIT["leased"]
    return EXIT["guard"] if isinstance(error, GuardTripped) else EXIT["failed"]


class Group(click.Group):
    """Names the nearest command for a mistyped one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), 1) if args else []
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Moves CRM records between systems, and proves what became of every one.

    Start with `make demo`, or: ./waybill check, ./waybill plan NAME, ./waybill run NAME, ./waybill status.
    """


def confirmed(question: str, yes: bool) -> bool:
    """Asks on a terminal; without one, `--yes` has to be there."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        note("error: this has to be confirmed\n  what to do: add --yes")
        return False
    return click.confirm(question, err=True)
