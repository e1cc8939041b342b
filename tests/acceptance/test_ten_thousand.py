"""Ten thousand customers through everything that goes wrong, and then what changed since."""

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, counts

REFUSALS = "429=2%,retry_after=0,503=1%"


def test_every_customer_arrives_once_and_afterwards_only_what_changed(make_hub: MakeHub) -> None:
    hub = make_hub(10_000, faults=f"{REFUSALS},drop=1%,short_pages=10%")

    first = hub.run()

    assert first.code == 0, first
    assert counts(first.customers) == {"fetched": 10_000, "delivered": 10_000}
    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 10_000, "delivered": 10_000}
    before = hub.stats("milvus")
    assert before["struck"].keys() >= {"429", "503", "drop"}
    assert hub.stats("ploomes")["struck"].keys() >= {"short_pages"}

    changed = set(hub.control("ploomes", "edit", count=500, seed=5)["documents"])
    gone = set(hub.control("ploomes", "delete", count=100, seed=6)["documents"])
    # Without lost answers each update that is sent is also counted once.
    hub.faults("milvus", REFUSALS)
    second = hub.run()

    assert second.code == 0, second
    assert counts(second.customers) == {"fetched": len(changed - gone), "delivered": len(changed - gone)}
    after = hub.stats("milvus")
    assert after["updates"] - before["updates"] == len(changed - gone)
    assert (after["creates"], after["deletes"], after["clients"]) == (before["creates"], 0, 10_000)
    assert [each for each in hub.at_target() if each[0] not in gone] == hub.at_source()

    everything = 10_000 + len(changed - gone)
    assert hub.audited() == {"fetched": everything, "delivered": everything}

    deep = hub("audit", NAME, "--deep")

    assert deep.code == 8
    assert {(each["key"], each["where"]) for each in deep.document["unaccounted"]} == {(key, "source") for key in gone}
    assert len(deep.document["unaccounted"]) == len(gone) == 100
