"""Reading objects: the one that was meant, one generation of it from end to end, and never all of it at once."""

from __future__ import annotations

import gzip
import re
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest
from google.cloud import storage

from infra.gcp.clients import NO_BUCKET_METADATA
from infra.systems import Connection, gcs
from infra.systems.files.reading import Tables
from infra.systems.gcs import open_source
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import AuthError, ConfigError, GuardTripped, ProtocolError, TransientError
from shared.retry import RetryPolicy
from tests.emulators import Emulators
from tests.loopback import FakeClock, Loopback, Reply, Request, refused_port, reply

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON - timedelta(days=1), NOON + timedelta(days=1))
AGES = Window(datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


class Objects:
    """The requests that a reader makes of one bucket, which keeps no old generations."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[int, datetime, bytes]] = {}
        self.generation = 1_700_000_000_000_000
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.status = 200

    def put(self, name: str, data: bytes | str, at: datetime = NOON) -> None:
        self.generation += 1
        self.held[name] = self.generation, at, data.encode() if isinstance(data, str) else data

    def __call__(self, request: Request) -> Reply:
        parts = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append((parts.path, query, request.headers))
        if self.status != 200:
            return reply(self.status, b'{"error":{"message":"no"}}', {"Content-Type": "application/json"})
        if parts.path == "/storage/v1/b/shop/o":
            return self._list(query)
        found = re.fullmatch(r"(/download)?/storage/v1/b/shop/o/([^/]+)", parts.path)
        name = unquote(found[2]) if found else ""
        if name not in self.held:
            return reply(404, b'{"error":{"message":"no"}}', {"Content-Type": "application/json"})
        generation, _, data = self.held[name]
        if "generation" in query and query["generation"] != str(generation):
            return reply(404, b'{"error":{"message":"no such generation"}}')
        if found is None or not found[1]:
            return _json(self._resource(name))
        if query.get("ifGenerationMatch", str(generation)) != str(generation):
            return reply(412, b"no")
        return _ranged(data, request.headers)

    def _list(self, query: dict[str, str]) -> Reply:
        """Two to a page."""
        names = sorted(name for name in self.held if name.startswith(query.get("prefix", "")))
        start = int(query.get("pageToken", 0))
        more = {"nextPageToken": str(start + 2)} if len(names) > start + 2 else {}
        return _json({"items": [self._resource(name) for name in names[start : start + 2]], **more})

    def _resource(self, name: str) -> dict[str, Any]:
        generation, at, data = self.held[name]
        late = (at + timedelta(days=300)).isoformat()
        times = {"timeCreated": at.isoformat().replace("+00:00", "Z"), "updated": late.replace("+00:00", "Z")}
        return {"name": name, "bucket": "shop", "generation": str(generation), "size": str(len(data)), **times}


def _json(value: Any) -> Reply:
    return reply(200, msgspec.json.encode(value), {"Content-Type": "application/json"})


def _ranged(data: bytes, headers: dict[str, str]) -> Reply:
    assert "gzip" in headers["accept-encoding"]
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", headers["range"])
    assert wanted is not None
    start, end = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
    if start >= len(data):
        return reply(416, b"")
    return reply(206, data[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(data)}"})


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    held = Objects()
    with Loopback(held) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield held


def source_of(path: Any, page_size: int = 100, secrets: dict[str, str] | None = None, **options: Any) -> Tables:
    options = {"path": path, **options}
    return open_source(
        Connection("", secrets or {}, None, page_size, RetryPolicy(), FakeClock(), None, lambda: False, options), ""
    )


def pages(path: str, after: str = "", window: Window = WINDOW, **options: Any) -> list[Page]:
    with closing(source_of(path, **options)) as source:
        return list(source.pages(window, after))


def rows(path: str, **options: Any) -> list[Row]:
    return [row for page in pages(path, **options) for row in page.rows]


def ids(found: list[Row]) -> list[Any]:
    return [row.data.get("id") for row in found]


def test_an_object_is_read_in_pieces_of_its_generation(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "PIECE", 1000)
    objects.put("in/a.csv", "id,note\n" + "".join(f'{n},"x\ny"\n' for n in range(500)))
    found = rows("gs://shop/in/a.csv", key=["id"])
    assert ids(found) == [str(n) for n in range(500)] and found[1].position == "4"
    reads = [each for each in objects.asked if each[0].startswith("/download")]
    assert len(reads) == 5
    for _, query, headers in reads:
        assert query["generation"] == query["ifGenerationMatch"] == str(objects.generation)
        first, last = map(int, headers["range"].removeprefix("bytes=").split("-"))
        assert last - first < 1000


@pytest.mark.parametrize("key", [["id"], []])
@pytest.mark.parametrize("packed", [False, True])
def test_reading_goes_on_exactly_behind_every_page(objects: Objects, key: list[str], packed: bool) -> None:
    for number in range(3):
        data = ("id\n" + "".join(f"{n % 2}\n" for n in range(5))).encode()
        objects.put(f"in/{number}.csv" + ".gz" * packed, gzip.compress(data) if packed else data)
    whole = pages("gs://shop/in/", key=key, page_size=2)
    assert [len(page.rows) for page in whole] == [2, 2, 1] * 3
    for number, page in enumerate(whole, 1):
        assert pages("gs://shop/in/", page.after, key=key, page_size=2) == whole[number:]


def test_going_on_asks_for_the_head_and_for_what_is_left(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "PIECE", 500)
    objects.put("a.csv", "id\n" + "".join(f"{n:09d}\n" for n in range(1000)))
    after = pages("gs://shop/a.csv", key=["id"], page_size=990)[0].after
    objects.asked.clear()
    assert len(rows("gs://shop/a.csv", key=["id"])) == 1000
    objects.asked.clear()
    assert len(pages("gs://shop/a.csv", after, key=["id"])[0].rows) == 10
    reads = [headers["range"] for path, _, headers in objects.asked if path.startswith("/download")]
    assert reads == ["bytes=0-499", "bytes=9903-10002"]


def test_a_prefix_a_pattern_and_an_object_are_what_they_say(objects: Objects) -> None:
    for name in ("in/a.csv", "in/b.csv", "in/deep/a.csv", "in/_tmp/c.csv", "in/a.csv.bak.csv", "in.csv", "in/"):
        objects.put(name, f"id\n{name}\n")
    assert ids(rows("gs://shop/in/a.csv")) == ["in/a.csv"]
    assert ids(rows("gs://shop/in/")) == ["in/a.csv", "in/a.csv.bak.csv", "in/b.csv", "in/deep/a.csv"]
    assert ids(rows("gs://shop/in/*/a.csv")) == ["in/deep/a.csv"]
    assert ids(rows("gs://shop/in/?.csv")) == ["in/a.csv", "in/b.csv"]
    assert rows("gs://shop/in/?.csv")[1].position == "in/b.csv:2"
    assert ids(rows("gs://shop")) == ids(rows("gs://shop/")) == ["in.csv", *ids(rows("gs://shop/in/"))]
    assert rows("gs://shop/other/") == []
    with pytest.raises(ProtocolError, match=r"no object gs://shop/in/z\.csv"):
        rows("gs://shop/in/z.csv")
    with pytest.raises(ProtocolError, match="nothing"):
        rows("gs://nobodys/in/")


def test_a_window_holds_the_generations_made_in_it(objects: Objects) -> None:
    for name, at in (("a", NOON - timedelta(seconds=1)), ("b", NOON), ("c", NOON + timedelta(hours=1))):
        objects.put(f"{name}.csv", f"id\n{name}\n", at)
    found = pages("gs://shop/", window=Window(NOON, NOON + timedelta(hours=1)))
    assert ids([row for page in found for row in page.rows]) == ["b"]


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("goes", [False, True])
def test_an_object_that_is_replaced_or_removed_while_it_is_read_trips_the_guard(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, goes: bool, resumes: bool
) -> None:
    monkeypatch.setattr(gcs, "PIECE", 10)
    objects.put("a.csv", "id\n" + "1\n" * 200_000)
    objects.put("b.csv", "id\nb\n")
    reader = source_of("gs://shop/", page_size=2).pages(WINDOW, "")
    first = next(reader)
    if goes:
        del objects.held["a.csv"]
    else:
        objects.put("a.csv", "id\n" + "2\n" * 200_000, WINDOW.until)
    if resumes:
        reader = source_of("gs://shop/", page_size=100_000).pages(WINDOW, first.after)
    found: list[Row] = []
    with pytest.raises(GuardTripped, match=r"a\.csv: it was changed"):
        for page in reader:
            found += page.rows
    assert ids(found)[-1] == "b" and "2" not in ids(found)


def test_a_change_behind_the_last_piece_is_seen_too(objects: Objects) -> None:
    objects.put("a.csv", "id\n1\n2\n3\n")
    reader = source_of("gs://shop/", page_size=2).pages(WINDOW, "")
    next(reader)
    objects.put("a.csv", "id\n1\n2\n3\n", WINDOW.until)
    with pytest.raises(GuardTripped):
        list(reader)


def test_a_cut_off_object_is_refused_when_the_others_are_read(objects: Objects) -> None:
    objects.put("a.csv.gz", gzip.compress(b"id\n" + b"1\n" * 9_000)[:-9])
    objects.put("b.csv", "id\nb\n")
    with closing(source_of("gs://shop/")) as source, pytest.raises(GuardTripped, match=r"a\.csv\.gz: it is compressed"):
        for page in source.pages(WINDOW, ""):
            last = page
    assert ids(list(last.rows)) == ["b"]


@pytest.mark.parametrize(
    ("status", "error"), [(401, AuthError), (403, AuthError), (400, ProtocolError), (503, TransientError)]
)
def test_refusals_mean_what_they_mean_for_a_source(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception]
) -> None:
    if status == 503:
        monkeypatch.setattr(gcs, "PATIENCE", 0.05)
    objects.status = status
    with pytest.raises(error):
        rows("gs://shop/in/")


def test_a_server_that_is_away_is_a_passing_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{refused_port()}")
    monkeypatch.setattr(gcs, "PATIENCE", 0.05)
    with pytest.raises(TransientError):
        rows("gs://shop/in/")


def test_the_token_that_is_given_is_used_and_no_other_credentials(objects: Objects) -> None:
    objects.put("a.csv", "id\n1\n")
    rows("gs://shop/a.csv", secrets={"GOOGLE_OAUTH_ACCESS_TOKEN": "t0ken"})
    assert {headers.get("authorization") for _, _, headers in objects.asked} == {"Bearer t0ken"}


def test_nothing_is_asked_behind_our_back(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NO_BUCKET_METADATA)
    objects.put("a.csv", "id\n1\n")
    started: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        if not thread.name.endswith("(_serve)"):
            started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    rows("gs://shop/a.csv")
    assert started == []


@pytest.mark.parametrize("path", ["", None, "shop/a.csv", "gs://", "gs:///a.csv"])
def test_a_path_without_a_bucket_is_a_mistake_of_the_configuration(path: Any) -> None:
    with pytest.raises(ConfigError):
        source_of(path)


def test_a_large_object_takes_the_memory_of_a_piece(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "PIECE", 100_000)
    objects.put("a.csv", "id,note\n" + f'1,"{"x" * 500}"\n' * 20_000)
    list(pages("gs://shop/none/"))
    tracemalloc.start()
    with closing(source_of("gs://shop/a.csv", page_size=100)) as source:
        count = sum(len(page.rows) for page in source.pages(WINDOW, ""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000 and peak < 5_000_000 < len(objects.held["a.csv"][2]) // 2


def test_the_emulator_is_read_as_the_service_is(emulators: Emulators) -> None:
    client = storage.Client(project=emulators.project())
    bucket = client.create_bucket(emulators.project())
    data = b"id;note\r\n" + b"".join(b'%d;"a;\nb"\r\n' % n for n in range(3_000))
    bucket.blob("in/a.csv").upload_from_string(data)
    packed = bucket.blob("in/b.csv")
    packed.content_encoding = "gzip"
    packed.upload_from_string(gzip.compress(data))
    path = f"gs://{bucket.name}/in/"
    found = pages(path, window=AGES, key=["id"], page_size=1000)
    assert sum(len(page.rows) for page in found) == 6_000
    assert pages(path, found[0].after, window=AGES, key=["id"], page_size=1000) == found[1:]
    reader = source_of(path, page_size=1000).pages(AGES, "")
    next(reader)
    bucket.blob("in/a.csv").upload_from_string(data)
    with pytest.raises(GuardTripped):
        list(reader)
    client.close()
