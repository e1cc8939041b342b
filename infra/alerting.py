"""Who is told when something is wrong for a while: one notice when an alert goes up, one when it comes down.

A notice is a line in the log, which Cloud Monitoring counts, and a POST to the address of `alerts.webhook` or else of
WAYBILL_ALERT_WEBHOOK. The change is written down before anybody is told, so a notice is never given twice; one that
could not be delivered stands in the log as `alert_untold`, and the next look at the stream tells it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from infra.environment import address_fault
from infra.wiring import Hub
from shared.errors import ConfigError, StoreUnavailable, WaybillError
from shared.ports import Notice
from shared.retry import RetryPolicy
from shared.stream import Stream
from shared.sweep import AlertChange, raise_alerts

VARIABLE: Final = "WAYBILL_ALERT_WEBHOOK"
SILENT_SECONDS: Final = 600.0
"""A target that answers nobody for so long is worth a notice."""
_TRIES: Final = RetryPolicy(attempts=3, wait=1.0)


def look_after(hub: Hub, stream: Stream, notice: Notice) -> None:
    """Raises and clears the alerts of one stream."""
    after = hub.integration(stream.integration).alerts.consecutive_failures
    raise_alerts(stream, hub.home, after, teller(hub, stream.integration, notice))


def teller(hub: Hub, integration: str, notice: Notice) -> Callable[[AlertChange], None]:
    """What tells people of a change of an integration's alerts."""

    def tell(change: AlertChange) -> None:
        notice("alert_raised" if change.raised else "alert_cleared", alert=change.name, text=change.text)
        address = hub.integration(integration).alerts.webhook or hub.environ.get(VARIABLE, "").strip()
        if not address:
            return
        try:
            post(hub, address, change)
        except WaybillError as error:
            notice("alert_untold", alert=change.name, error=type(error).__name__)
            # So that the next look tells it.
            hub.home.alerts.change(change.name, not change.raised, change.text)

    return tell


class TargetWatch:
    """Tells people that a target refuses the credentials, or answers nobody for a while, and when that is over.

    What a scheduled run read is delivered after it has ended well, so no failed run says it. Each process notes what it
    sees; that an alert is up already is known to the store.
    """

    def __init__(self, hub: Hub, integration: str, notice: Notice) -> None:
        self.hub = hub
        self.tell = teller(hub, integration, notice)
        self._silent_since: dict[str, float] = {}
        self._well: set[str] = set()

    def refused(self, stream: Stream) -> None:
        self._change(stream, "credentials", raised=True, text="the target refuses the credentials")

    def silent(self, stream: Stream) -> None:
        """The target answered nobody."""
        now = self.hub.clock.monotonic()
        since = self._silent_since.setdefault(stream.name, now)
        if now - since >= SILENT_SECONDS:
            self._change(stream, "unreachable", raised=True, text="the target answers nobody")

    def answered(self, stream: Stream) -> None:
        self._silent_since.pop(stream.name, None)
        if stream.name not in self._well:
            for alert in ("credentials", "unreachable"):
                self._change(stream, alert, raised=False, text="the target answers again")
            self._well.add(stream.name)

    def _change(self, stream: Stream, alert: str, *, raised: bool, text: str) -> None:
        name = f"{stream.integration}.{stream.name}.{alert}"
        self._well.discard(stream.name)
        try:
            if self.hub.home.alerts.change(name, raised, text):
                self.tell(AlertChange(name, raised, text))
        except StoreUnavailable:
            # The next delivery meets the same target.
            return


def post(hub: Hub, address: str, change: AlertChange) -> None:
    """Raises WaybillError where nobody took it. `text` alone makes a message in the usual chats."""
    from infra.http import Http  # only who has something to tell needs it
    from infra.pace import Pace

    fault = address_fault(address)
    if fault:
        raise ConfigError(f"the address of the webhook {fault}", cure="write it as its owner shows it")
    base, question, query = address.partition("?")
    clock = hub.clock
    http = Http(base, {}, Pace(None, clock), _TRIES, clock, timeout=(5.0, 10.0), secrets=(address,))
    state = "raised" if change.raised else "cleared"
    body = {"alert": change.name, "state": state, "text": f"waybill: {change.name} {state}: {change.text}"}
    try:
        answer = http.request("POST", question + query, json=body, repeatable=True)
    finally:
        http.close()
    if answer.status >= 300:
        raise WaybillError(f"the webhook answered {answer.status}")
