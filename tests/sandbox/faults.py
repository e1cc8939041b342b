"""The switches that make a fake system misbehave, and the text they are set with.

A text is a comma list such as `429=2%,milvus.drop=5%,retry_after=1`; a name without a system is meant for all
of them. A switch that a system has no use for (short_pages at Milvus) is without effect there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch: what its value is (share, seconds, count or flag) and what it does."""

    kind: str
    meaning: str


SWITCHES: dict[str, Switch] = {
    "429": Switch("share", "requests refused as too many"),
    "503": Switch("share", "requests answered 503"),
    "502": Switch("share", "requests answered 502"),
    "500": Switch("share", "requests answered 500"),
    "retry_after": Switch("seconds", "every 429 carries Retry-After with these seconds"),
    "retry_after_date": Switch("seconds", "every 429 carries Retry-After as a date so many seconds ahead"),
    "slow": Switch("seconds", "requests wait so long before anything is done"),
    "slow_share": Switch("share", "requests that are slow; all of them if not given"),
    "drop": Switch("share", "writes that are done and whose connection is then closed without an answer"),
    "drop_before": Switch("share", "requests whose connection is closed before anything is done"),
    "short_pages": Switch("share", "Ploomes pages with fewer rows than asked for although more follow"),
    "cap": Switch("count", "at most so many rows of a Ploomes set in all for one filter, without a sign of it"),
    "wrong_total": Switch("count", "@odata.count of a Ploomes set is too high by so many"),
    "churn": Switch("share", "Ploomes pages after which a row of the window is touched or vanishes"),
    "late": Switch("seconds", "a version of a Ploomes row is visible only so long after its LastUpdateDate"),
    "ties": Switch("count", "rows of a Ploomes set, ordered by Id, share one LastUpdateDate in blocks of so many"),
    "not_json": Switch("share", "successful reads whose body is a web page"),
    "no_value": Switch("share", "successful reads whose JSON object is empty"),
    "bad_rows": Switch("count", "so many rows of each Ploomes set are shown without Id or with an unparseable date"),
    "reject": Switch("count", "Milvus refuses each document whose crc32 is divisible by this"),
    "client_cap": Switch("count", "cliente/busca of Milvus is cut at so many instead of 1000"),
    "prefix_search": Switch("flag", "nome_fantasia of cliente/busca finds names only by their beginning"),
    "no_name_search": Switch("flag", "nome_fantasia of cliente/busca is ignored"),
    "no_expires_in": Switch("flag", "OKKI gives tokens without saying how long they live"),
    "no_user_scope": Switch("flag", "OKKI gives tokens without the scope user, whatever was asked for"),
    "token_life": Switch("seconds", "tokens of OKKI and Qeasy end so soon, whatever they say"),
    "token_uses": Switch("count", "a token of OKKI and Qeasy is revoked after so many calls"),
    "denied_body": Switch("flag", "OKKI and Qeasy refuse a token with HTTP 200 and say so in the body only"),
    "code_zero": Switch("flag", "the envelope of OKKI says 0 for success instead of 200"),
    "envelope_errors": Switch("share", "OKKI calls answered HTTP 200 with another code in the envelope"),
    "bad_store": Switch("count", "Qeasy stores no row whose id's crc32 is divisible by this, and only counts them"),
    "bad_batch": Switch("count", "Qeasy refuses a whole call for one row whose id's crc32 is divisible by this"),
    "wrong_counts": Switch("share", "Qeasy calls of store whose counts are one row too low"),
    "unauthorized": Switch("count", "after so many requests every call is answered 401"),
    "down": Switch("flag", "every request is answered 503"),
}


class Faults(dict[str, float]):
    """The switches that are set; reading one that is not set gives 0, an unknown one is a KeyError."""

    def __missing__(self, name: str) -> float:
        if name not in SWITCHES:
            raise KeyError(name)
        return 0.0


def parse(text: str, systems: Iterable[str]) -> dict[str, Faults]:
    """The faults of each of the systems named; ValueError says what is wrong and which switches there are."""
    faults = {system: Faults() for system in systems}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.replace(":", "=", 1).partition("=")
        name, value = name.strip(), value.strip()
        prefix, dot, short = name.partition(".")
        if dot and prefix not in faults:
            raise ValueError(f"no system is called {prefix!r} here; there is {', '.join(faults)}")
        name = short if dot else name
        if name not in SWITCHES:
            nearest = sorted(SWITCHES, key=lambda known: -SequenceMatcher(None, name, known).ratio())
            raise ValueError(f"no fault switch is called {name!r}; known are {', '.join(nearest)}")
        amount = _amount(name, value)
        for system in [prefix] if dot else faults:
            faults[system][name] = amount
    return faults


def _amount(name: str, text: str) -> float:
    kind = SWITCHES[name].kind
    if kind == "flag" and text.lower() in ("", "1", "on", "true", "yes"):
        return 1.0
    try:
        number = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text.removesuffix("s"))
    except ValueError:
        raise ValueError(f"{name} needs a {kind}, not {text!r}") from None
    fits = {
        "share": 0 <= number <= 1,
        "seconds": 0 <= number < float("inf") and not text.endswith("%"),
        "count": number >= 0 and number.is_integer() and not text.endswith("%"),
        "flag": number == 0,
    }
    if not fits[kind]:
        raise ValueError(f"{name} needs a {kind}, not {text!r} (a share is between 0 and 1 or 0% and 100%)")
    return number
