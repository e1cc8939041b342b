"""What a stream to an ad platform is made of: where its rows come from, where they go, and by which columns.

Every stream has the same keys of its own, whatever its name: `destination`, `from`, `key`, `settings`, `operation`,
`region`, `numbers` and `ignore` (`docs/tagless.md`). All that is wrong with them is told at once.

An event that was sent is never sent again, whatever a later version of its row says. A member of an audience is in it
or not, so what changed of one is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from functions.tagless_crm import columns
from functions.tagless_crm.people import Reading
from functions.tagless_crm.rows import Table, content_maker
from shared.declared.faults import Fault, Faults, shown, unknown
from shared.outcome import Outcome
from shared.record import content_hash
from shared.rules import Rules
from shared.tabular import FORMATS, identify

OPTIONS: Final[Mapping[str, Any]] = {
    "*": {
        "destination": Literal[
            "ga4", "data_manager_events", "data_manager_audience", "google_ads_conversions", "customer_match", "cm360"
        ],
        "from": dict[str, Any],
        "key": list[str],
        "settings": dict[str, Any],
        "operation": Literal["add", "remove"],
        "region": str,
        "numbers": list[str],
        "ignore": list[str],
    }
}


class Destination(NamedTuple):
    """A system and what is written there, its columns, and its settings with the type of each."""

    target: str
    write: str
    table: Callable[[Reading], Table]
    settings: Mapping[str, type]
    required: tuple[str, ...] = ()
    is_audience: bool = False


_DATA_MANAGER: Final = {"destinations": list, "encoding": str, "consent": dict}
_GOOGLE_ADS: Final = {"consent": dict, "login_customer_id": str, "api_version": str}
DESTINATIONS: Final[Mapping[str, Destination]] = {
    "ga4": Destination(
        "ga4",
        "events",
        columns.ga4,
        {
            "measurement_id": str,
            "firebase_app_id": str,
            "validate": bool,
            "analytics_360": bool,
            "numeric_client": bool,
            "repeat_purchases": bool,
        },
    ),
    "data_manager_events": Destination(
        "data_manager", "events", columns.data_manager_event, _DATA_MANAGER, ("destinations",)
    ),
    "data_manager_audience": Destination(
        "data_manager",
        "audience",
        columns.data_manager_member,
        {**_DATA_MANAGER, "terms_of_service": dict},
        ("destinations",),
        is_audience=True,
    ),
    "google_ads_conversions": Destination(
        "google_ads", "conversions", columns.click_conversion, {"conversion_action": str, **_GOOGLE_ADS}
    ),
    "customer_match": Destination(
        "google_ads",
        "customer_match",
        columns.user_list_member,
        {"user_list": str, **_GOOGLE_ADS},
        ("user_list",),
        is_audience=True,
    ),
    "cm360": Destination(
        "cm360",
        "conversions",
        columns.floodlight_conversion,
        {
            "floodlight_configuration_id": str,
            "floodlight_activity_id": str,
            "encryption_info": dict,
            "api_version": str,
        },
    ),
}
IN_DOUBT_AT_ONCE: Final = 100
"""Events of a batch to GA4, all of which a crash in the middle leaves unknown."""
_FILES: Final = ("path", "format", "delimiter")
SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "files": _FILES,
    "gcs": _FILES,
    "bigquery": ("table", "query", "cursor", "project", "location"),
}
_WORDS: Final = {str: "a text", bool: "true or false", list: "a list", dict: "a mapping"}


def rules(options: Mapping[str, Any]) -> Rules:
    """The rules of a stream by its own keys. Raises Faults."""
    source, settings = options.get("from") or {}, options.get("settings") or {}
    key: Sequence[str] = options.get("key") or ()
    if faults := [*_faults_of_source(source), *_faults_of_destination(options, settings), *_faults_of_key(key)]:
        raise Faults(faults)
    name, system = options["destination"], source["system"]
    destination, cursor = DESTINATIONS[name], source.get("cursor", "")
    reading = Reading(
        region=options.get("region", ""),
        in_base64=settings.get("encoding") == "BASE64",
        numbers=frozenset(options.get("numbers") or ()),
    )
    exempt = {column[:end] for column in (*key, cursor) for end in _ends(column)}
    return Rules(
        read="",
        write=destination.write,
        source=system,
        target=destination.target,
        identify=identify,
        to_target=content_maker(destination.table(reading), exempt, frozenset(options.get("ignore") or ())),
        polled=system == "bigquery" and not cursor,
        hold_back=None if system == "bigquery" else 0.0,
        once=None if destination.is_audience else Outcome.UNCHANGED,
        batch_size=IN_DOUBT_AT_ONCE if name == "ga4" else None,
        deletes=options.get("operation") == "remove",
        place=f"{destination.target} {content_hash(_audience(settings))}" if destination.is_audience else "",
        settings={
            **{name: each for name, each in source.items() if name != "system"},
            "key": list(key),
            "settings": dict(settings),
            **(settings if name == "ga4" else {}),
        },
    )


def _audience(settings: Mapping[str, Any]) -> list[str]:
    """The audience that the settings mean, however they write it."""
    named = [str(settings.get("user_list") or "").rpartition("/")[2]]
    for each in settings.get("destinations") or ():
        plain = {str(name).replace("_", "").lower(): value for name, value in each.items()}
        account = plain.get("operatingaccount") or {}
        ids = {str(name).replace("_", "").lower(): value for name, value in account.items()}
        named.append(f"{ids.get('accountid')} {plain.get('productdestinationid')}")
    return sorted(named)


def _ends(column: str) -> list[int]:
    """Where a name ends, and where the names of the objects end that it leads into."""
    return [*(place for place, character in enumerate(column) if character == "."), len(column)]


def _faults_of_source(source: Mapping[str, Any]) -> list[Fault]:
    system = source.get("system")
    if system is None:
        cure = "add from: {system: files, path: ...}"
        return [Fault("from.system", "nothing", f"one of {', '.join(SOURCES)}", cure)]
    if not isinstance(system, str) or system not in SOURCES:
        return [unknown("system", str(system), list(SOURCES)).at("from.system")]
    faults = [
        fault
        for name, value in source.items()
        if name != "system" and (fault := _fault_of_key(name, value, system)) is not None
    ]
    return faults or (_faults_of_query(source) if system == "bigquery" else _faults_of_files(source, system))


def _fault_of_key(name: str, value: Any, system: str) -> Fault | None:
    known = SOURCES[system]
    if name not in known:
        owner = next((each for each, names in SOURCES.items() if name in names), "")
        if not owner:
            return unknown("key", name, known).at(f"from.{name}")
        cure = f"remove it, or write system: {owner}"
        return Fault(f"from.{name}", f"key `{name}`", f"one of {', '.join(known)}, which are those of {system}", cure)
    if not isinstance(value, str) or not value:
        return Fault(f"from.{name}", shown(value), "a text", "write a text, in quotes if need be")
    return None


def _faults_of_files(source: Mapping[str, Any], system: str) -> list[Fault]:
    path, form = source.get("path", ""), source.get("format", FORMATS[0])
    faults = []
    if not path:
        faults.append(Fault("from.path", "nothing", "a file, a folder or a pattern", "add path to from"))
    elif path.startswith("gs://") != (system == "gcs"):
        wanted, other = ("gs://bucket/...", "files") if system == "gcs" else ("a path of this machine", "gcs")
        cure = f"write {wanted}, or system: {other}"
        faults.append(Fault("from.path", shown(path), f"a path of {system}", cure))
    if form.removesuffix(".gz") not in FORMATS:
        faults.append(unknown("format", form, FORMATS).at("from.format"))
    return faults


def _faults_of_query(source: Mapping[str, Any]) -> list[Fault]:
    given = [name for name in ("table", "query") if name in source]
    if len(given) == 1:
        return []
    return [Fault("from", " and ".join(given) or "neither table nor query", "table or query", "write one of them")]


def _faults_of_destination(options: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Fault]:
    name = options.get("destination")
    if name is None:
        expected = f"one of {', '.join(DESTINATIONS)}"
        return [Fault("destination", "nothing", expected, "add a destination, such as destination: ga4")]
    destination = DESTINATIONS[name]
    faults = list(_faults_of_settings(settings, destination))
    if options.get("operation") == "remove" and not destination.is_audience:
        cure = "leave it out: only members leave an audience"
        faults.append(Fault("operation", "`remove`", f"add, which is all that {name} can", cure))
    if region := options.get("region"):
        from phonenumbers import SUPPORTED_REGIONS  # slow to load, and many a stream has no phone numbers

        if region not in SUPPORTED_REGIONS:
            faults.append(Fault("region", shown(region), "the two letters of a country", "write for example BR"))
    for each in options.get("numbers") or ():
        if name != "ga4" or not each.startswith(("params.", "user_properties.")):
            cure = "write a column such as params.margin or user_properties.score.value"
            cure = cure if name == "ga4" else "remove it: only GA4 leaves the types of its parameters open"
            faults.append(Fault("numbers", shown(each), "a parameter or user property of GA4", cure))
    return faults


def _faults_of_settings(settings: Mapping[str, Any], destination: Destination) -> list[Fault]:
    known = destination.settings
    faults = [unknown("key", name, list(known)).at(f"settings.{name}") for name in settings if name not in known]
    for name, kind in known.items():
        value = settings.get(name)
        if name not in settings:
            if name in destination.required:
                faults.append(Fault(f"settings.{name}", "nothing", _WORDS[kind], f"add {name} to settings"))
        elif not isinstance(value, kind) and not (kind is str and type(value) is int):
            faults.append(Fault(f"settings.{name}", shown(value), _WORDS[kind], f"write {_WORDS[kind]}"))
    return faults


def _faults_of_key(key: Sequence[str]) -> list[Fault]:
    if len(set(key)) == len(key) and all(each.strip() for each in key):
        return []
    return [Fault("key", shown(list(key)), "different columns", "name each column once, as the header has it")]


STREAMS: Final = {"*": rules}
