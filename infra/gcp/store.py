"""Firestore, in the few verbs that the ports need. The only file that speaks to it.

Every call has a deadline, counts what it costs, and raises errors of the project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from infra.gcp.calls import Lazy, Patience
from infra.gcp.counting import Meter
from infra.gcp.errors import Conflict, translated
from shared.errors import ConfigError

if TYPE_CHECKING:
    from google.cloud.firestore import Client, DocumentSnapshot
    from google.cloud.firestore import Query as FirestoreQuery

COMMIT_BYTES: Final = 3_500_000
"""Firestore takes 10 MiB and its emulator 4 MiB; the rest is for what the estimate of the size leaves out."""
WRITE_BYTES: Final = 200
"""What a write takes besides its fields: the path of the document and the frame."""
FIRST_PAGE: Final = 20
PAGE: Final = 200
READS_PER_COUNT: Final = 1000
"""A count costs a read per so many index entries."""

Path = tuple[str, ...]
Where = tuple[str, str, Any]
"""A field, an operator of Firestore's, a value."""


class Document(msgspec.Struct, frozen=True):
    """A document as it was read. `version` is what a later write may be based on."""

    id: str
    fields: Mapping[str, Any]
    version: Any
    read_at: datetime


class Write(msgspec.Struct, frozen=True):
    """One write of a commit. `set` replaces, `create` wants the document absent, `update` changes fields of one that is
    there; with a `version` it wants the document as it was then."""

    path: Path
    fields: dict[str, Any]
    how: Literal["set", "create", "update", "delete"] = "set"
    version: Any = None

    @property
    def size(self) -> int:
        """About how many bytes of a request it takes, rather too many than too few."""
        return WRITE_BYTES + _size(self.fields)


def _size(value: Any) -> int:
    match value:
        case str():
            return len(value.encode("utf-8", "surrogatepass")) + 8
        case bytes():
            return len(value) + 8
        case Mapping():
            return sum(2 * len(name) + 16 + _size(each) for name, each in value.items())
        case Sequence():
            return sum(8 + _size(each) for each in value)
    return 24


class Query(msgspec.Struct, frozen=True):
    """What is asked of a collection. `fields` are the only ones that are read, all if there are none."""

    collection: Path
    where: tuple[Where, ...] = ()
    order: str = ""
    descending: bool = False
    fields: tuple[str, ...] = ()
    after: tuple[Any, ...] = ()
    """Where the answer begins, behind it: the value of `order` and a document's id, or the id alone where the order is
    that of ids (`__name__`)."""


