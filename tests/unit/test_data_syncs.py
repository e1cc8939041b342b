"""The keys of a data sync: what is said of wrong ones, what is shipped, and what an overlay adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest

from functions.data_syncs.mapping import KINDS_OF, OPTIONS, STREAMS, Match, rules
from infra.config import load
from infra.wiring import Hub
from shared.declared.faults import Faults
from shared.declared.fields import FieldRule
from shared.errors import ConfigError
from shared.kinds import KINDS
from shared.rules import Rules

Row = dict[str, Any]


def made(type: str, kind: str, **options: Any) -> Rules:
    return rules({"type": type, "kind": kind, **options})


def faults_of(**options: Any) -> dict[str, str]:
    """What is found at each place."""
    with pytest.raises(Faults) as refused:
        rules(options)
    assert all(each.expected and each.cure for each in refused.value.mistakes)
    return {each.path: each.found for each in refused.value.mistakes}


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        ({}, {"type": "nothing", "kind": "nothing"}),
        ({"type": "import"}, {"kind": "nothing"}),
        ({"type": "import", "kind": "campaign_results"}, {"kind": "`campaign_results`"}),
        ({"type": "delete", "kind": "priorities"}, {"kind": "`priorities`"}),
        ({"type": "delete", "kind": "campaign_results"}, {"kind": "`campaign_results`"}),
        ({"type": "export", "kind": "customers", "match": "email"}, {"match": "key `match`"}),
        ({"type": "export", "kind": "customers", "max_upload": 1}, {"max_upload": "key `max_upload`"}),
        (
            {"type": "import", "kind": "customers", "escape_formulas": True},
            {"escape_formulas": "key `escape_formulas`"},
        ),
        ({"type": "import", "kind": "customers", "match": "e-mail"}, {"match": "`e-mail`"}),
        ({"type": "import", "kind": "priorities", "match": Match("mail", "create")}, {"match.unmatched": "`create`"}),
        ({"type": "delete", "kind": "customers", "match": Match("mail", "create")}, {"match.unmatched": "`create`"}),
        ({"type": "import", "kind": "customers", "delimiter": ";;"}, {"delimiter": "`;;`"}),
        ({"type": "export", "kind": "customers", "delimiter": '"'}, {"delimiter": '`"`'}),
        ({"type": "import", "kind": "customers", "mapping": {}}, {"mapping": "nothing", "mapping.id": "nothing"}),
        ({"type": "export", "kind": "customers", "mapping": {" ": "id"}}, {"mapping. ": "an empty text"}),
        (
            {"type": "import", "kind": "campaign_data", "mapping": {"email": ""}, "match": "email"},
            {"mapping.email.from": "an empty text", "mapping.campaign": "nothing"},
        ),
        (
            {"type": "import", "kind": "customers", "mapping": {"id": FieldRule(from_="x", as_="nmber")}},
            {"mapping.id.as": "conversion `nmber`"},
        ),
        (
            {"kind": "customers", "mapping": {"name": FieldRule()}, "delimiter": "ab", "match": "a b"},
            {
                "type": "nothing", "mapping.name": "neither from nor constant", "mapping.a b": "nothing",
                "match": "`a b`", "delimiter": "`ab`",
            },
        ),
    ],
)  # fmt: skip
def test_all_that_is_wrong_is_told_at_once(options: Mapping[str, Any], faults: dict[str, str]) -> None:
    assert faults_of(**options) == faults


def test_a_match_by_id_is_none_and_customers_can_be_made() -> None:
    assert made("import", "unsubscriptions", match="id").settings["match"] == ""
    found = made("import", "customers", match=Match("email", "create")).settings
    assert (found["match"], found["unmatched"], found["needs"]) == ("email", "create", ["email"])


@pytest.mark.parametrize("name", KINDS_OF)
def test_a_data_sync_has_no_name_that_stands_elsewhere_in_addresses(name: str) -> None:
    found = STREAMS[name]
    with pytest.raises(ConfigError, match="called none of import, export, delete") as refused:
        found({"type": "import", "kind": "customers"})
    assert refused.value.cure == "rename the stream"


def test_the_kinds_are_those_of_the_store() -> None:
    assert get_args(OPTIONS["*"]["kind"]) == tuple(KINDS)
    assert get_args(OPTIONS["*"]["type"]) == tuple(KINDS_OF)


# --- as it is shipped ---


def test_what_is_shipped_works_without_an_overlay_and_begins_nothing_by_itself(tmp_path: Any) -> None:
    hub = Hub({"WAYBILL_HOME": str(tmp_path)})
    integration = hub.integration("data_syncs")
    streams = hub.streams(integration)
    assert {stream.name for stream in streams} == set(integration.streams)
    assert all(stream.schedule is None and stream.options["title"] for stream in integration.streams.values())
    directions = {(each.options["type"], each.options["kind"]) for each in integration.streams.values()}
    assert len(directions) == len(streams)
    assert list(tmp_path.iterdir()) == []


OVERLAY = """\
data_syncs:
  streams:
    by_email:
      type: import
      kind: customers
      match: {field: email, unmatched: create}
      mapping: {email: E-mail, born: {from: Birth date, as: date}}
      delimiter: ";"
      max_upload: 50000000
      authentication: false
    half: {enabled: false}
"""


def test_an_overlay_adds_data_syncs_and_one_that_is_off_may_lack_everything(tmp_path: Any) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(OVERLAY)
    hub = Hub({"WAYBILL_HOME": str(tmp_path), "WAYBILL_OVERLAY": str(overlay)})
    streams = {stream.name: stream for stream in hub.streams(hub.integration("data_syncs"))}
    assert "half" not in streams
    settings = streams["by_email"].rules.settings
    assert (settings["match"], settings["unmatched"], settings["needs"]) == (
        "email",
        "create",
        ["E-mail", "Birth date"],
    )
    with pytest.raises(ConfigError, match="type"):
        hub.streams(hub.integration("data_syncs"), "half")


def test_a_key_of_the_wrong_kind_is_told_where_it_stands(tmp_path: Any) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(OVERLAY.replace("max_upload: 50000000", "max_upload: 0").replace("unmatched: create", "x: y"))
    hub = Hub({"WAYBILL_OVERLAY": str(overlay)})
    with pytest.raises(ConfigError) as refused:
        load(hub.functions, overlay, hub.options_of)
    assert "streams.by_email.max_upload" in str(refused.value) and "streams.by_email.match" in str(refused.value)
