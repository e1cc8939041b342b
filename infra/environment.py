"""Where systems are, their credentials, the backend and the home of the state, as environment variables give them.

The environment is handed in, never looked up. Everything missing or wrong is named at once, with what to export; a
secret, or a refused address that may carry one, is never shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from infra.mistakes import nearest, shown
from shared.errors import ConfigError

Backend = Literal["embedded", "gcp"]
OWN: Final = frozenset({"files", "store", "uploads", "exports"})
"""A folder of this machine, and what the hub keeps itself: systems with neither address nor secrets."""


class SystemVariables(msgspec.Struct, frozen=True):
    """The variables of one system. Without a `default_url` (each customer has an own host) the URL must be set."""

    url_variable: str
    default_url: str | None
    secrets: tuple[str, ...] = ()
    calls_per_minute: int = 0
    """What the vendor allows an account, 0 where it says nothing."""
    optional: tuple[str, ...] = ()
    """Handed on where they are set, and never missing."""
    family: str = ""
    """How further ones begin that are handed on where they are set, and named by whoever needs them."""


_GOOGLE: Final = ("GOOGLE_OAUTH_ACCESS_TOKEN",)
_PROJECT: Final = "GOOGLE_CLOUD_PROJECT"
SYSTEM_VARIABLES: Final[Mapping[str, SystemVariables]] = {
    "ploomes": SystemVariables("PLOOMES_URL", "https://api2.ploomes.com", ("PLOOMES_USER_KEY",), calls_per_minute=120),
    "milvus": SystemVariables("MILVUS_URL", "https://apiintegracao.milvus.com.br/api", ("MILVUS_TOKEN",)),
    # In spite of its name the vendor's only published host, and its production.
    "okki": SystemVariables("OKKI_URL", "https://api-sandbox.xiaoman.cn", ("OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET")),
    "qeasy": SystemVariables(
        "QEASY_URL",
        "https://api.qeasy.cloud",
        ("QEASY_APP_KEY", "QEASY_APP_SECRET"),
        calls_per_minute=60,
        optional=("QEASY_SCHEME",),
    ),
    # A data sync has a token of its own, or none.
    "prisma": SystemVariables("PRISMA_URL", None, optional=("PRISMA_TOKEN",), family="PRISMA_TOKEN_"),
    # An app stream has no measurement id.
    "ga4": SystemVariables(
        "GA4_URL", "https://www.google-analytics.com", ("GA4_API_SECRET",), optional=("GA4_MEASUREMENT_ID",)
    ),
    "data_manager": SystemVariables(
        "DATA_MANAGER_URL", "https://datamanager.googleapis.com", calls_per_minute=300, optional=_GOOGLE
    ),
    "google_ads": SystemVariables(
        "GOOGLE_ADS_URL",
        "https://googleads.googleapis.com",
        ("GOOGLE_ADS_DEVELOPER_TOKEN", "GOOGLE_ADS_CUSTOMER_ID"),
        optional=(*_GOOGLE, "GOOGLE_ADS_LOGIN_CUSTOMER_ID"),
    ),
    "cm360": SystemVariables(
        "CM360_URL",
        "https://dfareporting.googleapis.com",
        ("CM360_PROFILE_ID",),
        calls_per_minute=60,
        optional=_GOOGLE,
    ),
    "gcs": SystemVariables("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com", optional=(*_GOOGLE, _PROJECT)),
    "bigquery": SystemVariables("BIGQUERY_URL", "https://bigquery.googleapis.com", optional=(*_GOOGLE, _PROJECT)),
}


class SystemSettings(msgspec.Struct, frozen=True):
    """Where a system is, without a slash at the end, and its secrets by the name of their variable."""

    url: str
    secrets: dict[str, str]

    # Both kinds of repr end up in logs and tracebacks, so they name the secrets only.
    def __repr__(self) -> str:
        return f"SystemSettings(url={self.url!r}, secrets={list(self.secrets)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("url", self.url), ("secrets", list(self.secrets))]


def system_settings(system: str, environ: Mapping[str, str]) -> SystemSettings:
    """URL and secrets of a system. Raises ConfigError that names everything missing, and a wrong URL, at once.

    An empty variable counts as missing; blanks around a value are not part of it (mounted secrets often end in a
    newline).
    """
    if system in OWN:
        return SystemSettings("", {})
    if system not in SYSTEM_VARIABLES:
        near = nearest(system, SYSTEM_VARIABLES)
        raise ConfigError(
            f"{system} is no system with settings: {', '.join(SYSTEM_VARIABLES)}",
            cure=f"write {near}" if near else "write one of them",
        )
    variables = SYSTEM_VARIABLES[system]
    missing = list(_missing(variables, environ))
    url = _value(variables.url_variable, environ) or variables.default_url or ""
    fault = _url_fault(url, variables.default_url) if url else ""
    if missing or fault:
        messages = [f"missing: {', '.join(missing)}"] if missing else []
        cures = [f"export {name}=..." for name in missing]
        if fault:
            messages.append(f"{variables.url_variable} {fault}")
            cures.append(f"export {variables.url_variable}={variables.default_url or 'https://<host>'}")
        raise ConfigError(f"{system}: {'; '.join(messages)}", cure="; ".join(cures))
    relatives = sorted(name for name in environ if variables.family and name.startswith(variables.family))
    names = (*variables.secrets, *(name for name in (*variables.optional, *relatives) if _value(name, environ)))
    return SystemSettings(url.rstrip("/"), {name: _value(name, environ) for name in names})


def missing_secrets(systems: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """The variables that must be set and are not, over all these systems, each once. Some need none."""
    known = [SYSTEM_VARIABLES[system] for system in systems if system in SYSTEM_VARIABLES]
    return list(dict.fromkeys(name for variables in known for name in _missing(variables, environ)))


def path_of(text: str) -> Path:
    """A path as people write it. The home of nobody stays as it was written, and is not found."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (the other one raises RuntimeError)