class Store:
    """The documents of one database. The client is made at the first need."""

    def __init__(self, client: Lazy[Client], patience: Patience, meter: Meter) -> None:
        self.client = client
        self.patience = patience
        self.meter = meter

    def get(self, path: Path) -> Document | None:
        return self.get_all([path]).get(path)

    def look(self, path: Path) -> tuple[Document | None, datetime]:
        """The document, and the moment at which that is so."""
        with translated(f"reading {path[0]}"):
            self.meter.add(calls=1, reads=1)
            snapshot = self.client().document(*path).get(**self.patience.options())
            return _document(snapshot) if snapshot.exists else None, snapshot.read_time

    def get_all(
        self, paths: Iterable[Path], fields: Sequence[str] | None = None, *, read_at: datetime | None = None
    ) -> dict[Path, Document]:
        """Those of the documents that are there, in one round trip, with these fields or all."""
        wanted = list(dict.fromkeys(paths))
        if not wanted:
            return {}
        with translated(f"reading {wanted[0][-2]}"):
            self.meter.add(calls=1, reads=len(wanted))
            references = {"/".join(path): path for path in wanted}
            found = {}
            asked = [self.client().document(*path) for path in wanted]
            snapshots = self.client().get_all(asked, fields, read_time=read_at, **self.patience.options())
            for snapshot in snapshots:
                if snapshot.exists:
                    found[references[snapshot.reference.path]] = _document(snapshot)
            return found

    def existing(self, paths: Iterable[Path]) -> set[Path]:
        """Which of the documents are there, without their fields."""
        return set(self.get_all(paths, fields=("__name__",)))

    def commit(self, writes: Sequence[Write]) -> list[Any]:
        """Writes all or nothing, and gives the new versions. Raises Conflict where a document is not as it should be.

        Raises ConfigError for more than one commit takes: whoever can cut it has to do so before.
        """
        size = sum(write.size for write in writes)
        if size > COMMIT_BYTES and len(writes) > 1:
            raise ConfigError(
                f"a commit of {size} bytes is more than the {COMMIT_BYTES} that Firestore is given at once",
                cure="lower batch_size or page_size of the integration",
            )
        with translated(f"writing {writes[0].path[-2]}"):
            batch = self.client().batch()
            for write in writes:
                reference = self.client().document(*write.path)
                if write.how == "set":
                    batch.set(reference, write.fields)
                elif write.how == "create":
                    batch.create(reference, write.fields)
                elif write.how == "delete":
                    batch.delete(reference, option=self._as_it_was(write.version))
                else:
                    batch.update(reference, write.fields, option=self._as_it_was(write.version))
            deletes = sum(write.how == "delete" for write in writes)
            self.meter.add(calls=1, writes=len(writes) - deletes, deletes=deletes)
            try:
                results = batch.commit(**self.patience.options())
            except Exception as error:
                self.meter.add(writes=deletes - len(writes), deletes=-deletes)
                _refuse_missing(error, writes)
                raise
            return [result.update_time for result in results]

    def each(self, query: Query, *, read_at: datetime | None = None, first: int = FIRST_PAGE) -> Iterator[Document]:
        """The documents that are meant, read page by page as they are asked for, `first` of them at first."""
        last: DocumentSnapshot[Any] | None = None
        size = first
        while True:
            with translated(f"asking for {query.collection[-1]}"):
                page = self._query(query).limit(size)
                if last is not None:
                    page = page.start_after(last)
                snapshots = list(page.get(read_time=read_at, **self.patience.options()))
                self.meter.add(calls=1, reads=max(1, len(snapshots)))
            yield from map(_document, snapshots)
            if len(snapshots) < size:
                return
            last, size = snapshots[-1], PAGE

    def first(self, query: Query, most: int) -> list[Document]:
        with translated(f"asking for {query.collection[-1]}"):
            snapshots = list(self._query(query).limit(most).get(**self.patience.options()))
            self.meter.add(calls=1, reads=max(1, len(snapshots)))
            return [_document(snapshot) for snapshot in snapshots]

    def ids(self, collection: Path) -> Iterator[str]:
        """Of all documents of a collection, and of those that are not there but have something below them."""
        with translated(f"listing {collection[-1]}"):
            for reference in self.client().collection(*collection).list_documents(**self.patience.options()):
                self.meter.add(reads=1)
                yield reference.id

    def count(self, query: Query) -> int:
        found = int(self._aggregate(query, lambda asked: asked.count()))
        self.meter.add(reads=found // READS_PER_COUNT)
        return found

    def total(self, query: Query, field: str) -> int:
        """The sum of a field."""
        return int(self._aggregate(query, lambda asked: asked.sum(field)))

    def _aggregate(self, query: Query, ask: Callable[[FirestoreQuery], Any]) -> Any:
        with translated(f"counting {query.collection[-1]}"):
            ((result,),) = ask(self._query(query)).get(**self.patience.options())
            self.meter.add(calls=1, reads=1)
            return result.value

    def _query(self, query: Query) -> FirestoreQuery:
        from google.cloud.firestore import FieldFilter
        from google.cloud.firestore import Query as FirestoreQuery

        asked = FirestoreQuery(self.client().collection(*query.collection))
        for field, operator, value in query.where:
            asked = asked.where(filter=FieldFilter(field, operator, value))
        if query.order:
            direction = FirestoreQuery.DESCENDING if query.descending else FirestoreQuery.ASCENDING
            asked = asked.order_by(query.order, direction=direction)
        if query.after:
            *value, id = query.after
            if value:
                asked = asked.order_by("__name__", direction=direction)
            where = {query.order: value[0]} if value else {}
            reference = self.client().collection(*query.collection).document(id)
            asked = asked.start_after({**where, "__name__": reference})
        return asked.select(list(query.fields)) if query.fields else asked

    def _as_it_was(self, version: Any) -> Any:
        return None if version is None else self.client().write_option(last_update_time=version)


def _refuse_missing(error: Exception, writes: Sequence[Write]) -> None:
    """An update of a document that is gone is a conflict like any other."""
    from google.api_core.exceptions import NotFound

    if isinstance(error, NotFound) and any(write.how in ("update", "delete") for write in writes):
        raise Conflict(f"writing {writes[0].path[-2]}: a document is gone") from error


def _document(snapshot: DocumentSnapshot[Any]) -> Document:
    return Document(snapshot.id, snapshot.to_dict() or {}, snapshot.update_time, snapshot.read_time)


def instant(stored: Any) -> datetime | None:
    """A plain instant. Firestore's own is of another class, which carries nanoseconds."""
    if stored is None:
        return None
    at: datetime = stored
    return datetime(at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, tzinfo=UTC)
