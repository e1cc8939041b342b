"""Leases that are kept for as long as a long piece of work takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from shared.ports import Home, Lease

RENEW_SECONDS: Final = 20.0


class Kept:
    """Leases in hand. Whoever works under them comes by every now and then (`keep`)."""

    def __init__(self, home: Home, leases: list[Lease], besides: Kept | None) -> None:
        self._home = home
        self._leases = leases
        self._besides = besides
        self._renewed = home.clock.monotonic()

    def keep(self) -> None:
        """Renews them in time. Raises Fenced where another took over."""
        if self._besides is not None:
            self._besides.keep()
        if self._home.clock.monotonic() - self._renewed >= RENEW_SECONDS:
            self.renew()

    def renew(self) -> None:
        """Renews them at once. Raises Fenced."""
        for lease in self._leases:
            self._home.leases.renew(lease)
        self._renewed = self._home.clock.monotonic()


@contextmanager
def held(home: Home, *names: str, besides: Kept | None = None) -> Iterator[Kept]:
    """Takes leases, all or none, beside those that are in hand. Raises Leased."""
    with ExitStack() as stack:
        leases = []
        for name in names:
            leases.append(home.leases.take(name))
            stack.callback(home.leases.release, leases[-1])
        yield Kept(home, leases, besides)
