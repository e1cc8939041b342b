"""Data syncs in both homes, from a file that is sent to an export, and all that either home holds as one text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.cloud import storage

from infra import erasing, queries
from infra.clock import SystemClock
from infra.gcp.clients import connect_publisher
from infra.gcp.names import bucket_name
from infra.log import silent
from infra.systems.exports import Style, file_of
from infra.wiring import Hub
from shared.deliver import Health, Settled, deliver
from shared.errors import StoreUnavailable
from shared.fetch import Order, fetch
from shared.launches import Launch, launch_id
from shared.launching import ask
from shared.ports import Home, continuation_topic, topic_of
from shared.record import Envelope
from shared.stream import Stream
from shared.sweep import conclude_runs

NAME = "data_syncs"
OVERLAY = """\
data_syncs:
  streams:
    by_email: {type: import, kind: customers, match: {field: email, unmatched: create}}
    data_by_email: {type: import, kind: campaign_data, match: email}
    mapped:
      {type: import, kind: customers, delimiter: ";", mapping: {id: No., name: Name, age: {from: Age, as: integer}}}
    campaign_data_export: {type: export, kind: campaign_data}
"""


class Ahead(SystemClock):
    """The real clock, set forward."""

    by = timedelta()

    def now(self) -> datetime:
        return super().now() + self.by


class Story:
    """The hub as one process after another finds it."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self._environ = dict(environ)
        self.folder = folder
        overlay = folder / "overlay.yaml"
        overlay.write_text(OVERLAY)
        self._environ["WAYBILL_OVERLAY"] = str(overlay)
        self._clock = Ahead()
        self.hub = Hub(self._environ, clock=self._clock)
        self.sent = 0

    @property
    def home(self) -> Home:
        return self.hub.home

    @property
    def is_embedded(self) -> bool:
        return not self.hub.on_google_cloud

    def again(self, **environ: str) -> None:
        """Another process, which may be configured otherwise, once nobody takes the one before for alive."""
        self.hub.close()
        self._environ |= environ
        self._clock.by += timedelta(minutes=2)
        self.hub = Hub(self._environ, clock=self._clock)

    def close(self) -> None:
        self.hub.close()

    def streams(self) -> list[str]:
        return list(self.hub.integration(NAME).streams)

    def stream(self, name: str) -> Stream:
        (stream,) = self.hub.streams(self.hub.integration(NAME), name)
        return stream

    def send(self, sync: str, text: str | bytes, carry_out: bool = True) -> Launch:
        """Takes a file as the API does, and does what it asks for."""
        self.sent += 1
        data = text.encode() if isinstance(text, str) else text
        file = f"uploads/{NAME}/{sync}/file-{self.sent}"
        size = self.home.blobs.write_pieces(file, [data])
        at = self.hub.clock.now()
        launch = ask(self.home, Launch(NAME, sync, launch_id(at), at, file=file, size=size))
        if carry_out:
            self.work(sync)
        return launch

    def work(self, sync: str, order: Order | None = None) -> None:
        """Reads and delivers what waits."""
        stream, home = self.stream(sync), self.home
        for run in fetch(stream, lambda: self.hub.open_source(stream), home, order or Order(summoned=True), silent):
            sink = self.hub.open_sink(stream)
            for batch in list(home.batches.of_run(run.id)):
                if batch.state != "settled":
                    envelope = Envelope.from_bytes(home.blobs.read(batch.blob, batch.offset, batch.length))
                    assert isinstance(deliver(envelope, stream, sink, home, Health(), silent), Settled)
        conclude_runs(stream, home)

    def export(self, sync: str) -> Launch:
        self.work(sync, Order())
        return self.home.launches.recent(NAME, sync, 1)[0]

    def launch(self, of: Launch) -> Launch:
        """As it is by now."""
        found = self.home.launches.get(NAME, of.stream, of.id)
        assert found is not None
        return found

    def upload(self, of: Launch) -> str:
        """The file of a launch, which has to have the size that it says."""
        launch = self.launch(of)
        data = self.home.blobs.read(launch.file)
        assert len(data) == launch.size
        return data.decode()

    def exported(self, of: Launch) -> str:
        return b"".join(file_of(self.home, self.launch(of), Style())).decode()

    def ids(self, kind: str) -> set[str]:
        return {each.id for each in self.home.objects.page(kind, "", 1000)}

    def traces(self, key: str) -> dict[str, int]:
        """Where the key stands, without what is 0."""
        return {place: count for place, count in erasing.find_traces(self.hub, key).items() if count}

    def forget(self, key: str) -> dict[str, int]:
        erased: dict[str, int] = erasing.forget(self.hub, key)["erased"]
        return {place: count for place, count in erased.items() if count}

    def is_balanced(self) -> bool:
        return bool(queries.audit(self.hub, NAME, deep=False)["balanced"])

    def everything(self) -> str:
        """Every file of the embedded home; every document and every object of the project."""
        if self.is_embedded:
            files = [file for file in (self.folder / "home").rglob("*") if file.is_file()]
            return "".join(file.read_bytes().decode("latin1") for file in files)
        client, found = self.hub.google.store.client(), []
        for group in sorted({"cells", "objects", *(collection.id for collection in client.collections())}):
            found += [f"{each.id} {each.to_dict()}" for each in client.collection_group(group).stream()]
        # What the records of a batch are called is packed.
        found += [repr(each) for name in self.streams() for each in self.home.books.entries(NAME, name)]
        found += [f"{name} {self.home.blobs.read(name).decode('latin1')}" for name, _ in self.home.blobs.names("")]
        return "\n".join(found)

    def dies_after(self, writes: int) -> None:
        """So many more writes come through, of documents or of blobs."""
        left = [writes]

        def dying(work: Callable[..., Any]) -> Callable[..., Any]:
            def write(*values: Any) -> Any:
                if not left[0]:
                    raise StoreUnavailable("gone")
                left[0] -= 1
                return work(*values)

            return write

        blobs: Any = self.home.blobs
        written: list[tuple[Any, str]] = [(blobs, "write"), (blobs, "write_pieces"), (blobs, "delete")]
        if self.is_embedded:
            written += [(self.hub.embedded.state, "write"), (self.hub.embedded.transport, "write")]
        else:
            written.append((self.hub.google.store, "commit"))
        for of, name in written:
            setattr(of, name, dying(getattr(of, name)))


HOMES = ("embedded", "google")


@contextmanager
def told(request: pytest.FixtureRequest, folder: Path) -> Iterator[Story]:
    """In the home that the fixture's parameter names; Google's where the emulators are."""
    environ = {"WAYBILL_HOME": str(folder / "home")}
    if request.param == "google":
        emulators = request.getfixturevalue("emulators")
        project = emulators.project()
        environ |= {**emulators.environ, "WAYBILL_BACKEND": "gcp", "GOOGLE_CLOUD_PROJECT": project}
        publisher = connect_publisher()
        for topic in (topic_of(NAME), continuation_topic(NAME)):
            publisher.create_topic(name=f"projects/{project}/topics/{topic}")
        publisher.transport.close()
        client = storage.Client(project=project)
        client.create_bucket(bucket_name(project))
        client.close()
    story = Story({**os.environ, **environ}, folder)
    try:
        yield story
    finally:
        story.close()
