"""A fake of GA4's Measurement Protocol: it takes nearly everything with 204, and keeps what the real one would.

As documented, /mp/collect says nothing of what it leaves out: a call with a wrong secret or stream, a body that is
none, an event with a reserved name, a parameter beyond a limit. `ignored` counts those. A body of 130 kB is refused
with 413. /debug/mp/collect looks at the payload and at no key, answers with `validationMessages` and keeps nothing. Not
known of the real one and chosen here: other paths are 404, events after the twenty-fifth are left out, and the texts of
messages.
"""

import random
import string
from collections import Counter
from typing import Any, ClassVar

import msgspec

from tests.sandbox.system import Answer, Request, Row, Setup, System, answer

COLLECT = "/mp/collect"
DEBUG = "/debug/mp/collect"
BODY = 130_000
HOURS_72 = 72 * 3600 * 1_000_000
RESERVED = {
    "ad_click", "app_remove", "app_update", "error", "first_open", "first_visit", "notification_open", "os_update",
    "session_start", "user_engagement",
}  # fmt: skip
PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
LONG = {"page_location": 1000, "page_referrer": 420, "page_title": 300}
Message = tuple[str, str, str]


class Ga4(System):
    """A property with one web stream. `events` holds what was collected, each event with what its request says of all
    of them; `taken` how often each came, `same_purchases` how many purchases a report would not count again."""

    name: ClassVar[str] = "ga4"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        chance = random.Random(f"{setup.seed} ga4")
        self.measurement_id = "G-" + "".join(chance.choices(string.ascii_uppercase + string.digits, k=10))
        self.api_secret = "".join(chance.choices(string.ascii_letters + string.digits, k=22))
        self.firebase_app_id = f"1:{chance.randrange(10**11)}:android:{chance.getrandbits(64):016x}"
        self.events: list[Row] = []
        self.ignored: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.same_purchases = self.validated = 0
        self.largest_body = self.largest_request = 0
        self._purchases: set[str] = set()

    def environment(self, url: str) -> dict[str, str]:
        return {"GA4_URL": url, "GA4_MEASUREMENT_ID": self.measurement_id, "GA4_API_SECRET": self.api_secret}

    def authorised(self, request: Request) -> bool:
        """GA4 refuses nobody: what comes with a wrong secret is left out in silence."""
        return True

    def error(self, status: int, message: str) -> Answer:
        return Answer(status, message.encode(), "text/html; charset=utf-8")

    def reads(self, request: Request) -> bool:
        return request.path == DEBUG

    def stats(self) -> dict[str, Any]:
        """As for every system, with the number of events collected, left out (by reason) and validated, and those that
        came more than once: the whole event, with what its request says of all of them."""
        with self.lock:
            return super().stats() | {
                "events": len(self.events),
                "ignored": dict(self.ignored),
                "repeated": {event: times for event, times in self.taken.items() if times > 1},
                "same_purchases": self.same_purchases,
                "validated": self.validated,
                "largest_body": self.largest_body,
                "largest_request": self.largest_request,
            }

    def respond(self, request: Request) -> Answer:
        if request.method != "POST" or request.path not in (COLLECT, DEBUG):
            return self.error(404, "Not Found")
        self.largest_body = max(self.largest_body, len(request.body))
        if len(request.body) >= BODY:
            return self.error(413, "Request Entity Too Large")
        try:
            body = msgspec.json.decode(request.body, type=Row)
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = {}
        if request.path == DEBUG:
            self.validated += 1
            return answer(200, {"validationMessages": [_message(*each) for each in self.messages(body, request)]})
        self._collect(body, request)
        return Answer(204)

    def messages(self, body: Row, request: Request) -> list[Message]:
        """What the validation server finds wrong: field, code and words."""
        app = "firebase_app_id" in request.query
        strict = body.get("validation_behavior") == "ENFORCE_RECOMMENDATIONS"
        client, events = "app_instance_id" if app else "client_id", body.get("events")
        found: list[Message] = []
        if not isinstance(body.get(client), str) or not body[client]:
            found.append((client, "VALUE_REQUIRED", f"Measurement requires a {client}."))
        if not isinstance(events, list) or not events:
            return [*found, ("events", "VALUE_REQUIRED", "Measurement requires at least one event.")]
        if len(events) > 25:
            found.append(("events", "EXCEEDED_MAX_ENTITIES", "There are more than 25 events."))
        for place, event in enumerate(events):
            found += self._event_messages(place, event)
        for name, value in (body.get("user_properties") or {}).items():
            if reason := _name_fault(name, 24):
                found.append(("user_properties", reason, f"User property [{name}] has an invalid name."))
            if strict and len(str(value.get("value"))) > 36:
                found.append((f"user_properties.{name}", "VALUE_OUT_OF_BOUNDS", "Its value is too long."))
        if len(body.get("user_properties") or {}) > 25:
            found.append(("user_properties", "EXCEEDED_MAX_ENTITIES", "There are more than 25 user properties."))
        times = [body.get("timestamp_micros"), *(each.get("timestamp_micros") for each in events)]
        now = self.clock() * 1e6
        if strict and any(each is not None and not now - HOURS_72 <= each <= now for each in times):
            found.append(("timestamp_micros", "VALUE_INVALID", "It is not within the last 72 hours."))
        return found

    def _event_messages(self, place: int, event: Row) -> list[Message]:
        name, params = event.get("name", ""), event.get("params") or {}
        at = f"Event at index: [{place}]"
        found: list[Message] = []
        if reason := _name_fault(name, 40):
            found.append(("events", reason, f"{at} has invalid name [{name}]."))
        elif name in RESERVED:
            found.append(("events", "NAME_RESERVED", f"{at} has name [{name}] which is reserved."))
        if len(params) > 25:
            found.append(("events.params", "EXCEEDED_MAX_ENTITIES", f"{at} has more than 25 params."))
        for key, value in params.items():
            if reason := _name_fault(key, 40):
                found.append((f"events.params.{key}", reason, f"{at} has a param [{key}] with an invalid name."))
            if _is_long(key, value):
                found.append((f"events.params.{key}", "VALUE_OUT_OF_BOUNDS", f"{at} has a param [{value}] too long."))
        return found

    def _collect(self, body: Row, request: Request) -> None:
        app = "firebase_app_id" in request.query
        stream = request.query.get("firebase_app_id" if app else "measurement_id")
        common = {key: value for key, value in body.items() if key != "events"}
        events = body.get("events")
        if request.query.get("api_secret") != self.api_secret:
            self.ignored["secret"] += 1
        elif stream != (self.firebase_app_id if app else self.measurement_id):
            self.ignored["stream"] += 1
        elif not isinstance(events, list) or not common.get("app_instance_id" if app else "client_id"):
            self.ignored["malformed"] += 1
        else:
            self.largest_request = max(self.largest_request, len(events))
            self.ignored["event"] += max(0, len(events) - 25)
            for event in events[:25]:
                self._keep(common, event)

    def _keep(self, common: Row, event: Row) -> None:
        name = event.get("name", "")
        if _name_fault(name, 40) or name in RESERVED:
            self.ignored["event"] += 1
            return
        params = event.get("params") or {}
        kept = {key: value for key, value in params.items() if not _name_fault(key, 40) and not _is_long(key, value)}
        self.ignored["param"] += len(params) - len(kept)
        now = int(self.clock() * 1e6)
        at = (common | event).get("timestamp_micros", now)
        if at < now - HOURS_72:
            self.ignored["timestamp"] += 1
        self.taken[msgspec.json.encode([common, event], order="deterministic").decode()] += 1
        transaction = str(params.get("transaction_id", "")) if name == "purchase" else ""
        if transaction:
            self.same_purchases += transaction in self._purchases
            self._purchases.add(transaction)
        self.events.append(common | {"name": name, "params": kept, "timestamp_micros": max(at, now - HOURS_72)})

    def rows(self) -> list[Row]:
        return list(self.events)

    def identity(self, row: Row) -> tuple[int, str | None]:
        return self.events.index(row), row.get("client_id") or row.get("app_instance_id")

    def edit(self, count: int, seed: int) -> list[Row]:
        raise ValueError("nobody edits what GA4 collected")

    def delete(self, count: int, seed: int) -> list[Row]:
        raise ValueError("nobody deletes what GA4 collected")

    def add(self, count: int) -> list[Row]:
        raise ValueError("events are sent, not added")


def _name_fault(name: Any, most: int) -> str:
    """The code of what is wrong with a name, or nothing."""
    if not isinstance(name, str) or not name[:1].isalpha() or not name.replace("_", "a").isalnum() or len(name) > most:
        return "NAME_INVALID"
    return "NAME_RESERVED" if name.startswith(PREFIXES) else ""


def _is_long(key: str, value: Any) -> bool:
    return isinstance(value, str) and key not in ("session_id", "session_number") and len(value) > LONG.get(key, 100)


def _message(field: str, code: str, words: str) -> Row:
    return {"fieldPath": field, "description": words, "validationCode": code}
