"""Google's errors become the project's own, each according to what can be done about it, and soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from google.api_core import exceptions as core
from google.auth import exceptions as auth
from google.cloud.storage import exceptions as storage

from infra.gcp.calls import Lazy, Patience
from infra.gcp.errors import Conflict, is_missing, translate, translated
from infra.gcp.home import GoogleHome
from shared.errors import ConfigError, Fenced, StoreUnavailable, WaybillError
from shared.ports import Message
from tests.contract import make
from tests.emulators import Emulators
from tests.unit.gcp_homes import Hub

FOR_A_HUMAN = {
    core.BadRequest, core.InvalidArgument, core.OutOfRange, core.Unauthorized, core.Unauthenticated, core.Forbidden,
    core.PermissionDenied, core.NotFound, core.MethodNotAllowed, core.MethodNotImplemented, core.LengthRequired,
}  # fmt: skip
SOMETHING_CHANGED = {core.FailedPrecondition, core.Conflict, core.AlreadyExists, core.PreconditionFailed}


def every_class(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for each in base.__subclasses__():
        yield from every_class(each)


@pytest.mark.parametrize("kind", sorted(set(every_class(core.GoogleAPICallError)), key=lambda kind: kind.__name__))
def test_every_error_of_an_api_has_a_meaning(kind: type[core.GoogleAPICallError]) -> None:
    found = translate(kind("no"), "reading")
    if kind in FOR_A_HUMAN:
        assert isinstance(found, ConfigError)
    elif kind in SOMETHING_CHANGED:
        assert isinstance(found, Conflict)
    else:
        assert type(found) is StoreUnavailable or kind is core.RequestRangeNotSatisfiable


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (core.NotFound("no topic"), ConfigError),
        (core.PermissionDenied("no"), ConfigError),
        (core.FailedPrecondition("The query requires an index. You can create it here"), ConfigError),
        (core.RetryError("too long", core.ServiceUnavailable("no")), StoreUnavailable),
        (core.RetryError("too long", core.Aborted("contention")), StoreUnavailable),
        (core.RetryError("too long", None), StoreUnavailable),
        (auth.DefaultCredentialsError("none"), ConfigError),
        (auth.TransportError("no network"), StoreUnavailable),
        (auth.RefreshError("no token"), StoreUnavailable),
        (grpc.RpcError("no"), StoreUnavailable),
        (requests.ConnectionError("refused"), StoreUnavailable),
        (storage.InvalidResponse(requests.Response(), "odd"), StoreUnavailable),
        (storage.DataCorruption(requests.Response(), "odd"), StoreUnavailable),
        (ConnectionResetError("reset"), StoreUnavailable),
        (FutureTimeout(), StoreUnavailable),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_each_library_is_understood(error: Exception, expected: type[WaybillError]) -> None:
    assert type(translate(error, "reading")) is expected


def test_what_is_missing_is_told_from_what_is_wrong() -> None:
    for error, missing in ((core.NotFound("no"), True), (core.InvalidArgument("no"), False)):
        with pytest.raises(ConfigError) as raised, translated("reading"):
            raise error
        assert is_missing(raised.value) is missing
        assert raised.value.cure


def test_a_mistake_of_our_own_stays_one() -> None:
    with pytest.raises(KeyError), translated("reading"):
        raise KeyError("mine")
    with pytest.raises(Fenced), translated("reading"):
        raise Fenced("mine")


def test_the_cause_is_kept_and_no_document_is_quoted() -> None:
    with pytest.raises(StoreUnavailable) as raised, translated("writing cells"):
        raise core.ServiceUnavailable("no connection\nname: Zoë")
    assert isinstance(raised.value.__cause__, core.ServiceUnavailable)
    assert "writing cells" in str(raised.value)
    assert "Zoë" not in str(raised.value)


def test_whoever_gets_in_between_for_ever_is_not_waited_for_for_ever() -> None:
    begun = time.monotonic()
    tries = sum(1 for _ in Patience(0.2).tries())
    assert time.monotonic() - begun < 1
    assert tries > 3


def test_a_client_is_made_once_and_again_after_it_was_closed() -> None:
    class Client:
        closed = False

        def close(self) -> None:
            self.closed = True

    client = Lazy(Client)
    first = client()
    assert client() is first
    client.close()
    assert first.closed
    assert client() is not first
    Lazy(Client).close()


@pytest.fixture
def hub(emulators: Emulators, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(emulators, tmp_path)
    yield hub
    hub.close()


def test_a_store_that_hangs_is_unavailable_within_the_patience(hub: Hub, emulators: Emulators) -> None:
    home = hub.home()
    lease = home.ports.leases.take(make.LEASE)
    home.ports.runs.commit(lease, make.run())
    home.patience.seconds = 0.5
    with emulators.firestore.frozen():
        begun = time.monotonic()
        for call in (
            lambda: home.ports.runs.commit(lease, make.run()),
            lambda: home.ports.ledger.cells(make.SHOP, make.CUSTOMERS, ["k"]),
            lambda: list(home.ports.batches.unsettled(make.SHOP)),
        ):
            with pytest.raises(StoreUnavailable):
                call()
        assert time.monotonic() - begun < 10
    home.patience.seconds = 10
    home.ports.runs.commit(lease, make.run())


def test_a_bus_that_hangs_is_unavailable_within_the_patience(hub: Hub, emulators: Emulators) -> None:
    home = hub.home()
    home.patience.seconds = 0.5
    with emulators.pubsub.frozen():
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            home.ports.bus.publish("shop-records", [Message(b"x", "a")])
        assert time.monotonic() - begun < 5


def test_a_topic_that_was_never_made_is_for_a_human(hub: Hub) -> None:
    with pytest.raises(ConfigError) as raised:
        hub.home().ports.bus.publish("nobody-s", [Message(b"x", "a")])
    assert "Terraform" in raised.value.cure


def unreachable() -> Any:
    return auth.DefaultCredentialsError("Your default credentials were not found.")


def test_missing_credentials_are_for_a_human(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRESTORE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*_: Any, **__: Any) -> Any:
        raise unreachable()

    monkeypatch.setattr("google.auth.default", refuse)
    home = GoogleHome("nobody-s")
    for call in (
        lambda: home.ports.runs.get("r"),
        lambda: home.ports.bus.publish("shop-records", [Message(b"x")]),
        lambda: home.ports.blobs.read("a"),
        lambda: home.ports.schedule.paused("shop"),
    ):
        with pytest.raises(ConfigError):
            call()
