"""Rows of CSV and JSON lines: what the `csv` and `json` modules write is read as they read it, and what nobody wrote so
is set aside row by row."""

from __future__ import annotations

import csv
import io
import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import NO_IDENTITY, TOO_LARGE, RecordError
from shared.tabular import IDENTITY, Format, Identities, Parsed, Place, Refused, identify, open_table, read
from shared.tabular.identity import Occurrences, joined
from shared.tabular.lines import LONGEST
from shared.tabular.separated import LONG_SEARCH

CSV = Format("csv")
JSONL = Format("jsonl")
TEXT = st.text(st.one_of(st.sampled_from('",;\n\r\t é😀a'), st.characters(exclude_categories=["Cs"])), max_size=8)
NAME = st.text("abcdefgh_é", min_size=1, max_size=4)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3),
    max_leaves=5,
)
Row = dict[str, Any]


def parsed(data: bytes, format: Format = CSV, place: Place | None = None) -> list[Parsed]:
    stream = io.BytesIO(data)
    table = open_table(stream, format)
    if place is not None:
        stream.seek(place.offset)
    return list(read(stream, table, place or table.start))


def rows(data: bytes, format: Format = CSV) -> list[Row]:
    found = parsed(data, format)
    assert [each.problem for each in found] == [None] * len(found)
    return [each.data for each in found]


def refusal(data: bytes, format: Format = CSV) -> str:
    with pytest.raises(Refused) as caught:
        parsed(data, format)
    return str(caught.value)


def resumes_everywhere(data: bytes, format: Format) -> None:
    whole = parsed(data, format)
    for number, each in enumerate(whole, 1):
        assert parsed(data, format, each.after) == whole[number:]


@given(
    header=st.lists(NAME, min_size=1, max_size=4, unique=True),
    values=st.data(),
    delimiter=st.sampled_from(",;\t"),
    ending=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
)
def test_what_the_csv_module_wrote_is_read_as_it_reads_it(
    header: list[str], values: st.DataObject, delimiter: str, ending: str, mark: bool
) -> None:
    table = values.draw(st.lists(st.lists(TEXT, min_size=len(header), max_size=len(header)), max_size=6))
    text = io.StringIO()
    # The writer leaves a carriage return bare where its lines end in a mere line feed, and its own reader refuses that.
    quoting = csv.QUOTE_ALL if any("\r" in value for row in table for value in row) else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=quoting).writerows([header, *table])
    data = text.getvalue().encode("utf-8-sig" if mark else "utf-8")
    format = Format("csv", delimiter)
    expected = list(csv.DictReader(io.StringIO(text.getvalue(), newline=""), delimiter=delimiter))
    assert rows(data, format) == expected
    resumes_everywhere(data, format)
    lines = [each.line for each in parsed(data, format)]
    begins = [1 + text.getvalue().encode()[: each.offset].count(b"\n") for each in places(data, format)]
    assert [begin for begin in begins if begin in lines] == lines


def places(data: bytes, format: Format) -> Iterator[Place]:
    """Where rows may start: behind the header, and behind each row."""
    mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    starts = [open_table(io.BytesIO(data), format).start, *(each.after for each in parsed(data, format))]
    return (Place(each.offset - mark, each.line) for each in starts)


