"""The hub's own store as a system (`shared/objects.py`): customers, campaign_data, priorities, unsubscriptions and
campaign_results, each read and written.

As a source: what changed in a window, oldest change first. With the option `all`, everything there is, whatever the
window: what is there all the time while it is read comes once. What was removed is told by neither. A row has the
object's id in the column `_identity`, which `shared.tabular.identify` reads, and as `id` where it has no such field.

As a sink: fields are put beside those that other writers put there, and a deletion takes the object out. An object is
known by the `id` of its customer in the content and by what its kind has besides (`shared/kinds.py`); a campaign's
result, and content without an `id`, by the key. With the option `match` the customer is the one whose field of that
name has the content's value, and an `id` in the content says nothing. What nobody matches, or more than one, is
refused; with `unmatched: create` a customer is made of what nobody matches, under the content's `id`, else under the
value.

A deletion by value cannot be repeated: once it is carried out, nobody has the value, and it would be refused. So
whatever may have been carried out is asked about first, and a value that nobody has then stands for a deletion that was
carried out, as it does for a customer who never was there.
"""

from __future__ import annotations

from infra.systems import Connection, one_of
from infra.systems.store.sink import Store
from infra.systems.store.source import Stored
from shared.kinds import KINDS

__all__ = ["Store", "Stored", "open_sink", "open_source"]


def open_source(connection: Connection, read: str) -> Stored:
    """Raises ConfigError for a kind that there is not, or a page without rows."""
    return Stored(connection, _kind(read))


def open_sink(connection: Connection, write: str) -> Store:
    """Raises ConfigError for a kind that there is not, or options that cannot be."""
    return Store(connection, _kind(write))


def _kind(name: str) -> str:
    return one_of({kind: kind for kind in KINDS}, name, "the store")