def state_home(environ: Mapping[str, str], root: Path) -> Path:
    """Where the embedded home keeps its state: `WAYBILL_HOME`, else `.waybill` in `root`."""
    home = _value("WAYBILL_HOME", environ)
    return path_of(home) if home else root / ".waybill"


def project(environ: Mapping[str, str]) -> str:
    """The Google Cloud project, by the usual variables. Raises ConfigError where none is set."""
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "GCP_PROJECT"):
        if found := _value(name, environ):
            return found
    raise ConfigError("no Google Cloud project is named", cure="export GOOGLE_CLOUD_PROJECT=...")


def backend(environ: Mapping[str, str]) -> Backend:
    """`WAYBILL_BACKEND`. Raises ConfigError for a word that is neither."""
    match _value("WAYBILL_BACKEND", environ):
        case "" | "embedded":
            return "embedded"
        case "gcp":
            return "gcp"
        case other:
            raise ConfigError(
                f"WAYBILL_BACKEND: found {shown(other)}, expected embedded or gcp",
                cure="export WAYBILL_BACKEND=embedded",
            )


def _value(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name, "").strip()


def _missing(variables: SystemVariables, environ: Mapping[str, str]) -> Iterator[str]:
    needed = variables.secrets if variables.default_url else (variables.url_variable, *variables.secrets)
    return (name for name in needed if not _value(name, environ))


def _url_fault(url: str, default_url: str | None) -> str:
    """What is wrong with a system's URL, without repeating it, or nothing."""
    fault = address_fault(url)
    if fault:
        return fault
    if "?" in url:
        return "has a query"
    path, ending = urlsplit(url).path.rstrip("/"), urlsplit(default_url or "").path
    if ending:
        return "" if path.endswith(ending) else f"does not end in {ending}"
    return "has a path, and holds scheme and host only" if path else ""


def address_fault(url: str) -> str:
    """What makes an address unfit to be called, or nothing. A query and a path are the caller's business."""
    if re.search(r"[^!-~]|\\", url):
        return "holds a character that no URL has"
    try:
        parts = urlsplit(url)
        port_is_zero = parts.port == 0
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("http", "https"):
        return "starts with neither https:// nor http://"
    if not parts.hostname or port_is_zero:
        return "names no host"
    if "@" in parts.netloc:
        return "carries credentials"
    if "#" in url:
        return "has a fragment"
    return "is http to a host that is not this machine" if parts.scheme == "http" and not _is_loopback(parts) else ""


def _is_loopback(parts: SplitResult) -> bool:
    import ipaddress  # only http needs it, and https is the rule

    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"
