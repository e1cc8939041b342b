"""A project, a sandbox and a home of its own for each test of the Google Cloud form."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.google.cloud import GoogleHub
from tests.emulators import Emulators
from tests.sandbox import Sandbox

MakeGoogleHub = Callable[..., GoogleHub]


@pytest.fixture
def make_google(emulators: Emulators, tmp_path: Path) -> Iterator[MakeGoogleHub]:
    """`make(customers, overlay={...}, faults=..., ...)`: a hub with quick limits in a project that nobody used."""
    with ExitStack() as stack:

        def make(customers: int = 40, *, overlay: dict[str, Any] | None = None, **settings: Any) -> GoogleHub:
            settings = {"seed": 11, "ploomes_per_minute": None, **settings}
            sandbox = stack.enter_context(Sandbox(customers=customers, **settings))
            hub = GoogleHub(tmp_path / "hub", sandbox, overlay or {}, emulators)
            stack.callback(hub.close)
            return hub

        yield make


@pytest.fixture
def google(make_google: MakeGoogleHub) -> GoogleHub:
    """Forty customers, no faults."""
    return make_google()
