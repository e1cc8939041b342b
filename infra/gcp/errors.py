"""Google's errors in the project's own words.

They are sorted by what to do next: what only a human can mend is a ConfigError, everything else a StoreUnavailable,
after which nothing may be assumed of what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shared.errors import ConfigError, StoreUnavailable, WaybillError


class Conflict(StoreUnavailable):
    """What a write was based on has changed; nothing of it was written."""


MISSING: Final = "apply the Terraform configuration, or start `./waybill serve` where there are emulators"
REFUSED: Final = "check the credentials of this process and the roles of its service account"
UNFIT: Final = "compare indexes and limits with what is deployed; apply the Terraform configuration"


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Whatever a Google library raises inside leaves as a WaybillError; `what` says what was being done."""
    try:
        yield
    except WaybillError:
        raise
    except Exception as error:
        own = translate(error, what)
        if own is None:
            raise
        raise own from error


def translate(error: Exception, what: str) -> WaybillError | None:
    """The project's error for one of Google's, None for one that is none of theirs."""
    import grpc
    from google.api_core import exceptions as core
    from google.auth import exceptions as auth

    if isinstance(error, core.RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    text = f"{what}: {_short(error)}"
    match error:
        case core.Aborted():
            return StoreUnavailable(text)
        case core.FailedPrecondition() if "index" in str(error):
            return ConfigError(text, cure=UNFIT)
        case core.FailedPrecondition() | core.Conflict() | core.PreconditionFailed():
            return Conflict(text)
        case core.NotFound():
            return ConfigError(text, cure=MISSING)
        case core.Unauthorized() | core.Forbidden() | auth.DefaultCredentialsError():
            return ConfigError(text, cure=REFUSED)
        case core.BadRequest() | core.MethodNotImplemented() | core.MethodNotAllowed() | core.LengthRequired():
            return ConfigError(text, cure=UNFIT)
        case core.GoogleAPIError() | grpc.RpcError() | auth.GoogleAuthError() | OSError():
            return StoreUnavailable(text)
    if type(error).__module__.startswith(("google.resumable_media.", "google.cloud.storage.", "requests.")):
        return StoreUnavailable(text)
    return None


def is_missing(error: WaybillError) -> bool:
    """Whether what was asked for was never made, or was removed."""
    from google.api_core.exceptions import NotFound

    return isinstance(error.__cause__, NotFound)


def _short(error: Exception) -> str:
    """The first line: what follows may quote a document."""
    lines = str(getattr(error, "message", None) or error).splitlines()
    return f"{type(error).__name__} {lines[0][:200] if lines else ''}".strip()
