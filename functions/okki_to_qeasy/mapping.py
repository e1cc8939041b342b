"""What an OKKI user is as a row of a Qeasy scheme.

The metadata of the two ends says which list is read with which parameters, and where rows go; the row itself is
declared under `fields` of integration.yaml, else it is `row` here. A user's identity is the user_id, to which
everything else in OKKI refers. A nickname is not unique; where it is to be the key all the same, those who share one
are invalid, so that two people never become one.

Facts: vendor documentation of the user list, and of Qeasy's scheme metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from shared.declared.conditions import Condition, compile_conditions
from shared.declared.fields import FieldRule, compile_fields
from shared.declared.metadata import Metadata
from shared.errors import NO_IDENTITY, ConfigError, RecordError
from shared.mapping import filled, line
from shared.outcome import Outcome
from shared.rules import Rules

SHANGHAI: Final = "Asia/Shanghai"
NORMAL: Final = "1"
READS: Final = {"/v1/user/list": "users"}
WRITES: Final = {"store": "store", "写入空操作": "nothing"}
ID_FIELD: Final = "id"
DAY: Final = 86_400.0
TIMES: Final = frozenset({"timestamp", "timestamp_ms", "date", "datetime"})

OPTIONS: Final[Mapping[str, Any]] = {
    "users": {
        "metadata": Metadata,
        "key": Literal["user_id", "nickname"],
        "scheme": str,
        "zone": ZoneInfo,
        "inactive": bool,
        "fields": dict[str, str | FieldRule],
        "only": list[Condition],
    }
}


def users(options: Mapping[str, Any]) -> Rules:
    """The rules of the stream of users. Raises ConfigError for metadata that means something else."""
    metadata: Metadata = options.get("metadata") or Metadata()
    zone = options.get("zone") or ZoneInfo(SHANGHAI)
    key: str = options.get("key", "user_id")
    source, target = metadata.source, metadata.target
    remedy = None if source is None else source.omission_remedy
    if source is not None and source.beat_flat:
        raise ConfigError("metadata.source: beatFlat makes several rows of one user", cure="remove it: a user is a row")
    read = _meant(READS, "source", source.api if source is not None else "/v1/user/list")
    write = _meant(WRITES, "target", target.api if target is not None else "store")
    for end, scheme, method in (("source", source, "GET"), ("target", target, "POST")):
        if scheme is not None and scheme.method.upper() not in ("", method):
            raise ConfigError(f"metadata.{end}: method is {scheme.method}", cure=f"write {method}")
    fields = options.get("fields")
    make = compile_fields({name: _in_zone(rule, zone) for name, rule in fields.items()}) if fields else row
    id_field = target.id if target is not None and target.id else ID_FIELD
    # What the scheme does with a row whose id it holds; without metadata rows are overwritten.
    skips = target is not None and target.id_check

    def to_target(user: dict[str, Any]) -> dict[str, Any]:
        reshaped = user if source is None else source.rows(user, zone)[0]
        return {**make(reshaped), id_field: identify(key, user)}

    return Rules(
        read=read,
        write=write,
        identify=partial(identify, key),
        to_target=to_target,
        filters=(
            *(() if options.get("inactive") else (("inactive", is_inactive),)),
            *compile_conditions(options.get("only") or []),
        ),
        polled=True,
        once=Outcome.UNCHANGED if skips else None,
        settings={"id_field": id_field, "id_check": skips},
        request=None if source is None else partial(_request, source, zone),
        catch_up=None if remedy is None else (remedy.crontab, max(remedy.days, 1) * DAY),
    )


def identify(key: str, user: dict[str, Any]) -> str:
    """The user's id, or nickname where that is the key. Raises RecordError."""
    found = line(user, key)
    if not found:
        raise RecordError(f"there is no {key}", field=key, number=NO_IDENTITY)
    return found


def is_inactive(user: dict[str, Any]) -> bool:
    """Frozen or deleted. The flag is text in examples, and a number in the page's own schema."""
    return str(user.get("enable_flag", NORMAL)) != NORMAL


def row(user: dict[str, Any]) -> dict[str, Any]:
    """A row where no `fields` are declared. Department 0 is the root, and a department like any other."""
    department = user.get("department") or {}
    if type(department) is not dict:
        raise RecordError("department is no object", field="department")
    number = user.get("department_id")
    return filled(
        name=line(user, "full_name") or line(user, "nickname"),
        nickname=line(user, "nickname"),
        email=line(user, "email"),
        dept_id="" if number is None else str(number),
        department_name=line(department, "name"),
    )


def _in_zone(rule: str | FieldRule, zone: ZoneInfo) -> str | FieldRule:
    """A rule about time without a zone of its own means the stream's."""
    if isinstance(rule, FieldRule) and rule.as_ in TIMES and rule.zone is None:
        return msgspec.structs.replace(rule, zone=zone.key)
    return rule


def _request(
    source: Any, zone: ZoneInfo, last_sync: datetime | None, now: datetime, catches_up: bool
) -> Mapping[str, Any]:
    from shared.declared.templates import Moments  # slow to load, and only a run needs it

    asked: Mapping[str, Any] = source.parameters(Moments(last_sync, now, zone), remedy=catches_up)
    return asked


def _meant(known: Mapping[str, str], end: str, api: str) -> str:
    if api not in known:
        raise ConfigError(f"metadata.{end}: api is {api!r}", cure=f"write one of {', '.join(known)}")
    return known[api]


STREAMS: Final = {"users": users}
