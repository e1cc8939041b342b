"""Tokens of data syncs, for the people who hand them out."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from infra.config import StreamConfig
from infra.report import stamp
from infra.wiring import Hub
from shared.errors import ConfigError
from shared.tokens import ID_BYTES, SALT_BYTES, SECRET_BYTES, Token, made_of


def create(hub: Hub, data_sync: str) -> dict[str, Any]:
    """A token of a data sync: the only time that it is said. Raises ConfigError for what is no data sync."""
    integration, stream = find_data_sync(hub, data_sync)
    random = secrets.token_bytes(ID_BYTES + SECRET_BYTES + SALT_BYTES)
    text, token = made_of(random, integration, stream.name, hub.clock.now())
    hub.home.tokens.add(token)
    notes = [] if stream.options.get("authentication", True) else [_open(data_sync)]
    return {"data_sync": data_sync, "id": token.id, "token": text, "notes": notes}


def listing(hub: Hub, data_sync: str) -> dict[str, Any]:
    """The tokens of a data sync without themselves, oldest first. Raises ConfigError."""
    integration, stream = find_data_sync(hub, data_sync)
    found = hub.home.tokens.of(integration, stream.name)
    open_to_all = not (found and stream.options.get("authentication", True))
    notes = [f"{data_sync} is open to everybody"] if open_to_all else []
    return {"data_sync": data_sync, "tokens": [_shown(token) for token in found], "notes": notes}


def revoke(hub: Hub, data_sync: str, token_id: str) -> dict[str, Any]:
    """Ends a token. Raises ConfigError where there is no such one, or it was revoked before."""
    integration, stream = find_data_sync(hub, data_sync)
    if not hub.home.tokens.revoke(integration, stream.name, token_id, hub.clock.now()):
        raise ConfigError(
            f"{data_sync} has no valid token {token_id!r}", cure=f"./waybill token list {data_sync} names them"
        )
    return {"data_sync": data_sync, "id": token_id, "revoked": True}


def warnings(hub: Hub, integrations: Sequence[str]) -> list[str]:
    """The data syncs of these integrations that anybody can call who reaches them. Whether one in a project has a token
    is not looked at: nothing is called."""
    known = [(name, stream) for name, stream in _data_syncs(hub) if name in integrations]
    found = [_open(stream.name) for _, stream in known if not stream.options.get("authentication", True)]
    if not hub.on_google_cloud:
        asking = [(name, stream) for name, stream in known if stream.options.get("authentication", True)]
        kept = (hub.state_folder / "state.db").exists()
        bare = [stream.name for name, stream in asking if not (kept and hub.home.tokens.of(name, stream.name))]
        if bare:
            names = ", ".join(bare)
            found.append(f"open to everybody, since no token was made: {names}; ./waybill token create {bare[0]}")
    return found


def find_data_sync(hub: Hub, data_sync: str) -> tuple[str, StreamConfig]:
    """The integration and the stream of a data sync. Raises ConfigError that lists the known ones."""
    known = _data_syncs(hub)
    for integration, stream in known:
        if stream.name == data_sync:
            return integration, stream
    names = ", ".join(stream.name for _, stream in known) or "none"
    raise ConfigError(f"no data sync is called {data_sync!r}: there are {names}", cure="name one of them")


def _data_syncs(hub: Hub) -> list[tuple[str, StreamConfig]]:
    found = []
    for integration in hub.integrations.values():
        launched = {stream.name for stream in hub.sound_streams(integration, disabled=True)[0] if stream.rules.launched}
        found += [(integration.name, stream) for name, stream in integration.streams.items() if name in launched]
    return found


def _open(data_sync: str) -> str:
    return f"data sync {data_sync} is open to everybody: its file says `authentication: false`"


def _shown(token: Token) -> dict[str, Any]:
    state = "valid" if token.revoked_at is None else "revoked"
    return {"id": token.id, "state": state, "made_at": stamp(token.made_at), "revoked_at": stamp(token.revoked_at)}
