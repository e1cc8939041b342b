"""Cloud Storage: what is too large for one request, and the edges of reading."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from google.cloud import storage

from infra.gcp.clients import NO_BUCKET_METADATA
from infra.gcp.home import GoogleHome
from infra.gcp.names import bucket_name
from shared.errors import ConfigError
from tests.emulators import Emulators


@pytest.fixture
def home(emulators: Emulators) -> Iterator[GoogleHome]:
    project = emulators.project()
    client = storage.Client(project=project)
    client.create_bucket(bucket_name(project))
    client.close()
    home = GoogleHome(project)
    yield home
    home.close()


def test_a_large_blob_is_written_in_pieces_and_read_by_ranges(home: GoogleHome) -> None:
    blobs = home.ports.blobs
    data = bytes(range(256)) * 80_000
    blobs.write("archive/shop/large", data)
    assert blobs.read("archive/shop/large") == data
    assert blobs.read("archive/shop/large", 12_345_678, 300) == data[12_345_678 : 12_345_678 + 300]
    assert home.meter.counts() == {"blob_operations": 3, "blob_bytes": 2 * len(data) + 300}


def test_beyond_the_end_there_is_nothing(home: GoogleHome) -> None:
    blobs = home.ports.blobs
    blobs.write("a", b"0123")
    assert blobs.read("a", 4) == b""
    assert blobs.read("a", 99, 5) == b""
    assert blobs.read("a", 2, 0) == b""
    with pytest.raises(FileNotFoundError):
        blobs.read("b", 2, 0)


def test_a_bucket_that_was_never_made_is_for_a_human(emulators: Emulators) -> None:
    home = GoogleHome(emulators.project())
    for call in (lambda: home.ports.blobs.write("a", b"x"), lambda: list(home.ports.blobs.names(""))):
        with pytest.raises(ConfigError) as raised:
            call()
        assert "Terraform" in raised.value.cure
    home.close()


def test_nothing_is_asked_behind_our_back(emulators: Emulators, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NO_BUCKET_METADATA)
    project = emulators.project()
    home = GoogleHome(project)
    started: list[str] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread.name), start(thread)))
    with pytest.raises(ConfigError):
        home.ports.blobs.write("a", b"x")
    home.close()
    assert started == []
