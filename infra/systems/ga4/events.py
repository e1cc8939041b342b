"""Events sent to GA4, grouped by what a request holds once: the client, and all that is said beside its events.

A 2xx says that a request was received, and nothing more ever comes, so an event is looked at before it is sent
(`limits.py`; what it finds here and not in the mapping is `invalid` all the same). After that:

- 2xx: delivered. A page of HTML is no answer of GA4's: whoever stands between has it, and it is unknown.
- No answer, or one that leaves it open: in doubt. GA4 cannot be asked and keeps what comes twice, so such an event is
  unknown. Analytics help says that a web stream's purchases with one transaction id count once, in reports; who takes
  that for enough sets `repeat_purchases`, and they are sent again.
- 4xx: certainly not taken. A request of several events is sent again event by event, so that none answers for another.

What was collected stays as it is: a later version of it, and a deletion, are refused here.

With `validate` every event goes alone to the validation server, which collects nothing. Its messages make the event
rejected (`NOT_VALID`); an event without any is rejected too (`ONLY_VALIDATED`), since it is not in GA4: a replay
without `validate` sends it. So `delivered` always means collected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard
from urllib.parse import urlencode

import msgspec

from infra.burst import Burst, Result
from infra.http import Answer as HttpAnswer
from infra.http import InDoubtError
from infra.one_by_one import without_persons
from infra.pace import Pace
from infra.systems import Connection
from infra.systems.ga4.limits import BODY_BYTES, MOST_EVENTS, body_of, check, divided, limits_of
from shared.ends import Change
from shared.errors import (
    CREDENTIALS,
    GENERAL,
    NOT_VALID,
    ONLY_VALIDATED,
    RATE_LIMITED,
    REFUSED,
    UNDOCUMENTED_ANSWER,
    AuthError,
    ConfigError,
    ProtocolError,
    RecordError,
    TransientError,
)
from shared.outcome import Answer, CannotAsk, InDoubt, Outcome, Passing, Probe, Verdict, delivered, rejected, unknown

BULK: Final = 200
"""Events of one call. The more, the more of them share a request."""
ROUND: Final = 16
"""Requests that are under way at once. After them it is looked at how GA4 answers; none waits behind a refusal."""
TIMEOUT: Final = (5.0, 15.0)
PATIENCE: Final = 20.0
"""Seconds. What a call has not come to by then is left to the next one: a batch is held for a minute at most."""
COLLECTED: Final = "collected"
"""Stands for the id that GA4 does not give. What has it was collected, and is not collected again."""
WRONG_ADDRESS: Final = (404, 405)


class Events:
    """The sink of events. A change's content is an event as `limits.py` describes it.

    Options: `firebase_app_id` (an app stream; otherwise GA4_MEASUREMENT_ID, or `measurement_id`, names a web stream),
    `analytics_360`, `numeric_client`, `repeat_purchases` and `validate`.
    """

    system = "ga4"

    def __init__(self, connection: Connection) -> None:
        options = connection.options
        secret = connection.secret("GA4_API_SECRET")
        app = str(options.get("firebase_app_id") or "").strip()
        web = str(options.get("measurement_id") or connection.secrets.get("GA4_MEASUREMENT_ID") or "").strip()
        if not app and not web:
            raise ConfigError(
                "no data stream of GA4 is named", cure="set GA4_MEASUREMENT_ID, or `firebase_app_id:` on the stream"
            )
        self._validates = options.get("validate") is True
        self._repeats = options.get("repeat_purchases") is True and not app
        self._limits = limits_of(options)
        self._clock = connection.clock
        rate = connection.rate
        # A slow pace is met by smaller calls, so that none is held for longer than a batch may be.
        self.bulk = max(1, min(BULK, int(rate.count / rate.seconds * PATIENCE) if rate else BULK))
        stream = {"firebase_app_id": app} if app else {"measurement_id": web}
        query = urlencode({**stream, "api_secret": secret})
        self._path = f"{'/debug' if self._validates else ''}/mp/collect?{query}"
        self._pace = Pace(rate, connection.clock, connection.pace_file, connection.stopping)
        # Whoever delivers tries again, a whole portion at a time; trying here as well would multiply the tries.
        once = msgspec.structs.replace(connection.retry, attempts=1)
        self._burst = Burst(connection.url, {}, ROUND, self._pace, once, connection.clock, TIMEOUT, secrets=(secret,))

    def repeatable(self, change: Change) -> bool:
        if self._validates:
            return True
        purchase = self._repeats and change.content.get("name") == "purchase"
        return purchase and bool(change.content.get("params", {}).get("transaction_id"))

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [CannotAsk() for _ in changes]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        """Raises AuthError where GA4's address answers to nothing, and nothing came of anything before."""
        answers: list[Answer | None] = [self._refused(change) for change in changes]
        events = {place: changes[place].content for place, answer in enumerate(answers) if answer is None}
        groups = list(grouped(events, 1 if self._validates else MOST_EVENTS))
        until = self._clock.monotonic() + PATIENCE
        while groups:
            if self._clock.monotonic() > until:
                _answer_all(answers, groups, Passing("GA4 is slow, and it was not come to yet", GENERAL))
                break
            round_, groups = groups[:ROUND], groups[ROUND:]
            results = self._burst.send([("POST", self._path, self._body(group)) for group in round_], self._validates)
            if any(isinstance(result, AuthError) or _is_wrong_address(result) for result in results):
                self._stop(answers, round_, results)
                _answer_all(answers, groups, Passing("not sent: GA4 refused the calls before", CREDENTIALS))
                break
            for group, result in zip(round_, results, strict=True):
                if isinstance(result, HttpAnswer) and result.status >= 400 and len(group.places) > 1:
                    groups += group.singles()
                else:
                    _answer_all(answers, [group], self._meaning(group, result))
            if wish := next((result for result in results if _is_wish(result)), None):
                _answer_all(answers, groups, _passing(wish))
                break
            if not any(isinstance(result, HttpAnswer) for result in results):
                _answer_all(answers, groups, Passing("not sent: GA4 answered no call before", GENERAL))
                break
        return answers

    def close(self) -> None:
        self._burst.close()
        self._pace.close()

    def _refused(self, change: Change) -> Answer | None:
        """What an event comes to that is not sent, None for one that is."""
        if change.operation == "delete":
            return rejected(REFUSED, "GA4 has no call that deletes an event")
        if change.target_id:
            return rejected(REFUSED, "an earlier version of it was collected, and GA4 changes no event")
        try:
            check(change.content, self._limits, self._clock.now())
        except RecordError as error:
            return Verdict(Outcome.INVALID, error.number, error.reason, error.field)
        return None

    def _body(self, group: Group) -> bytes:
        if self._validates:
            return body_of({**group.common, "validation_behavior": "ENFORCE_RECOMMENDATIONS"}, *group.events)
        return body_of(group.common, *group.events)

    def _meaning(self, group: Group, result: Result) -> Answer:
        """What the result of a request says of each of its events."""
        if isinstance(result, InDoubtError):
            return InDoubt(str(result))
        if isinstance(result, TransientError):
            return _passing(result)
        assert isinstance(result, HttpAnswer)
        if 400 <= result.status < 500:
            return rejected(REFUSED, f"GA4 answered {result.status}", result.status)
        if not 200 <= result.status < 300:
            return unknown(UNDOCUMENTED_ANSWER, f"GA4 answered {result.status}", result.status)
        if self._validates:
            return self._validated(group, result)
        if result.body.lstrip()[:1] == b"<":
            return unknown(UNDOCUMENTED_ANSWER, f"a page answered {result.status}, as GA4 does not", result.status)
        return delivered(COLLECTED)

    def _validated(self, group: Group, answer: HttpAnswer) -> Answer:
        try:
            given = answer.json()
        except ProtocolError:
            given = None
        messages = given.get("validationMessages") if isinstance(given, dict) else None
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            return Passing("the validation server answered without a list of messages", GENERAL)
        if not messages:
            return rejected(ONLY_VALIDATED, "it is valid, and the validation server collects nothing")
        private = list(_texts([group.common, *group.events]))
        first = messages[0]
        words = (without_persons(first.get(each), private) for each in ("validationCode", "description"))
        return Verdict(
            Outcome.REJECTED,
            NOT_VALID,
            ": ".join(filter(None, words)) or "the validation server does not say why",
            without_persons(first.get("fieldPath"), private),
            answer.status,
        )

    def _stop(self, answers: list[Answer | None], groups: Sequence[Group], results: Sequence[Result]) -> None:
        """Answers what of the last round is known. Raises AuthError where nothing came of anything in this call."""
        refused = next((result for result in results if isinstance(result, AuthError)), None) or AuthError(
            "GA4 has no such address", cure="check GA4_URL: it holds scheme and host"
        )
        for group, result in zip(groups, results, strict=True):
            if isinstance(result, AuthError) or (isinstance(result, HttpAnswer) and result.status >= 400):
                _answer_all(answers, [group], Passing(str(refused), CREDENTIALS))
            else:
                _answer_all(answers, [group], self._meaning(group, result))
        if not any(isinstance(answer, InDoubt | Verdict) for answer in answers):
            raise refused


