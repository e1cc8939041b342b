"""The whole way: source function, Pub/Sub, ordered push, sink function, Firestore; the command looks at the books."""

from tests.acceptance.google.cloud import SOURCE
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.hub import NAME, counts
from tests.acceptance.servers import Serve

REFUSALS = "429=1%,retry_after=0,503=1%"


def test_three_thousand_customers_arrive_once_each_and_the_books_balance(make_google: MakeGoogleHub) -> None:
    hub = make_google(3_000, faults=f"{REFUSALS},drop=1%,short_pages=10%")
    with Serve(hub) as serve:
        answer = serve.post(SOURCE)
        assert answer.status_code == 200, answer.text
        assert answer.json()["streams"]["customers"]["fetched"] == 3_000
        hub.wait_until_settled(3_000)

        assert hub.at_target() == hub.at_source()
        assert hub.audited() == {"fetched": 3_000, "delivered": 3_000}
        assert hub.stats("milvus")["struck"].keys() >= {"429", "503", "drop"}
        assert hub.stats("ploomes")["struck"].keys() >= {"short_pages"}
        before = hub.stats("milvus")
        changed = hub.control("ploomes", "edit", count=50, seed=5)["documents"]
        # Without lost answers each update that is sent is also counted once.
        hub.faults("milvus", REFUSALS)

        run = hub.run()

        assert run.code == 0, run
        assert counts(run.customers) == {"fetched": len(changed), "delivered": len(changed)}
        assert serve.end() == 0
    after = hub.stats("milvus")
    assert after["updates"] - before["updates"] == len(changed)
    assert (after["creates"], after["clients"]) == (before["creates"], 3_000)
    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 3_000 + len(changed), "delivered": 3_000 + len(changed)}
    status = hub.status()
    assert (status["state"], status["lease"], status["pending"]) == ("settled", None, 0)
    assert hub("runs", NAME).document["runs"][0]["delivered"] == len(changed)
