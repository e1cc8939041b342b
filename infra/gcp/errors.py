"""Google's errors in the project's own words.

They are sorted by what to do next: what only a human can mend is a ConfigError, everything else a StoreUnavailable,
after which nothing may be assumed of what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import ConfigError, StoreUnavailable, WaybillError


class Conflict(StoreUnavailable):
    """What a write was based on has changed; nothing of it was written."""


class Missing(ConfigError):
    """What should be there was never made, or was removed."""

    cure = "apply the Terraform configuration, or start `./waybill serve` where there are emulators"


class Refused(ConfigError):
    """Google Cloud does not let this process do that."""

    cure = "check the credentials of this process and the roles of its service account"


class Unfit(ConfigError):
    """A request that Google Cloud will never take."""

    cure = "compare indexes and limits with what is deployed; apply the Terraform configuration"


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
            return Unfit(text)
        case core.FailedPrecondition() | core.Conflict() | core.PreconditionFailed():
            return Conflict(text)
        case core.NotFound():
            return Missing(text)
        case core.Unauthorized() | core.Forbidden() | auth.DefaultCredentialsError():
            return Refused(text)
        case core.BadRequest() | core.MethodNotImplemented() | core.MethodNotAllowed() | core.LengthRequired():
            return Unfit(text)
        case core.GoogleAPIError() | grpc.RpcError() | auth.GoogleAuthError() | OSError():
            return StoreUnavailable(text)
    if type(error).__module__.startswith(("google.resumable_media.", "google.cloud.storage.", "requests.")):
        return StoreUnavailable(text)
    return None


def _short(error: Exception) -> str:
    """The first line: what follows may quote a document."""
    lines = str(getattr(error, "message", None) or error).splitlines()
    return f"{type(error).__name__} {lines[0][:200] if lines else ''}".strip()
