"""Events, not prose: one JSON object a line, with an `action` and ids and counts, never a person or a token."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

_ERRORS = frozenset(
    {
        "run_failed", "alert_raised", "connector_fell_over", "delivery_failed", "monitoring_lost", "data_sync_failed",
        "answer_broke_off",
    }
)  # fmt: skip
_lock = threading.Lock()


def notice_to(stream: TextIO | None = None, **context: Any) -> Any:
    """A notice that writes lines as Cloud Logging reads them, each with this context."""

    def notice(action: str, **fields: Any) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(),
            "severity": "ERROR" if action in _ERRORS else "INFO",
            "action": action,
            **context,
            **fields,
        }
        with _lock:
            print(msgspec.json.encode(line).decode(), file=stream or sys.stderr, flush=True)

    return notice


def silent(action: str, **fields: Any) -> None:
    """Says nothing."""
