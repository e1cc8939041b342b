"""Reading a list through a search that is cut: every client once, or the guard."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.systems.milvus.splitting import (
    ALPHABET,
    BLOCKED,
    DEEPEST,
    MOST_ASKED,
    WHOLE,
    Place,
    Splitting,
)
from shared.errors import GuardTripped

Row = dict[str, Any]
Meaning = Callable[[str, str], bool]


def anywhere(question: str, name: str) -> bool:
    return question in name.lower()


def at_the_beginning(question: str, name: str) -> bool:
    return name.lower().startswith(question)


def minding_case(question: str, name: str) -> bool:
    return question in name


def minding_case_at_the_beginning(question: str, name: str) -> bool:
    return name.startswith(question)


def like(question: str, name: str) -> bool:
    """As a database that was given the question between two percent signs."""
    pattern = re.escape(question).replace("_", ".").replace("%", ".*")
    return re.search(pattern, name.lower()) is not None


def trimmed(question: str, name: str) -> bool:
    return question.strip() in name.lower()


def ignored(question: str, name: str) -> bool:
    return True


MEANINGS = [anywhere, at_the_beginning]


class Desk:
    """A search over rows in the order in which they stand, cut at `cap`."""

    def __init__(self, rows: list[Row], cap: int, means: Meaning = anywhere, alphabet: str = ALPHABET) -> None:
        self.alphabet = alphabet
        self.rows = rows
        self.cap = cap
        self.means = means
        self.asked: list[tuple[int, str]] = []
        self.before: Callable[[int, str], None] = lambda kind, question: None
        """Called before each answer by name, so that the list can change while it is read."""

    def by_name(self, kind: int, question: str) -> list[Row]:
        self.before(kind, question)
        self.asked.append((kind, question))
        return [
            row
            for row in self.rows
            if (kind == WHOLE or (kind == BLOCKED) is not row["is_ativo"])
            and (not question or self.means(question, row["nome_fantasia"] or ""))
        ][: self.cap]

    def by_document(self, document: str) -> list[Row]:
        return [row for row in self.rows if row["cnpj_cpf"] == document][: self.cap]


def named(*names: str | None, active: bool = True, first: int = 1) -> list[Row]:
    return [
        {"id": number, "nome_fantasia": name, "is_ativo": active, "cnpj_cpf": f"{number:011d}"}
        for number, name in enumerate(names, start=first)
    ]


def read(desk: Desk, place: Place | None = None, size: int = 3) -> list[int]:
    splitting = Splitting(desk, desk.cap, size, place or Place(), desk.alphabet)
    return [number for given in splitting.read() for number, _ in given.rows]


def with_places(desk: Desk, size: int) -> list[tuple[list[int], Place]]:
    given = Splitting(desk, desk.cap, size, Place(), desk.alphabet).read()
    return [([number for number, _ in rows], place) for rows, place in given]


# Names with letters of both cases, and few enough of them that questions are cut several times.
FEW = "abã1 "
LETTERS = st.sampled_from(FEW + FEW.upper())


def words(length: int, letters: str = "aAbBã1") -> st.SearchStrategy[str]:
    """Names of one length, so that none is the beginning of another, some with a space in them."""
    whole = st.text(st.sampled_from(letters), min_size=length, max_size=length)
    return st.one_of(whole, whole.map(lambda text: f"{text[0]} {text[2:]}"))


@st.composite
def lists(draw: st.DrawFn, names: st.SearchStrategy[str], most: int = 30) -> list[Row]:
    rows = draw(st.lists(st.tuples(names, st.booleans()), max_size=most))
    return [named(name, active=active, first=number)[0] for number, (name, active) in enumerate(rows, start=1)]


@pytest.mark.parametrize("means", MEANINGS)
@settings(max_examples=100, deadline=None)
@given(rows=lists(words(5)), cap=st.integers(1, 12))
def test_names_of_one_length_are_given_exactly_once_or_the_guard_trips(
    means: Meaning, rows: list[Row], cap: int
) -> None:
    desk = Desk(rows, cap, means, FEW)
    try:
        given_ids = read(desk)
    except GuardTripped:
        assert len(rows) >= cap
        return
    assert sorted(given_ids) == [row["id"] for row in rows]


@pytest.mark.parametrize("means", MEANINGS)
@settings(max_examples=100, deadline=None)
@given(rows=lists(st.text(LETTERS, max_size=5)), cap=st.integers(1, 12))
def test_what_is_hidden_in_spite_of_it_is_a_name_that_cannot_be_asked_for(
    means: Meaning, rows: list[Row], cap: int
) -> None:
    desk = Desk(rows, cap, means, FEW)
    try:
        given_ids = Counter(read(desk))
    except GuardTripped:
        return
    assert max(given_ids.values(), default=1) == 1
    cut = {question for kind, question in list(desk.asked) if len(desk.by_name(kind, question)) >= cap}
    for row in rows:
        name = row["nome_fantasia"].lower()
        assert row["id"] in given_ids or name in cut or name.startswith(" ") or "  " in name


@pytest.mark.parametrize("means", MEANINGS)
@settings(max_examples=40, deadline=None)
@given(rows=lists(words(3, "aBã"), most=16), cap=st.integers(3, 8), size=st.integers(1, 4))
def test_from_every_place_the_reading_goes_on_with_exactly_the_rest(
    means: Meaning, rows: list[Row], cap: int, size: int
) -> None:
    desk = Desk(rows, cap, means, FEW)
    try:
        pages = with_places(desk, size)
    except GuardTripped:
        return
    ids = [number for numbers, _ in pages for number in numbers]
    done = 0
    for numbers, place in pages:
        done += len(numbers)
        assert len(numbers) <= size
        assert read(desk, Place.of(place.token()), size) == ids[done:]


def test_a_list_below_the_cap_is_asked_for_once() -> None:
    desk = Desk([*named("b", None, ""), *named("a", active=False, first=4)], 5)
    assert read(desk) == [1, 2, 3, 4]
    assert desk.asked == [(WHOLE, "")]


def test_a_list_of_exactly_the_cap_is_not_taken_for_complete() -> None:
    desk = Desk([*named("a", "b"), *named("a", active=False, first=3)], 3)
    assert read(desk) == [1, 2, 3]
    assert len(desk.asked) == 3


def many(prefix: str, count: int, first: int = 1) -> list[Row]:
    return named(*(f"{prefix}{ALPHABET[number % 36]}{number}" for number in range(count)), first=first)


@pytest.mark.parametrize("means", MEANINGS)
def test_a_foreign_character_that_is_seen_is_asked_for(means: Meaning) -> None:
    desk = Desk([*named("Ωmega", "a_b"), *many("a", 20, first=3)], 15, means)
    assert sorted(read(desk)) == list(range(1, 23))


def test_a_foreign_character_that_only_another_answer_shows_stops_the_reading() -> None:
    rows = [*many("x", 12), *named("Ωmega z", first=13)]
    with pytest.raises(GuardTripped, match="client 13 "):
        read(Desk(rows, 12))


@pytest.mark.parametrize("name", [None, ""])
def test_a_client_without_a_name_stops_a_list_that_is_cut(name: str | None) -> None:
    with pytest.raises(GuardTripped, match="client 1 has no name"):
        read(Desk([*named(name), *many("a", 10, first=2)], 10))


@pytest.mark.parametrize("means", MEANINGS)
def test_a_name_that_is_a_question_which_is_cut_stops_the_reading(means: Meaning) -> None:
    with pytest.raises(GuardTripped, match="client 1 has a name that is the beginning"):
        read(Desk([*named("AB"), *many("ab", 10, first=2)], 10, means))


def test_more_clients_of_one_beginning_than_the_cap_stop_the_reading() -> None:
    same = "a" * DEEPEST
    with pytest.raises(GuardTripped, match=f"the same {DEEPEST} characters") as trip:
        read(Desk(many(same, 10), 10))
    assert same not in str(trip.value)


def test_a_search_that_ignores_the_name_stops_the_reading() -> None:
    desk = Desk(many("a", 10), 10, ignored)
    desk.rows += named("zuse", first=11)
    with pytest.raises(GuardTripped, match="whose name it does not mean"):
        read(desk)
    desk = Desk([*named("zuse"), *many("a", 10, first=2)], 10, ignored)
    with pytest.raises(GuardTripped, match="client 1, whose name it does not mean"):
        read(desk)
    assert len(desk.asked) == 3


XYZ = [*named("Xyz"), *named("a0", "a1", "a2", first=2)]


@pytest.mark.parametrize(
    ("rows", "means"),
    [
        (XYZ, minding_case),
        (XYZ, minding_case_at_the_beginning),
        ([*named("Abc", "Axyz", first=10), *named("a0", "a1", first=1)], minding_case_at_the_beginning),
        ([*named("a0", "a1", "a2", "a3"), *named("Xalfa", first=5)], minding_case),
    ],
    ids=["anywhere", "at the beginning", "second letter", "seen in another part only"],
)
def test_a_search_that_minds_upper_case_stops_the_reading(rows: list[Row], means: Meaning) -> None:
    with pytest.raises(GuardTripped, match="no search by a beginning of its name gives it"):
        read(Desk(rows, 4, means))


def test_a_client_that_neither_the_active_nor_the_blocked_show_stops_the_reading() -> None:
    class Half(Desk):
        def by_name(self, kind: int, question: str) -> list[Row]:
            return [row for row in super().by_name(kind, question) if kind == WHOLE or row["id"] != 1]

    with pytest.raises(GuardTripped, match="client 1 "):
        read(Half(many("a", 10), 10))


def test_a_search_with_wildcards_gives_more_and_loses_nothing() -> None:
    assert sorted(read(Desk([*named("a_b", "a%c"), *many("a", 20, first=3)], 15, like))) == list(range(1, 23))


def test_nobody_is_asked_for_by_document_as_long_as_nothing_is_missing() -> None:
    class Quiet(Desk):
        def by_document(self, document: str) -> list[Row]:
            raise AssertionError("there was no reason to ask")

    rows = [*many("ab", 10), *many("b", 10, first=11)]
    assert sorted(read(Quiet(rows, 12))) == list(range(1, 21))


def test_a_search_without_accents_gives_more_and_loses_nothing() -> None:
    plain = str.maketrans("áã", "aa")
    rows = [*many("á", 5), *many("Ã", 5, first=6), *many("a", 5, first=11)]
    desk = Desk(rows, 7, lambda question, name: question.translate(plain) in name.lower().translate(plain))
    assert sorted(read(desk)) == list(range(1, 16))


def test_a_search_that_takes_spaces_away_is_understood() -> None:
    rows = [*named("ab  z9"), *many("ab", 10, first=2), *many("ab ", 10, first=12)]
    assert sorted(read(Desk(rows, 15, trimmed))) == list(range(1, 22))
    rows = [*many("ab", 10), *many("ab ", 10, first=11), *named("ab  z9", first=21)]
    with pytest.raises(GuardTripped, match="client 21 "):
        read(Desk(rows, 15, trimmed))


def test_too_many_questions_stop_the_reading() -> None:
    with pytest.raises(GuardTripped, match=f"{MOST_ASKED} searches"):
        read(Desk(many("a", 20), 10), Place(asked=MOST_ASKED - 5))


def test_half_a_character_where_a_search_is_cut_stops_the_reading() -> None:
    with pytest.raises(GuardTripped, match="half a character"):
        read(Desk([*named("\ud800x"), *many("a", 10, first=2)], 10))


def on_question(desk: Desk, question: str, change: Callable[[], None]) -> None:
    """Changes the list just before this question is answered for the first time."""
    left = [question]

    def before(kind: int, asked: str) -> None:
        if left and kind != WHOLE and asked == left[0]:
            left.clear()
            change()

    desk.before = before


def test_a_client_that_goes_away_or_is_renamed_while_the_list_is_read_stops_nothing() -> None:
    desk = Desk([*named("zuse", "zuse"), *many("a", 10, first=3)], 12)

    def change() -> None:
        desk.rows[1]["nome_fantasia"] = "abacaxi"
        del desk.rows[0]

    on_question(desk, "z", change)
    assert sorted(read(desk)) == list(range(3, 13))


def test_a_client_that_comes_behind_the_place_of_reading_stops_nothing() -> None:
    desk = Desk(many("a", 10), 10)
    on_question(desk, "z", lambda: desk.rows.extend(named("abacuz", first=50)))
    assert sorted(read(desk)) == list(range(1, 11))


def test_a_foreign_character_that_comes_while_the_list_is_read_stops_the_reading() -> None:
    """Others that begin with it may have been hidden all the time."""
    desk = Desk(many("a", 10), 10)
    on_question(desk, "z", lambda: desk.rows.insert(0, named("Ωz", first=50)[0]))
    with pytest.raises(GuardTripped, match="client 50 "):
        read(desk)


def test_a_client_that_is_blocked_while_the_list_is_read_is_given_once_at_least() -> None:
    desk = Desk(many("a", 10), 10)
    on_question(desk, "z", lambda: desk.rows[0].update(is_ativo=False))
    assert set(read(desk)) == set(range(1, 11))


def test_a_list_that_grows_beyond_the_cap_between_two_readings_is_read_on_whole() -> None:
    desk = Desk(many("a", 9), 10)
    (first, place), *_ = with_places(desk, 4)
    desk.rows += many("b", 5, first=10)
    assert {*first, *read(desk, place)} == set(range(1, 15))


@pytest.mark.parametrize("means", MEANINGS)
def test_a_list_that_shrinks_or_grows_between_two_readings_loses_nothing_that_stays(means: Meaning) -> None:
    rows = [*many("ab", 14), *many("ac", 9, first=15), *many("b", 8, first=24)]
    gone = set(range(5, 15))
    stays = [row for row in rows if row["id"] not in gone]
    more = [*rows, *many("bc", 12, first=100), *many("aca", 4, first=200)]
    before: set[int] = set()
    for numbers, place in with_places(Desk(rows, 10, means, "abcdefghijklmn"), 3):
        before.update(numbers)
        for now in (stays, more):
            after = read(Desk(now, 10, means, "abcdefghijklmn"), place)
            assert before.union(after) >= {row["id"] for row in stays}
            assert now is stays or before.union(after) >= {row["id"] for row in rows}


def test_rows_without_an_id_are_given_once_and_before_the_others() -> None:
    odd: list[Any] = ["text", {"nome_fantasia": "a", "is_ativo": True, "cnpj_cpf": "", "id": "7"}]
    desk = Desk(named("a", "b"), 100)
    desk.rows = [*desk.rows, *odd]
    pages = with_places(desk, 1)
    numbers = [number for rows, _ in pages for number in rows]
    assert numbers[2:] == [1, 2]
    assert len(set(numbers)) == 4
    for done, (_, place) in enumerate(pages[:4], start=1):
        assert read(desk, place, 1) == numbers[done:]


@pytest.mark.parametrize("token", ["x", "7", "{}", '[9,"a",null,0]', "[1,5,null,0]", "null"])
def test_a_token_that_is_none_stops_the_reading(token: str) -> None:
    with pytest.raises(GuardTripped):
        Place.of(token)
