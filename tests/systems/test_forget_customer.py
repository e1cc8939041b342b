"""A customer of the hub's own store is forgotten: object, keys and rows, in both homes, and nobody else's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from shared.books import Run
from shared.cleanup import UNNAMED
from shared.errors import Leased, StoreUnavailable
from shared.launches import Launch
from tests.contract import make
from tests.contract.world import START
from tests.systems.customer_story import HOMES, NAME, Story, told

PERSON = "P4711Q"
WHO = ("Zulmira", "zulmira@example.org", "zulmira.old@example.org", "Esquecida")
OTHERS = ("P4711Q0", "P4711", "1P4711Q", "P4711Q|x", "P4711Q\\|x")
"""Ids that look like the person's, or like what belongs to it."""
TRACE = re.compile(rf"(?<!\w){PERSON}(?!\w|\\*\|x)|{'|'.join(map(re.escape, WHO))}")


@pytest.fixture(params=HOMES)
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    with told(request, tmp_path) as story:
        yield story


def customers(*rows: str) -> str:
    return "\r\n".join(["id,name,email", *rows, ""])


def others() -> list[str]:
    return [f'{id},"Somebody ""{n}"",{n}\r\nof two lines",somebody{n}@example.org' for n, id in enumerate(OTHERS)]


def remember(story: Story) -> dict[str, Launch]:
    """The person in every kind of file, once under an address that is another by now."""
    first, *rest = others()
    refused = story.send("data_by_email", f"email,campaign,note\n{WHO[1]},c8,Zulmira\n")
    launches = {
        "refused": refused,
        "customers": story.send("customers_import", customers(first, f"{PERSON},Zulmira,{WHO[2]}", *rest)),
        "by_email": story.send("by_email", f"email,name\n{WHO[2]},Zulmira Esquecida\nnew@example.org,New\n"),
        "changed": story.send(
            "mapped", f"No.;Name;Age\n{PERSON};Zulmira;44\n{OTHERS[1]};Other;x\n{PERSON};Zulmira Esquecida;y\n"
        ),
        "unsubscriptions": story.send(
            "unsubscriptions_import", f"id,campaign,channel\n{PERSON},c1,sms\nP4711Q0,c1,sms\n{PERSON},c2,mail\n"
        ),
        "data": story.send("campaign_data_import", f"id,campaign,note\n{PERSON},c1,Zulmira\n{OTHERS[3]},c1,Other\n"),
    }
    story.home.objects.put("customers", {PERSON: {"email": WHO[1]}}, story.hub.clock.now())
    launches["data_by_email"] = story.send(
        "data_by_email", f"email,campaign,note\n{WHO[1]},c9,Esquecida\nsomebody0@example.org,c9,Other\n"
    )
    story.home.objects.put(
        "campaign_results",
        {"r1": {"id": PERSON, "what": "Zulmira clicked"}, "r2": {"id": "P4711Q0", "what": "clicked"}},
        story.hub.clock.now(),
    )
    for sync in ("customers_export", "unsubscriptions_export", "campaign_data_export", "campaign_results_export"):
        launches[sync] = story.export(sync)
    launches["deleted"] = story.send("customers_delete", f"id\n{PERSON}\n{OTHERS[0]}\n")
    story.home.objects.put("customers", {PERSON: {"email": WHO[1], "name": WHO[0]}}, story.hub.clock.now())
    return launches


def words_in(story: Story) -> list[str]:
    """What is left of the person."""
    return sorted(set(TRACE.findall(story.everything())))


def test_no_trace_is_left_of_a_customer_and_all_others_stay(story: Story) -> None:
    launches = remember(story)
    files = {name: story.upload(launch) for name, launch in launches.items() if launch.file}
    exports = {name: story.exported(launch) for name, launch in launches.items() if not launch.file}
    kept = {kind: story.ids(kind) for kind in ("customers", "unsubscriptions", "campaign_data", "campaign_results")}
    assert words_in(story) == sorted([PERSON, *WHO])
    found = story.traces(PERSON)
    assert {name: found[name] for name in ("objects", "uploaded rows", "exported rows")} == {
        "objects": 6, "uploaded rows": 10, "exported rows": 6,
    }  # fmt: skip

    erased = story.forget(PERSON)

    assert {name: erased[name] for name in found} == found
    assert words_in(story) == []
    assert story.is_balanced()
    assert story.traces(PERSON) == {}
    for name, before in files.items():
        lines = zip(before.split("\n"), story.upload(launches[name]).split("\n"), strict=True)
        assert all(after in (line, "") for line, after in lines)
        assert story.upload(launches[name]).count("\n") == before.count("\n")
    for id in OTHERS[1:]:
        assert f"{id}," in story.upload(launches["customers"])
    for name, before in exports.items():
        left = story.exported(launches[name]).splitlines()
        assert left == [line for line in before.splitlines() if not set(line.split(",")) & {PERSON, *WHO}]
        assert len(left) > 1
    assert story.ids("customers") == kept["customers"] - {PERSON}
    assert story.ids("campaign_results") == {"r2"}
    assert story.ids("unsubscriptions") == {"P4711Q0|c1|||:sms"}
    assert len(story.ids("campaign_data")) == len(kept["campaign_data"]) - 2
    assert not story.forget(PERSON)


