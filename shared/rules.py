"""What an integration says of one stream, in pure functions and names: the interface of every `mapping.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from shared.ends import Row
from shared.outcome import Outcome
from shared.record import Operation

Filter = tuple[str, Callable[[dict[str, Any]], bool]]
"""A named rule; an object for which it is true does not travel."""


class Rules(msgspec.Struct, frozen=True):
    """What an integration says of one stream: pure functions and the names of the two ends."""

    read: str
    write: str
    identify: Callable[[dict[str, Any]], str]
    """The key of a source object. Raises RecordError if it has none that is usable."""
    to_target: Callable[[dict[str, Any]], dict[str, Any]]
    """What the target is sent. Raises RecordError."""
    filters: Sequence[Filter] = ()
    dated_filters: Callable[[datetime], Sequence[Filter]] | None = None
    """Rules about age, made from how far the stream had come when the run began: its cursor, or the run's own start as
    long as there is none. So a late run loses nothing to them. They have no say in a key that travelled before."""
    polled: bool = False
    """The source has no versions: the run's start stands for one, and a change is found by its content."""
    once: Outcome | None = None
    """What is at the target stays as it arrived, and this becomes of later versions: FILTERED (under the rule
    `ALREADY_THERE`) or UNCHANGED. None sends them."""
    appends: bool = False
    """What is sent adds to what is there, so a version that was sent is not sent again, whatever its content is now."""
    awaits: str = ""
    """The stream of this integration whose records have to be at the target before (`Passing.awaits`)."""
    mentioned_in: Mapping[str, Callable[[dict[str, Any]], str]] = {}
    """Streams of this integration whose records tell of this stream's objects under keys of their own, and how to find
    in such a record the key that its object has here: "" if it tells of none. Never raises. Whoever is forgotten is
    forgotten there too (`shared/forget.py`)."""
    settings: Mapping[str, Any] = {}
    """What the two connectors are told besides the keys of the stream's own (`Connection.options`)."""
    source: str = ""
    """The system that this stream is read from, where it is not the integration's."""
    target: str = ""
    """The system that this stream is written to, where it is not the integration's."""
    hold_back: float | None = None
    """Seconds by which the source shows changes late, where integration.yaml says nothing of it; None: the usual."""
    batch_size: int | None = None
    """Of how many records a batch has at most, where a target can neither be asked nor knows a repeat: a crash leaves
    the whole batch in doubt."""
    deletes: bool = False
    """Every row asks for its object to be removed from the target, which needs the row's content for that."""
    place: str = ""
    """Names what the stream writes to, where other streams of its integration may write to the same and one takes out
    what the other put in: a member that left by one and comes again by the other is sent again."""
    request: Callable[[datetime | None, datetime, bool], Mapping[str, Any]] | None = None
    """Parameters of the source's calls, by the last cursor (None before the first run), now, and whether it is a
    catch-up."""
    catch_up: tuple[str, float] | None = None
    """When the last seconds are read again, where integration.yaml says nothing of it: a cron expression, and how many
    seconds."""
    two_way: bool = False
    """The integration that goes the other way has a stream of this name, with the same keys, that brings the target's
    own changes back here (`shared/opposite.py`)."""

    launched: Literal["", "sent", "whole"] = ""
    """Each run is a launch (`shared/launches.py`). `sent`: it reads one file that somebody sent, and no schedule begins
    it without one. `whole`: it reads all that there is, into a file of its own, whatever was delivered before."""
    verifies: bool = False
    """Others write to the target as well: what the ledger calls unchanged is looked for there, and is sent where the
    target holds something else by now. A record that failed before is tried again at once."""

    @property
    def tries_again(self) -> bool:
        """Whether what failed before is tried again when it is read again, changed or not."""
        return self.verifies or self.launched == "whole"

    def operation_of(self, row: Row) -> Operation:
        return "delete" if self.deletes else row.operation