class Group(msgspec.Struct):
    """The events of one request: what they share, the events, and their places in the call."""

    common: dict[str, Any]
    events: list[dict[str, Any]] = []
    places: list[int] = []
    size: int = 0

    def singles(self) -> Iterator[Group]:
        for event, place in zip(self.events, self.places, strict=True):
            yield Group(self.common, [event], [place])


def grouped(contents: Mapping[int, Mapping[str, Any]], most: int = MOST_EVENTS) -> Iterator[Group]:
    """Events by place in as few requests as they fit in, each of them in the order of the places."""
    open_groups: dict[bytes, Group] = {}
    for place, content in contents.items():
        common, event = divided(content)
        kind = msgspec.json.encode(common, order="deterministic")
        more = len(msgspec.json.encode(event)) + len(",")
        group = open_groups.get(kind)
        if group is not None and (len(group.places) >= most or group.size + more >= BODY_BYTES):
            yield open_groups.pop(kind)
            group = None
        if group is None:
            open_groups[kind] = Group(common, [event], [place], len(body_of(common, event)))
        else:
            group.events.append(event)
            group.places.append(place)
            group.size += more
    yield from open_groups.values()


def _answer_all(answers: list[Answer | None], groups: Sequence[Group], answer: Answer) -> None:
    for group in groups:
        for place in group.places:
            answers[place] = answer


def _passing(error: TransientError) -> Passing:
    return Passing(str(error), error.number, error.after, error.http_status)


def _is_wish(result: Result) -> TypeGuard[TransientError]:
    """Whether GA4 asks for a pause, in which nothing is to be sent."""
    return isinstance(result, TransientError) and (result.after is not None or result.number == RATE_LIMITED)


def _is_wrong_address(result: Result) -> bool:
    return isinstance(result, HttpAnswer) and result.status in WRONG_ADDRESS


def _texts(value: Any) -> Iterator[str]:
    """Every text in what was sent, without the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
