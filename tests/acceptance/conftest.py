"""A sandbox and a home of its own for each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import archives
from tests.acceptance.hub import ROOT, Hub
from tests.sandbox import Sandbox

MakeHub = Callable[..., Hub]


@contextmanager
def hubs_in(folder: Path) -> Iterator[MakeHub]:
    """`make(customers, overlay={...}, faults=..., invalid=..., ...)`: a hub with quick limits, ready to run."""
    with ExitStack() as stack:

        def make(customers: int = 40, *, overlay: dict[str, Any] | None = None, **settings: Any) -> Hub:
            settings = {"seed": 11, "ploomes_per_minute": None, **settings}
            sandbox = stack.enter_context(Sandbox(customers=customers, **settings))
            hub = Hub(folder / "hub", sandbox, overlay or {})
            stack.callback(hub.close)
            return hub

        yield make


@pytest.fixture
def make_hub(tmp_path: Path) -> Iterator[MakeHub]:
    """See `hubs_in`."""
    with hubs_in(tmp_path) as make:
        yield make


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    """Forty customers, no faults."""
    return make_hub()


@pytest.fixture(scope="session")
def runtime(pytestconfig: pytest.Config) -> Path:
    """The commands of an environment that holds what requirements.txt asks for, and nothing else."""
    assert pytestconfig.cache is not None
    return archives.make_runtime(pytestconfig.cache.mkdir("runtime"), ROOT)