@pytest.mark.parametrize("writes", [1, 7, 15, 30, 46, 53, 70])
def test_after_a_crash_in_the_middle_the_rest_is_forgotten(story: Story, writes: int) -> None:
    launches = remember(story)
    story.dies_after(writes)
    try:
        story.forget(PERSON)
    except StoreUnavailable:
        story.again()
    assert story.is_balanced()

    story.forget(PERSON)

    assert words_in(story) == []
    assert story.is_balanced()
    assert all(story.upload(launch) for launch in launches.values() if launch.file)


def test_nobody_is_forgotten_while_their_row_waits_to_be_read(story: Story) -> None:
    launch = story.send("customers_import", customers(*others(), f"{PERSON},Zulmira,z@example.org"), carry_out=False)
    before = story.upload(launch)
    with pytest.raises(Leased):
        story.forget(PERSON)
    story.forget("nobody's")
    assert story.upload(launch) == before
    story.work("customers_import")
    assert story.forget(PERSON)["uploaded rows"] == 1


def test_nobody_is_forgotten_while_a_run_reads_their_row_or_goes_on_behind_it(story: Story) -> None:
    launch = story.send("customers_import", customers(*others(), f"{PERSON},Zulmira,z@example.org"), carry_out=False)
    story.home.launches.note(msgspec.structs.replace(launch, state="begun"))
    for stream, id, after in (("customers_import", launch.run, ""), ("customers_export", "x-1", PERSON)):
        run = Run(id, NAME, stream, "fetch", "running", START, launch.window, after=after)
        make.commit(story.home, run)
        with pytest.raises(Leased):
            story.forget(PERSON)
        run.fetch_done = True
        story.home.runs.conclude(run)
    assert story.forget(PERSON) == {"uploaded rows": 1}
    assert words_in(story) == []


def test_rows_that_nobody_can_read_go_if_they_may_be_the_persons(story: Story) -> None:
    """One field too few, a quote that is not closed, no id, and a row longer than a record may be."""
    rows = [
        f"{PERSON},Zulmira",
        f'{PERSON},"Zulmira,z@example.org',
        f" ,Zulmira,{PERSON} ",
        f"1,{'x' * 20_000}",
        "P4711Q0,Somebody",
        "2,Anybody,a@example.org",
    ]
    launch = story.send("customers_import", customers(*rows))
    story.forget(PERSON)
    assert words_in(story) == []
    assert story.upload(launch) == customers("", "", "", "", *rows[4:]).replace("\r\n\r\n\r\n\r\n\r\n", "\r\n\n\n\n\n")
    assert story.is_balanced()


def test_a_file_that_is_no_table_goes_as_a_whole(story: Story) -> None:
    launch = story.send("customers_import", f"id,name\n{PERSON},Zulmira\n".encode("utf-16"))
    assert story.traces("nobody's") == {"unreadable uploads": 1}
    assert story.forget("nobody's") == {"unreadable uploads": 1}
    assert story.launch(launch).file == ""
    assert list(story.home.blobs.names("uploads/")) == []


def test_a_stream_that_is_configured_no_more_is_looked_through_all_the_same(story: Story) -> None:
    remember(story)
    story.again(WAYBILL_OVERLAY="")
    story.forget(PERSON)
    assert words_in(story) == []
    assert story.is_balanced()


def test_an_address_is_forgotten_as_a_key_where_rows_are_matched_by_it(story: Story) -> None:
    launch = story.send("by_email", "email,name\nzulmira@example.org,Zulmira\nother@example.org,Other\n")
    kept = story.send("customers_import", customers("1,Zulmira,zulmira@example.org"))
    assert story.forget("zulmira@example.org")["uploaded rows"] == 1
    assert story.upload(launch) == "email,name\n\nother@example.org,Other\n"
    assert "Zulmira" in story.upload(kept)
    assert story.ids("customers") == {"1", "other@example.org"}


def test_a_file_whose_launch_was_never_written_is_not_touched_before_its_time(story: Story) -> None:
    name = f"uploads/{NAME}/customers_import/lost"
    story.home.blobs.write(name, customers(f"{PERSON},Zulmira,z@example.org").encode())
    with pytest.raises(Leased):
        story.forget(PERSON)
    if story.is_embedded:
        at = (story.hub.clock.now() - UNNAMED).timestamp()
        os.utime(story.folder / "home" / "blobs" / name, (at, at))
        assert story.forget(PERSON) == {"unreadable uploads": 1}
        assert words_in(story) == []


@pytest.mark.parametrize("story", ["embedded"], indirect=True)
def test_what_a_killed_process_left_behind_goes_and_what_is_written_stays(story: Story) -> None:
    story.send("customers_import", customers("1,Other,o@example.org"))
    folder = story.folder / "home" / "blobs" / "uploads" / NAME / "customers_import"
    (folder / ".0123456789abcdef0123456789abcdef").write_text(f"{PERSON},Zulmira")

    def pieces() -> Iterator[bytes]:
        yield b"4712,"
        story.forget(PERSON)
        yield b"Other"

    assert story.home.blobs.write_pieces("archive/x", pieces()) == 10
    assert story.home.blobs.read("archive/x") == b"4712,Other"
    assert words_in(story) == []