@given(st.lists(st.dictionaries(NAME, VALUE, max_size=4), max_size=6), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_what_the_json_module_wrote_is_read_as_it_reads_it(objects: list[Row], plain: bool, ending: str) -> None:
    lines = [json.dumps(each, ensure_ascii=plain) for each in objects]
    data = "".join(line + ending for line in lines).encode()
    assert rows(data, JSONL) == [json.loads(line) for line in lines]
    resumes_everywhere(data, JSONL)


@given(st.lists(st.sampled_from(['"', ",", "\n", "a", "\r\n", '""', '","', "é", "1,2\n"]), max_size=40))
def test_whatever_stands_in_a_csv_every_line_is_read_and_reading_goes_on_anywhere(parts: list[str]) -> None:
    data = ("a,b\n" + "".join(parts)).encode()
    found = parsed(data)
    assert [each.line for each in found] == sorted({each.line for each in found})
    ends = [each.after.offset for each in found]
    assert ends == sorted(set(ends)) and (not ends or not data[ends[-1] :].strip())
    resumes_everywhere(data, CSV)


def test_the_header_tells_the_delimiter_and_a_quoted_one_in_it_does_not() -> None:
    assert rows(b"a;b\n1;2,5\n") == [{"a": "1", "b": "2,5"}]
    assert rows(b"a\tb\n1\t2;3\n") == [{"a": "1", "b": "2;3"}]
    assert rows(b'"x;y;z",b\n1,2\n') == [{"x;y;z": "1", "b": "2"}]
    assert rows(b"a\n1;2\n") == [{"a": "1;2"}]
    assert rows(b"a|b\n1|2\n", Format("csv", "|")) == [{"a": "1", "b": "2"}]


def test_the_mark_of_utf8_is_no_part_of_the_first_column_or_object() -> None:
    assert rows(b"\xef\xbb\xbfid,b\n1,2\n") == [{"id": "1", "b": "2"}]
    assert rows(b'\xef\xbb\xbf"id",b\r\n1,2\r\n') == [{"id": "1", "b": "2"}]
    assert rows(b'\xef\xbb\xbf{"id":1}\n', JSONL) == [{"id": 1}]


def test_a_row_says_its_physical_line_the_header_being_line_1() -> None:
    found = parsed(b'a,b\n1,"x\ny\r\nz"\n\n2,3\n4\n')
    assert [each.line for each in found] == [2, 6, 7]


def test_a_row_of_another_width_is_set_aside_with_its_text() -> None:
    found = parsed(b"a,b\n1\n2,3,4\n5,6\n")
    assert [each.problem is None for each in found] == [False, False, True]
    assert found[0].problem is not None and "1 fields" in found[0].problem[1] and "has 2" in found[0].problem[1]
    assert [found[0].data, found[1].data] == [{"row": "1"}, {"row": "2,3,4"}]
    assert found[0].digest != found[1].digest


def test_a_line_in_another_encoding_is_set_aside_alone_even_within_quotes() -> None:
    found = parsed(b'a,b\n1,S\xe3o\n2,x\n3,"y\nS\xe3o\n4,z"\n5,w\n')
    assert [(each.line, each.problem is None) for each in found] == [(2, False), (3, True), (4, False), (7, True)]
    assert found[2].problem is not None and "line 5 is not UTF-8" in found[2].problem[1]
    lines = parsed(b'{"a":1}\n{"a":"S\xe3o"}\n{"a":2}\n', JSONL)
    assert [each.problem is None for each in lines] == [True, False, True]


def test_a_quote_that_nobody_closed_costs_its_own_line_and_no_other() -> None:
    body = "".join(f"{n},good\n" for n in range(5_000))
    found = parsed(f'a,b\n0,"open\n{body}'.encode())
    assert [each.line for each in found if each.problem] == [2]
    assert len(found) == 5_001
    closed = parsed(b'a,b\n1,"open\n2,good\n3,"x" y\n4,good\n')
    assert [(each.line, each.problem is None) for each in closed] == [(2, False), (3, True), (4, False), (5, True)]


def test_text_after_a_closing_quote_and_a_lone_carriage_return_are_mistakes() -> None:
    found = parsed(b'a,b\n1,"x" y\n2,x\ry\n3,z\n4,5" pipe\n')
    assert [each.problem and each.problem[1] for each in found] == [
        "text follows a closing quote", "it holds a carriage return outside quotes", None, None,
    ]  # fmt: skip
    assert found[3].data == {"a": "4", "b": '5" pipe'}


def test_a_file_made_of_searches_is_not_searched_again_from_every_line() -> None:
    line = b'x",",y\n'
    data = b"a,b\n" + line * (4 * LONGEST // len(line))
    stream = io.BytesIO(data)
    table = open_table(stream, CSV)
    found = list(islice(read(stream, table, table.start), 20))
    assert len(found) < 20 and all(each.problem for each in found)
    assert found[-1].after.offset == len(data)
    resumes_everywhere(data, CSV)
    several = [each for each in found if "set aside" in (each.problem or (0, ""))[1]]
    assert several and all(each.after.line - each.line > LONG_SEARCH // len(line) for each in several)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a":', "not JSON"), (b"[1]", "no object"), (b"7", "no object"), (b'{"a":NaN}', "not JSON"),
        (b'{"a":1}{"b":2}', "not JSON"), (b'{"a":"\\ud800"}', "not JSON"), (b'{"_identity":"x"}', "_identity"),
        (b'{"a":' + b"[" * 100_000, "nested"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_object_is_set_aside_and_its_neighbours_are_read(line: bytes, reason: str) -> None:
    found = parsed(b'{"n":1}\n' + line + b'\n\n{"n":2}', JSONL)
    assert [each.line for each in found] == [1, 2, 4]
    assert found[1].problem is not None and reason in found[1].problem[1]
    assert [found[0].data, found[2].data] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("format", [CSV, JSONL])
def test_a_line_without_an_end_is_set_aside_and_never_held_in_memory(format: Format) -> None:
    row = b"1,2\n" if format is CSV else b'{"a":1}\n'
    head = b"a,b\n" if format is CSV else b""
    stream = Repeated([head, row, b'"x",' * 12_000_000, b"\n", row])
    table = open_table(stream, format)
    tracemalloc.start()
    found = list(read(stream, table, table.start))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [each.problem and each.problem[0] for each in found] == [None, TOO_LARGE, None]
    assert found[2].line == found[1].line + 1 and len(found[1].data["row"]) == 10_000
    assert peak < 8 * LONGEST


def test_a_stream_of_any_length_takes_the_memory_of_a_row() -> None:
    def peak(count: int) -> int:
        stream = Repeated([b"a,b\n", *([b'1,"%s"\n' % (b"x" * 200)] * count)])
        table = open_table(stream, CSV)
        tracemalloc.start()
        assert sum(1 for _ in read(stream, table, table.start)) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(20_000) < 400_000 < 20_000 * 200


class Repeated(io.BufferedReader):
    """A stream of parts, of which no more than one piece is in memory at a time."""

    def __init__(self, parts: list[bytes]) -> None:
        super().__init__(_Parts(parts), 65_536)


class _Parts(io.RawIOBase):
    def __init__(self, parts: list[bytes]) -> None:
        self._parts = [memoryview(part) for part in reversed(parts) if part]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._parts:
            return 0
        part = self._parts.pop()
        size = min(len(part), len(buffer))
        buffer[:size] = part[:size]
        if size < len(part):
            self._parts.append(part[size:])
        return size


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not even a header"), (b"\n1,2\n", "no header"), (b",\n", "no header"), (b"a,,b\n", "column 2"),
        (b"a,b,a\n", "twice"), (b"a, a\n", "twice"), (b"_identity,a\n", "_identity"), (b"\xe9,b\n", "UTF-8"),
        ("a,b\n".encode("utf-16"), "UTF-16"), ("a,b\n".encode("utf-16-le"), "zero bytes"), (b'a,"b\n1,2', "not closed"),
        (b"a,b\r1,2\r", "carriage return"), (b"PK\x03\x04\x00\x00", "zero bytes"), (b"a" * (LONGEST + 2), "more than"),
    ],
)  # fmt: skip
def test_what_has_no_header_that_names_its_columns_is_no_table(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


def test_a_header_without_a_key_column_is_refused_once_and_not_with_every_row() -> None:
    assert "order_id" in refusal(b"a,b\n1,2\n", Format("csv", key=("a", "order_id")))


@pytest.mark.parametrize("data", ['{"a":"é"}\n'.encode("utf-16"), b'{"a":"\xe9"}\n' * 20, b'{"a":"\xe9"}', b"\x00\x01"])
def test_json_lines_in_another_encoding_are_refused(data: bytes) -> None:
    assert "UTF-8" in refusal(data, JSONL)


def test_json_lines_that_begin_with_one_foreign_line_are_read() -> None:
    found = parsed(b'{"a":"\xe9"}\n{"a":1}\n', JSONL)
    assert [each.problem is None for each in found] == [False, True]
    assert parsed(b"", JSONL) == [] == parsed(b"\n\n", JSONL)


@given(st.lists(TEXT, min_size=2, max_size=3), st.lists(TEXT, min_size=2, max_size=3))
def test_different_keys_never_become_one_text(one: list[str], other: list[str]) -> None:
    if len(one) == len(other):
        assert (joined(one) == joined(other)) == (one == other)


def test_a_key_is_made_of_texts_and_whole_numbers_at_any_depth() -> None:
    identities = Identities(("id", "params.order"))
    assert identities.of({"id": 7, "params": {"order": "a|b"}}) == "7|a\\|b"
    assert identities.of({"id": "7", "params.order": "a|b"}) == "7|a\\|b"
    assert Identities(("id",)).of({"id": "a|b"}) == "a|b"
    for value in (None, "", "  ", 1.5, True, ["x"], {"x": 1}):
        with pytest.raises(RecordError) as caught:
            Identities(("id",)).of({"id": value})
        assert caught.value.number == NO_IDENTITY and caught.value.field == "id"
    with pytest.raises(RecordError):
        identities.of({"id": 1, "params": "x"})


def test_without_a_key_a_row_is_its_content_and_how_often_that_came_before() -> None:
    identities = Identities(())
    first, second, other = (identities.of(row) for row in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "2"}))
    assert first.removesuffix("#0") == second.removesuffix("#1") and first != second
    assert other.endswith("#0") and other.partition("#")[0] != first.partition("#")[0]
    again = Identities(())
    assert [again.of({"a": "2"}), again.of({"a": "1", "b": "2"})] == [other, first]


def test_a_stream_asks_for_the_identity_that_the_source_gave() -> None:
    assert identify({IDENTITY: "7"}) == "7"
    for row in ({}, {IDENTITY: ""}, {IDENTITY: 7}):
        with pytest.raises(RecordError):
            identify(row)


def test_occurrences_are_counted_exactly_however_many_and_however_often() -> None:
    chance = random.Random(1)
    names = [f"{int(chance.paretovariate(0.4)) % 20_000}".encode() for _ in range(60_000)]
    counted, seen = Occurrences(), Counter[bytes]()
    for name in names:
        assert counted.count(name) == seen[name]
        seen[name] += 1
    assert max(seen.values()) > 1_000 and len(seen) > 4_000


def test_different_rows_are_remembered_in_a_few_bytes_each() -> None:
    counted = Occurrences()
    count = 100_000
    tracemalloc.start()
    for number in range(count):
        counted.count(number.to_bytes(4, "big"))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 14 * count
