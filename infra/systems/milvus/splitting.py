"""Reading a list through a search that is cut without a sign: by asking for less, until no answer can have been cut.

How it goes on. An answer with fewer rows than the cap is complete. The whole list is asked for first; if that may have
been cut, the active and the blocked clients are asked for apart, and of each kind those of a name. The question is a
beginning of the lower-cased name, so whether the search finds names by their beginning or anywhere in them, a name is
in the answer to each of its own beginnings. An answer to p that may have been cut is replaced by the answers to p and
one more character, for every character of a fixed alphabet and for every further one that was seen to follow p. Of an
answer only those rows are given whose lower-cased name begins with the question, so each row is given by one part.

What shows that it is complete. A name that begins with p is p itself or goes on with some character. The reading stops
(GuardTripped) if a name that is p itself is seen where p is cut, since others like it may be hidden; if rows that were
seen for p are not in the answer to their own longer beginning; and if a row that was seen anywhere in a kind was given
by no part of it. So a search that minds upper case, or leaves out names, is found out by the rows that it does show. A
row that is missing is asked for by its document first: it may have changed since it was seen, and then the next reading
meets it, as it does a client that comes or changes its name while the list is read.

What this cannot exclude. Clients that share a beginning p of which more than the cap exist, and go on with a character
outside the alphabet, as long as no answer shows any name that does; names that are p itself, as long as none of them is
seen; and a cut at fewer rows than the cap that is known. `%`, `_` and the backslash, which a search may take for
wildcards, and a space that is the first character or follows another one, which it may take away, are asked for only
where they are seen.

The order of questions depends on nothing but the alphabet and code points, so a place in it (`Place`) keeps its meaning
when answers change: what comes before it was given, and only the questions that lead to it are asked anew. What was
seen elsewhere before that place is forgotten; what was seen on the way to a part is checked before the part is given.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from shared.errors import GuardTripped

WHOLE, ACTIVE, BLOCKED = 3, 1, 2
"""The kinds of clients as Milvus numbers them, in the order in which they are asked for."""
ORDER: Final = (0, WHOLE, ACTIVE, BLOCKED)
ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789 .,-&'/()+:;\"!?#@*°ºª–’áàâãäéèêëíìîïóòôõöúùûüçñ"
DEEPEST: Final = 12
"""Characters of the longest question."""
MOST_ASKED: Final = 20_000
WILD: Final = frozenset("%_\\")

_RANK: Final = {character: rank for rank, character in enumerate(ALPHABET)}
FIRST_WITHOUT_ID: Final = -1_000_000_000
"""Rows without an id come before all others of their part, numbered from here on."""


class Search(Protocol):
    """The search. Both raise ProtocolError for an answer that is no list."""

    def by_name(self, kind: int, question: str) -> list[Any]:
        """The clients of a kind whose name matches; all of the kind for the empty question."""

    def by_document(self, document: str) -> list[Any]:
        """The clients of any kind with this document."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where the reading stands: all questions before this one are answered, and of this one `last` says how much."""

    kind: int = 0
    question: str = ""
    last: int | None = None
    """The last id that was given of the answer, None if all of it was."""
    asked: int = 0

    def token(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def of(cls, token: str) -> Place:
        """Raises GuardTripped for a token that is none."""
        if not token:
            return cls()
        try:
            place = msgspec.json.decode(token, type=cls)
        except msgspec.DecodeError:
            place = None
        if place is None or place.kind not in ORDER:
            raise GuardTripped("a stored token is no place in the list of clients")
        return place

    def covers(self, kind: int, name: str, number: int) -> bool:
        """Whether the row of this name and number was given before this place."""
        if kind != self.kind:
            return ORDER.index(kind) < ORDER.index(self.kind)
        if name.startswith(self.question):
            return self.last is None or number <= self.last
        return _precedes(name, self.question)

    def is_behind(self, kind: int, question: str) -> bool:
        """Whether nothing of a question is left to be given."""
        if kind != self.kind:
            return ORDER.index(kind) < ORDER.index(self.kind)
        return (self.last is None and question.startswith(self.question)) or _precedes(question, self.question)


class Known(NamedTuple):
    """What is remembered of a client that was seen: enough to tell later whether it changed."""

    name: str
    document: str
    active: object

    @classmethod
    def of(cls, row: Any) -> Known:
        row = row if isinstance(row, dict) else {}
        name, document = row.get("nome_fantasia"), row.get("cnpj_cpf")
        return cls(
            name.lower() if isinstance(name, str) else "",
            document if isinstance(document, str) else "",
            row.get("is_ativo"),
        )


class Given(NamedTuple):
    """Some rows of one part, each with its id or its number among those without one, and the place behind them."""

    rows: list[tuple[int, Any]]
    place: Place


class Splitting:
    """One reading of the list from a place on. `size` is how many rows are given at a time, `alphabet` what is asked
    for without being seen."""

    def __init__(self, search: Search, cap: int, size: int, start: Place, alphabet: str = ALPHABET) -> None:
        self._search = search
        self._cap = cap
        self._size = size
        self._usual = frozenset(alphabet)
        self._start = self._place = start
        self._asked = start.asked
        self._given: set[int] = set()
        self._elsewhere: dict[int, Known] = {}
        """Clients of this kind in answers to questions that their names do not begin with, and not given yet."""
        self._cut: dict[str, frozenset[str]] = {}
        """The questions of this kind whose answers may have been cut, with the characters that were asked for next."""

    def read(self) -> Iterator[Given]:
        """All clients from the start on. An answer that brings none gives an empty list, so that whoever reads can stop
        between two questions. Raises GuardTripped as soon as a complete list is out of reach."""
        if self._start.is_behind(WHOLE, "") and self._start.kind == WHOLE:
            return
        rows = self._ask(WHOLE, "")
        if len(rows) < self._cap and self._start.kind in (0, WHOLE):
            yield from self._give(WHOLE, "", rows)
            return
        if self._start.kind == WHOLE:
            self._start = self._place = Place()
        seen = _known(rows)
        del rows
        yield self._nothing()
        for kind, active in ((ACTIVE, True), (BLOCKED, False)):
            self._given, self._elsewhere, self._cut = set(), {}, {}
            yield from self._part(kind, "", {number: each for number, each in seen.items() if each.active is active})
            self._check_what_was_seen(kind)

    def _part(self, kind: int, question: str, expected: Mapping[int, Known]) -> Iterator[Given]:
        """The clients of a kind whose names begin with the question. `expected` are those that were seen already."""
        if self._start.is_behind(kind, question):
            return
        rows = self._ask(kind, question)
        known = _known(rows)
        self._check_answer(question, rows)
        for number, each in known.items():
            given = number in self._given or self._start.covers(kind, each.name, number)
            if not given and not each.name.startswith(question):
                self._elsewhere[number] = each
        if len(rows) < self._cap:
            for number, each in expected.items():
                if number not in known and not self._has_changed(number, each):
                    raise _missing(number)
            own = [row for row in rows if Known.of(row).name.startswith(question)]
            yield from self._give(kind, question, own)
            return
        self._check_split(question, rows, expected)
        names = [name for row in rows if (name := Known.of(row).name).startswith(question)]
        usual = self._usual if question and question[-1] != " " else self._usual - {" "}
        following = usual | {name[len(question)] for name in (*names, *(each.name for each in expected.values()))}
        if any("\ud800" <= character <= "\udfff" for character in following):
            raise GuardTripped("a name holds half a character where a search was cut", cure=_CURE_OF_NAMES)
        parts: dict[str, dict[int, Known]] = {}
        for number, each in {**expected, **known}.items():
            if each.name.startswith(question):
                parts.setdefault(each.name[: len(question) + 1], {})[number] = each
        self._cut[question] = following
        # What follows may take hours, and these rows come again.
        del rows, known, names
        yield self._nothing()
        for longer in sorted((question + character for character in following), key=lambda text: _rank(text[-1])):
            yield from self._part(kind, longer, parts.pop(longer, {}))

    def _give(self, kind: int, question: str, rows: list[Any]) -> Iterator[Given]:
        """The rows of a complete answer by their ids, but for those that were given before the start."""
        numbered: dict[int, Any] = {}
        for place, row in enumerate(rows):
            found = id_of(row)
            number = FIRST_WITHOUT_ID + place if found is None else found
            self._given.add(number)
            if not self._start.covers(kind, Known.of(row).name, number):
                numbered[number] = row
        order = sorted(numbered)
        for first in range(0, len(order), self._size):
            chosen = order[first : first + self._size]
            self._place = Place(kind, question, chosen[-1], self._asked)
            yield Given([(number, numbered[number]) for number in chosen], self._place)
        self._place = Place(kind, question, None, self._asked)
        yield self._nothing()

    def _nothing(self) -> Given:
        return Given([], msgspec.structs.replace(self._place, asked=self._asked))

    def _ask(self, kind: int, question: str) -> list[Any]:
        self._count()
        return self._search.by_name(kind, question)

    def _count(self) -> None:
        self._asked += 1
        if self._asked > MOST_ASKED:
            raise GuardTripped(
                f"{MOST_ASKED} searches were not enough to see all clients of Milvus", cure=_CURE_OF_NAMES
            )

    def _check_answer(self, question: str, rows: list[Any]) -> None:
        """Raises GuardTripped for a row that the question cannot mean."""
        if WILD.isdisjoint(question):
            plain = _plain(question.strip(" "))
            for row in rows:
                name = Known.of(row).name
                if question not in name and plain not in _plain(name):
                    raise GuardTripped(
                        f"a search of Milvus by name gave client {id_of(row)}, whose name it does not mean, and a list"
                        " that is cut cannot be read without such a search",
                        cure="ask Milvus' support whether cliente/busca still searches by nome_fantasia",
                    )

    def _check_split(self, question: str, rows: list[Any], expected: Mapping[int, Known]) -> None:
        """Raises GuardTripped if longer questions cannot show all that this one hides."""
        for number, name in [(id_of(row), Known.of(row).name) for row in rows] + [
            (number, each.name) for number, each in expected.items()
        ]:
            if name == question:
                what = "has no name" if not name else "has a name that is the beginning of too many others"
                raise GuardTripped(
                    f"Milvus cuts its answers at {self._cap} clients, and client {number} {what}: others like it may be"
                    " hidden",
                    cure="name that client so that it can be told from the others, then run again",
                )
        if len(question) >= DEEPEST:
            raise GuardTripped(
                f"{self._cap} clients of Milvus or more have names that begin with the same {len(question)} characters",
                cure=_CURE_OF_NAMES,
            )

    def _check_what_was_seen(self, kind: int) -> None:
        """Raises GuardTripped for a client of a kind that was seen and not given, unless that is for its own change."""
        for number, each in self._elsewhere.items():
            if number in self._given or self._has_changed(number, each):
                continue
            question = ""
            while question in self._cut:
                character = each.name[len(question) : len(question) + 1]
                if character not in self._cut[question]:
                    raise _missing(number)
                question += character
            # Its part was read before it was seen: it may have come in between.
            if number not in _known(self._ask(kind, question)):
                raise _missing(number)

    def _has_changed(self, number: int, known: Known) -> bool:
        """Whether a client is no longer what it was when it was seen."""
        if not known.document:
            return False
        self._count()
        rows = self._search.by_document(known.document)
        return len(rows) < self._cap and _known(rows).get(number) != known


def _missing(number: int) -> GuardTripped:
    return GuardTripped(
        f"client {number} of Milvus is in a list that was cut, and no search by a beginning of its name gives it:"
        " others may be hidden",
        cure="ask Milvus' support how cliente/busca compares nome_fantasia",
    )


_CURE_OF_NAMES: Final = "look at how clients are named in Milvus, or ask its support for a list that is not cut"


def _known(rows: list[Any]) -> dict[int, Known]:
    return {number: Known.of(row) for row in rows if (number := id_of(row)) is not None}


def id_of(row: Any) -> int | None:
    """The id of a client, None for a row without one."""
    found = row.get("id") if isinstance(row, dict) else None
    return found if type(found) is int else None


def _precedes(text: str, other: str) -> bool:
    """Whether a text stands before another in the order of questions; a beginning of it does not."""
    for one, two in zip(text, other, strict=False):
        if one != two:
            return _rank(one) < _rank(two)
    return False


def _rank(character: str) -> int:
    return _RANK.get(character, len(ALPHABET) + ord(character))


def _plain(text: str) -> str:
    """A text without accents and case."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in parts if not unicodedata.combining(character))
