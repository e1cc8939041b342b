"""Every error and every error number.

    WaybillError
    ├── ConfigError         stop, mend the configuration
    ├── AuthError           stop the stream, mend the credentials; nothing is consumed
    ├── TransientError      try again, after `after` seconds if the other side said so
    ├── ProtocolError       an answer that its API does not document; stop the run
    ├── GuardTripped        going on could lose or destroy records; the cursor stays where it is
    ├── Leased              another run holds the stream
    ├── Fenced              this writer lost its lease or its batch to another; nothing was written
    ├── MalformedEnvelope   a message that is no batch
    ├── StoreUnavailable    the hub's own store did not answer; never assume anything about what it holds
    └── RecordError         this one record cannot be mapped; its neighbours go on

What became of a record is a value (`shared/outcome.py`), never one of these.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

ErrorClass = Literal["marker", "retriable", "permanent"]


class ErrorNumber(NamedTuple):
    """One line of the table below."""

    number: int
    kind: ErrorClass
    meaning: str
    advice: str


SENT: Final = -2
RETRIED: Final = -4
GENERAL: Final = 10
CREDENTIALS: Final = 11
UNAVAILABLE: Final = 23
RATE_LIMITED: Final = 24
UNREACHABLE: Final = 25
NOT_ASKED: Final = 26
CUSTOMER_MISSING: Final = 27
TOO_EARLY: Final = 28
FAILED_LATER: Final = 29
REFUSED: Final = 50
NO_IDENTITY: Final = 110
BAD_IDENTITY: Final = 111
BAD_VERSION: Final = 112
UNMAPPABLE: Final = 113
NO_SOURCE_ID: Final = 114
TOO_LARGE: Final = 115
UNDOCUMENTED_ANSWER: Final = 116
IN_DOUBT: Final = 117
KILLED_ITS_SINK: Final = 118
NO_VERDICT: Final = 119
NOT_HASHED: Final = 130
MALFORMED: Final = 131
OVER_A_LIMIT: Final = 132
TOO_OLD: Final = 133
NOT_MATCHED: Final = 134
MALFORMED_PERSONAL: Final = 140
ONLY_VALIDATED: Final = 150
NOT_VALID: Final = 151
WRONG_CLIENT: Final = 152
WRONG_EVENT_NAME: Final = 153
RESERVED_NAME: Final = 154
WRONG_PARAMETER_NAME: Final = 155
LONG_VALUE: Final = 156
WRONG_TYPE: Final = 157
MANY_PARAMETERS: Final = 158
WRONG_PROPERTY_NAME: Final = 159
LONG_PROPERTY_VALUE: Final = 160
MANY_PROPERTIES: Final = 161
WRONG_ITEMS: Final = 162
OUTSIDE_WINDOW: Final = 163
LARGE_EVENT: Final = 164
WRONG_CONSENT: Final = 165
WRONG_USER_DATA: Final = 166
WRONG_ENGAGEMENT: Final = 167
UNKNOWN_FIELD: Final = 168
NO_TRANSACTION: Final = 169
MAIL_IN_CLEAR: Final = 170
LONG_USER_ID: Final = 171
REFUSED_LATER: Final = 172
NO_SUCH_CUSTOMER: Final = 180

NUMBERS: Final[dict[int, ErrorNumber]] = {
    line.number: line
    for line in (
        ErrorNumber(SENT, "marker", "sent", "nothing to do"),
        ErrorNumber(RETRIED, "marker", "retried", "nothing to do"),
        ErrorNumber(GENERAL, "retriable", "failed for a reason that was not told", "replay it"),
        ErrorNumber(CREDENTIALS, "retriable", "credentials refused", "mend the key, then run again"),
        ErrorNumber(UNAVAILABLE, "retriable", "the target answered 5xx", "replay when the target is well"),
        ErrorNumber(RATE_LIMITED, "retriable", "the target answered 429", "lower rate_limit, then replay"),
        ErrorNumber(UNREACHABLE, "retriable", "no connection to the target", "check address and network, then replay"),
        ErrorNumber(NOT_ASKED, "retriable", "in doubt, and the target did not answer the probe", "replay it"),
        ErrorNumber(
            CUSTOMER_MISSING,
            "retriable",
            "its customer is not at the target",
            "see what became of the customer, deliver it, then replay",
        ),
        ErrorNumber(
            REFUSED, "permanent", "the target refused the record", "mend the record or the target, then replay"
        ),
        ErrorNumber(NO_IDENTITY, "permanent", "the record has no identity", "fill in its identity at the source"),
        ErrorNumber(BAD_IDENTITY, "permanent", "the identity is malformed", "correct it at the source"),
        ErrorNumber(BAD_VERSION, "permanent", "the update time cannot be read", "correct it at the source"),
        ErrorNumber(UNMAPPABLE, "permanent", "a field cannot be mapped", "correct the field at the source"),
        ErrorNumber(NO_SOURCE_ID, "permanent", "the record has no id at the source", "ask the source's support"),
        ErrorNumber(TOO_LARGE, "permanent", "the record is larger than a message", "shorten it at the source"),
        ErrorNumber(
            UNDOCUMENTED_ANSWER, "permanent", "the target's answer is not what its API documents", "look at the target"
        ),
        ErrorNumber(
            IN_DOUBT, "permanent", "it may have arrived, and the target cannot be asked", "look at the target first"
        ),
        ErrorNumber(
            KILLED_ITS_SINK,
            "permanent",
            "the batch ended its sink function each time",
            "mend the sink, look at the target, replay",
        ),
        ErrorNumber(NO_VERDICT, "permanent", "the connector gave no verdict", "look at the target first"),
        ErrorNumber(
            TOO_EARLY,
            "retriable",
            "the target takes it only some hours later",
            "nothing: the sweeper sends it again each hour; or replay it",
        ),
        ErrorNumber(NOT_HASHED, "permanent", "a personal field is not hashed", "let the mapping hash it"),
        ErrorNumber(MALFORMED, "permanent", "a field is not of the documented form", "correct it at the source"),
        ErrorNumber(OVER_A_LIMIT, "permanent", "more than the target takes in one record", "shorten it at the source"),
        ErrorNumber(TOO_OLD, "permanent", "older than the target takes", "nothing: it is too late"),
        ErrorNumber(
            NOT_MATCHED, "permanent", "the target knows no such click or id", "check the click id at the source"
        ),
        ErrorNumber(
            MALFORMED_PERSONAL, "permanent", "a personal field is malformed", "correct the field at the source"
        ),
        ErrorNumber(ONLY_VALIDATED, "permanent", "valid, and only validated", "set `validate: false`, then replay"),
        ErrorNumber(NOT_VALID, "permanent", "the validation server found a fault", "correct the field at the source"),
        ErrorNumber(
            WRONG_CLIENT, "permanent", "the client's id is missing or malformed", "correct the field at the source"
        ),
        ErrorNumber(
            WRONG_EVENT_NAME, "permanent", "the event's name is not allowed", "correct the field at the source"
        ),
        ErrorNumber(RESERVED_NAME, "permanent", "a name is reserved", "rename it at the source"),
        ErrorNumber(WRONG_PARAMETER_NAME, "permanent", "a parameter's name is not allowed", "rename it at the source"),
        ErrorNumber(LONG_VALUE, "permanent", "a parameter's value is too long", "shorten it at the source"),
        ErrorNumber(
            WRONG_TYPE, "permanent", "a value is of another type than documented", "correct the field at the source"
        ),
        ErrorNumber(MANY_PARAMETERS, "permanent", "too many parameters", "leave some out at the source"),
        ErrorNumber(
            WRONG_PROPERTY_NAME, "permanent", "a user property's name is not allowed", "rename it at the source"
        ),
        ErrorNumber(
            LONG_PROPERTY_VALUE, "permanent", "a user property's value is too long", "shorten it at the source"
        ),
        ErrorNumber(MANY_PROPERTIES, "permanent", "too many user properties", "leave some out at the source"),
        ErrorNumber(
            WRONG_ITEMS,
            "permanent",
            "too many items, or parameters of one's own in one",
            "leave some out at the source",
        ),
        ErrorNumber(OUTSIDE_WINDOW, "permanent", "not within the last 72 hours", "nothing: it is too late"),
        ErrorNumber(LARGE_EVENT, "permanent", "the event alone is as large as a request", "shorten it at the source"),
        ErrorNumber(
            WRONG_CONSENT, "permanent", "consent is not of the documented form", "correct the field at the source"
        ),
        ErrorNumber(
            WRONG_USER_DATA, "permanent", "user data is unhashed, or has no user_id", "let the mapping hash it"
        ),
        ErrorNumber(
            WRONG_ENGAGEMENT,
            "permanent",
            "engagement time or session id is malformed",
            "correct the field at the source",
        ),
        ErrorNumber(UNKNOWN_FIELD, "permanent", "a field that the target does not have", "rename the column"),
        ErrorNumber(NO_TRANSACTION, "permanent", "a purchase without a transaction_id", "fill it in at the source"),
        ErrorNumber(MAIL_IN_CLEAR, "permanent", "a mail address in clear", "let the mapping hash it, or leave it out"),
        ErrorNumber(LONG_USER_ID, "permanent", "the user_id is too long", "shorten it at the source"),
        ErrorNumber(FAILED_LATER, "retriable", "the target failed after it had accepted it", "replay it"),
        ErrorNumber(
            REFUSED_LATER, "permanent", "the target refused what it had accepted", "mend the cause, then replay"
        ),
        ErrorNumber(
            NO_SUCH_CUSTOMER,
            "permanent",
            "no customer, or more than one, has this value",
            "import the customer or correct the value, then replay",
        ),
    )
}


class WaybillError(Exception):
    """Base of all. `cure` is the next step for whoever reads it."""

    cure = ""

    def __init__(self, message: str, *, cure: str = "") -> None:
        super().__init__(message)
        if cure:
            self.cure = cure


class ConfigError(WaybillError):
    """The configuration or the environment is wrong; nothing ran."""

    cure = "mend the configuration, then `./waybill check`"


class AuthError(WaybillError):
    """Credentials were refused; the stream stops and consumes nothing."""

    cure = "mend the credentials, then run again: it goes on where it stopped"


class TransientError(WaybillError):
    """A passing failure: nothing took effect. `after` is the other side's own wish, in seconds."""

    cure = "run again when the system answers: it goes on where it stopped"

    def __init__(
        self, message: str, *, after: float | None = None, number: int = UNAVAILABLE, http_status: int | None = None
    ) -> None:
        super().__init__(message)
        self.after = after
        self.number = number
        self.http_status = http_status


class ProtocolError(WaybillError):
    """An answer that the system's API does not document."""

    cure = "compare the answer with the vendor's documentation; run again to retry from the last page"


class GuardTripped(WaybillError):
    """A result cap, a total that keeps disagreeing, or a repeated cursor: the cursor was left alone."""

    cure = "look at the source, narrow the window with --since, then run again"


class Leased(WaybillError):
    """Another run holds the stream. `holder` says who."""

    cure = "wait for it to end"

    def __init__(self, message: str, *, holder: str = "", cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.holder = holder


class Fenced(WaybillError):
    """A later holder took over; this write was refused and nothing of it remains."""

    cure = "nothing: the later holder goes on"


class MalformedEnvelope(WaybillError):
    """A message that does not carry a batch."""

    cure = "find out who publishes to this topic"


class StoreUnavailable(WaybillError):
    """The hub's store did not answer. What it holds is unknown, so the message is refused and comes again."""

    cure = "run again when the store answers"


class RecordError(WaybillError):
    """This record cannot be mapped. `field` names the place."""

    def __init__(self, reason: str, *, field: str = "", number: int = UNMAPPABLE) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.number = number
