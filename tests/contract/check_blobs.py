"""Blobs: all of what was written or nothing of it, and no name that leads elsewhere."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from shared.errors import ConfigError, StoreUnavailable
from tests.contract.suite import Around, answering, at_once, breaks, contract, errors_of, eventually, refused, without
from tests.contract.world import World

SIZE = 200_000
PIECE = 64 * 1024
LARGE = 4 * 1024 * 1024
TRICKS = [
    "", ".", "..", "/", "../x", "a/../../x", "/etc/x", "a//b", "a/", "./a", "a/./b", "a/..", "a\x00b", "a\nb",
    ".hidden", "a/.hidden",
]  # fmt: skip


class KeepsTheFirst(Around):
    def write(self, name: str, data: bytes) -> None:
        if not any(name == known for known, _ in self.inner.names(name)):
            self.inner.write(name, data)


class WritesHalves(Around):
    """Shows half of what it writes to whoever reads meanwhile."""

    def write(self, name: str, data: bytes) -> None:
        if name in self.shared:
            self.inner.write(name, data[: len(data) // 2])
            before = self.shared[name]
            eventually(lambda: self.shared[name] > before + 1, "a reading in between")
        self.inner.write(name, data)
        self.shared.setdefault(name, 0)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        found: bytes = self.inner.read(name, offset, length)
        self.shared[name] += 1
        return found


class ReadsHalves(Around):
    """Reads what was not written to its end."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        found: bytes = self.inner.read(name, offset, length)
        return found[: SIZE // 2]


class ReadsAll(Around):
    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        found: bytes = self.inner.read(name)
        return found


class ReadsFromTheOffset(Around):
    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        found: bytes = self.inner.read(name, offset)
        return found


class ReadsNothing(Around):
    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            found: bytes = self.inner.read(name, offset, length)
        except FileNotFoundError:
            return b""
        return found


class FoldersOnly(Around):
    """Takes a prefix for a folder."""

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        folder = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
        found: Iterator[tuple[str, datetime]] = self.inner.names(folder)
        return found


class NamesEverything(Around):
    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        found: Iterator[tuple[str, datetime]] = self.inner.names("")
        return found


class DeletesNeighbours(Around):
    def delete(self, name: str) -> None:
        for known, _ in list(self.inner.names(name)):
            self.inner.delete(known)


class TakesAnyName(Around):
    def write(self, name: str, data: bytes) -> None:
        self.inner.write("somewhere", data)


class LosesOne(Around):
    def write(self, name: str, data: bytes) -> None:
        if not name.endswith("13"):
            self.inner.write(name, data)


class JoinsPieces(Around):
    """Waits for the last piece before it writes the first."""

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        size: int = self.inner.write_pieces(name, [b"".join(list(pieces))])
        return size


class WritesWhatCame(Around):
    """Takes the end of the pieces for their end, whatever it was."""

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        def came() -> Iterator[bytes]:
            with suppress(Lost):
                yield from pieces

        size: int = self.inner.write_pieces(name, came())
        return size


class RemovesFirst(Around):
    """Makes room before it writes."""

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        self.inner.delete(name)
        size: int = self.inner.write_pieces(name, pieces)
        return size


class LastPieceAlone(Around):
    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        size = 0
        for piece in pieces:
            size += len(piece)
            self.inner.write(name, piece)
        return size


class CountsPieces(Around):
    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        every = list(pieces)
        self.inner.write_pieces(name, every)
        return len(every)


class TakesAnyPieces(Around):
    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        size: int = self.inner.write_pieces("somewhere", pieces)
        return size


class CallsItUnavailable(Around):
    """Says of everything that ends the pieces that the store is away."""

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        try:
            size: int = self.inner.write_pieces(name, pieces)
        except OSError as error:
            raise StoreUnavailable("away") from error
        return size


class Lost(OSError):
    """Whoever sends the pieces is gone."""


def broken_off(size: int) -> Iterator[bytes]:
    for _ in range(size // PIECE):
        yield b"n" * PIECE
    raise Lost


def naive(found: Any) -> list[tuple[str, datetime]]:
    return [(name, at.replace(tzinfo=None)) for name, at in found]


def backwards(found: Any) -> list[tuple[str, datetime]]:
    """Later blobs have earlier times."""
    return [(name, datetime.fromtimestamp(2e9 - at.timestamp(), UTC)) for name, at in found]


@contract(
    breaks("does nothing", blobs=without("write"), error=FileNotFoundError), breaks("reads halves", blobs=ReadsHalves)
)
def check_what_was_written_is_read(world: World) -> None:
    for name, data in (
        ("archive/shop/customers/run 1/7-000001", bytes(range(256)) * 1000),
        ("empty", b""),
        ("Zoë ☃ 'q' \"x\" (1) %2F ~", b"odd"),
        ("deep/" * 20 + "x", b"deep"),
    ):
        world.here.blobs.write(name, data)
        assert world.there.blobs.read(name) == data


@contract(breaks("reads all", blobs=ReadsAll), breaks("reads to the end", blobs=ReadsFromTheOffset))
def check_a_range_is_read(world: World) -> None:
    world.here.blobs.write("x", b"0123456789")
    read = world.there.blobs.read
    assert read("x", 3, 4) == b"3456"
    assert read("x", 0, 10) == b"0123456789"
    assert read("x", 7) == b"789"
    assert read("x", 7, 100) == b"789"
    assert read("x", 9, 1) == b"9"


class SizeOfNothing(Around):
    def size(self, name: str) -> int:
        try:
            found: int = self.inner.size(name)
        except FileNotFoundError:
            return 0
        return found


@contract(
    breaks("counts one too many", blobs=answering("size", lambda size: size + 1)),
    breaks("takes nothing for empty", blobs=SizeOfNothing),
)
def check_the_size_of_a_blob_is_known(world: World) -> None:
    for name, data in (("a/b", b"0123456789"), ("a/empty", b""), ("a/large", b"x" * SIZE)):
        world.here.blobs.write(name, data)
        assert world.there.blobs.size(name) == len(data)
    world.here.blobs.write("a/b", b"012")
    assert world.there.blobs.size("a/b") == 3
    for name in ("nobody's", "a", "a/b/c"):
        with refused(FileNotFoundError):
            world.there.blobs.size(name)


class KeptTogether(Around):
    """Keeps snapshots among the other blobs."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.home.blobs, name)


@contract(
    breaks("keeps them together", snapshots=KeptTogether),
    breaks("names everything", snapshots=NamesEverything),
    breaks("reads to the end", snapshots=ReadsFromTheOffset),
    breaks("takes any name", snapshots=TakesAnyName),
)
def check_snapshots_are_blobs_of_their_own(world: World) -> None:
    world.here.blobs.write("outbox/full.zip", b"another")
    snapshots, there = world.here.snapshots, world.there.snapshots
    assert snapshots.write_pieces("outbox/full.zip", [b"01234", b"56789"]) == 10
    snapshots.write("data/x", b"x")
    assert (there.size("outbox/full.zip"), there.read("outbox/full.zip", 3, 4)) == (10, b"3456")
    assert world.there.blobs.read("outbox/full.zip") == b"another"
    assert [name for name, _ in there.names("outbox/")] == ["outbox/full.zip"]
    assert sorted(name for name, _ in there.names("")) == ["data/x", "outbox/full.zip"]
    there.delete("outbox/full.zip")
    with refused(FileNotFoundError):
        snapshots.read("outbox/full.zip")
    assert world.there.blobs.read("outbox/full.zip") == b"another"
    for name in TRICKS:
        for call in (lambda n: snapshots.write(n, b"x"), snapshots.read, snapshots.delete, snapshots.size):
            with refused(ConfigError):
                call(name)


@contract(breaks("keeps the first", blobs=KeepsTheFirst))
def check_a_name_is_overwritten(world: World) -> None:
    for data in (b"first", b"second, and longer", b"3"):
        world.here.blobs.write("a/b", data)
        assert world.there.blobs.read("a/b") == data
    assert [name for name, _ in world.there.blobs.names("")] == ["a/b"]


@contract(breaks("reads nothing", blobs=ReadsNothing))
def check_what_is_not_there_is_not_found(world: World) -> None:
    world.here.blobs.write("a/b", b"x")
    for name in ("nobody's", "a/c", "a", "a/b/c"):
        with refused(FileNotFoundError):
            world.there.blobs.read(name)


@contract(breaks("does nothing", blobs=without("delete")), breaks("takes neighbours with it", blobs=DeletesNeighbours))
def check_a_deleted_blob_is_gone_and_its_neighbours_stay(world: World) -> None:
    for name in ("a/b/1", "a/b/10", "a/c", "ab"):
        world.here.blobs.write(name, b"x")
    world.there.blobs.delete("a/b/1")
    for absent in ("a/b/1", "nobody's", "a/b", "ab/c"):
        world.there.blobs.delete(absent)
    assert sorted(name for name, _ in world.here.blobs.names("")) == ["a/b/10", "a/c", "ab"]
    with refused(FileNotFoundError):
        world.here.blobs.read("a/b/1")


@contract(
    breaks("takes a prefix for a folder", blobs=FoldersOnly),
    breaks("names everything", blobs=NamesEverything),
    breaks("names nothing", blobs=answering("names", lambda _: [])),
)
def check_names_are_found_by_prefix(world: World) -> None:
    written = ["archive/shop/1/a", "archive/shop/1/b", "archive/shop/10/a", "archive/shopping/1", "x"]
    assert list(world.here.blobs.names("")) == []
    for name in written:
        world.here.blobs.write(name, b"x")

    def names(prefix: str) -> list[str]:
        return sorted(name for name, _ in world.there.blobs.names(prefix))

    assert names("") == written
    assert names("archive/shop/1") == written[:3]
    assert names("archive/shop/") == written[:3]
    assert names("archive/shop") == written[:4]
    assert names("archive/shop/1/b") == ["archive/shop/1/b"]
    assert names("nobody's/") == []


@contract(
    breaks("gives naive instants", blobs=answering("names", naive)),
    breaks("lets time run backwards", blobs=answering("names", backwards)),
)
def check_names_come_with_the_time_of_their_writing(world: World) -> None:
    world.here.blobs.write("a", b"x")
    first = dict(world.there.blobs.names(""))["a"]
    assert first.utcoffset() is not None

    def written_again() -> bool:
        world.here.blobs.write("a", b"x")
        return dict(world.there.blobs.names(""))["a"] != first

    eventually(written_again, "another time")
    world.here.blobs.write("b", b"x")
    times = dict(world.there.blobs.names(""))
    assert first < times["a"] <= times["b"]


@contract(breaks("takes any name", blobs=TakesAnyName), breaks("takes any name for pieces", blobs=TakesAnyPieces))
def check_names_with_tricks_are_refused(world: World) -> None:
    blobs = world.here.blobs
    for name in TRICKS:
        for call in (lambda n: blobs.write(n, b"x"), lambda n: blobs.write_pieces(n, [b"x"]), blobs.read, blobs.delete):
            with refused(ConfigError):
                call(name)
    assert list(blobs.names("")) == []


@contract(
    breaks("writes nothing", blobs=without("write_pieces")),
    breaks("writes the last piece alone", blobs=LastPieceAlone),
    breaks("counts pieces", blobs=CountsPieces),
)
def check_what_comes_in_pieces_is_written_in_their_order(world: World) -> None:
    for sizes in ([], [0], [7], [0, 1, 0, 2], [PIECE] * 3, [100] * 2000, [5_000_000, 1], [LARGE], [LARGE // 2] * 4):
        world.here.blobs.write("a/b", b"x")
        pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
        assert world.here.blobs.write_pieces("a/b", iter(pieces)) == sum(sizes)
        assert world.there.blobs.read("a/b") == b"".join(pieces)
    assert [name for name, _ in world.there.blobs.names("")] == ["a/b"]


@contract(
    breaks("writes what came", blobs=WritesWhatCame, error=AssertionError),
    breaks("removes first", blobs=RemovesFirst, error=FileNotFoundError),
    breaks("calls it unavailable", blobs=CallsItUnavailable, error=StoreUnavailable),
)
def check_pieces_that_break_off_leave_what_was_there(world: World) -> None:
    world.here.blobs.write("old", b"x")
    for size in (0, PIECE, 3 * LARGE):
        for name in ("old", "new"):
            with refused(Lost):
                world.here.blobs.write_pieces(name, broken_off(size))
        assert world.there.blobs.read("old") == b"x"
        assert [name for name, _ in world.there.blobs.names("")] == ["old"]


@contract(breaks("joins the pieces", blobs=JoinsPieces))
def check_pieces_are_never_all_in_memory(world: World) -> None:
    count = 8 * LARGE // PIECE
    tracemalloc.start()
    try:
        assert world.here.blobs.write_pieces("a", (bytes(PIECE) for _ in range(count))) == count * PIECE
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < count * PIECE * 2 // 3


@contract(breaks("writes halves", blobs=WritesHalves))
def check_readers_see_all_of_a_blob_or_the_one_before(world: World) -> None:
    world.here.blobs.write("x", b"a" * SIZE)
    seen: list[bytes] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.append(world.there.blobs.read("x"))

    def more_than(before: int) -> bool:
        return len(seen) > before or not watcher.is_alive()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for letter in b"bcdefghijk":
            before = len(seen)
            world.here.blobs.write("x", bytes([letter]) * SIZE)
            eventually(partial(more_than, before), "a reading")
    finally:
        stop.set()
        watcher.join()
    assert {(len(data), len(set(data))) for data in seen} == {(SIZE, 1)}


@contract(breaks("reads halves", blobs=ReadsHalves))
def check_death_in_the_middle_of_writing_leaves_whole_blobs_only(world: World) -> None:
    child = world.child("write_blobs", count=4000, size=SIZE)
    assert child.said["begun"]
    eventually(lambda: len(list(world.here.blobs.names("archive/"))) > 9, "some blobs")
    world.kill(child)
    for name, _ in world.here.blobs.names(""):
        data = world.here.blobs.read(name)
        assert (len(data), len(set(data))) == (SIZE, 1)


@contract(breaks("loses one", blobs=LosesOne))
def check_writing_deleting_and_listing_at_once_do_not_hinder_each_other(world: World) -> None:
    def write(home_number: int) -> None:
        blobs = (world.here, world.there)[home_number % 2].blobs
        for number in range(20):
            blobs.write(f"archive/{home_number}/passing/{number}", b"x")
            blobs.delete(f"archive/{home_number}/passing/{number}")
            blobs.write(f"archive/shared/passing-{number % 3}/{home_number}", b"x")
            blobs.delete(f"archive/shared/passing-{number % 3}/{home_number}")
        blobs.write(f"kept/{home_number + 10}", b"x")

    def look() -> None:
        for _ in range(20):
            list(world.there.blobs.names("archive/"))

    works = [*(lambda n=n: write(n) for n in range(6)), look, look]
    assert errors_of(at_once(*works)) == []
    assert sorted(name for name, _ in world.here.blobs.names("")) == [f"kept/{number}" for number in range(10, 16)]
