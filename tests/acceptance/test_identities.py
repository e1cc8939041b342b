"""One client per document, whatever the source holds of it."""

from collections import Counter
from datetime import datetime

import pytest
import requests

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import Document, Hub, counts

OTHER_DOCUMENT = "52998224725"


def newest_of_each(hub: Hub) -> dict[str, Document]:
    """The contact of each document that was changed last; of equally old ones that with the larger Id."""
    rows = sorted(hub.rows("ploomes"), key=lambda row: (_instant(row["LastUpdateDate"]), row["Id"]))
    return {row["Register"]: row for row in rows if row["Register"]}


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("shape", [{}, {"source": {"page_size": 3}, "sink": {"batch_size": 1, "lanes": 2}}])
def test_contacts_that_share_a_document_become_one_client_and_the_newest_wins(
    make_hub: MakeHub, shape: Document
) -> None:
    hub = make_hub(40, overlay=shape, duplicates=6)
    repeated = {document: n for document, n in Counter(document for document, _ in hub.at_source()).items() if n > 1}
    assert sum(repeated.values()) - len(repeated) == 6

    done = hub.run()

    assert done.code == 0, done
    assert done.customers["delivered"] + done.customers["superseded"] == 40
    newest = newest_of_each(hub)
    clients = {row["cnpj_cpf"]: row["written"]["cliente_id_integracao"] for row in hub.rows("milvus")}
    assert clients == {document: row["Id"] for document, row in newest.items()}
    assert not hub.stats("milvus")["repeated_documents"]
    assert hub.audited().keys() == {"fetched", "delivered", "superseded"}


def test_of_two_contacts_in_one_batch_only_the_newest_travels(make_hub: MakeHub) -> None:
    hub = make_hub(20, duplicates=3)

    done = hub.run()

    assert counts(done.customers) == {"fetched": 20, "delivered": 17, "superseded": 3}
    assert hub.stats("milvus")["creates"] == 17
    again = hub.run("--full")
    assert counts(again.customers) == {"fetched": 20, "unchanged": 17, "superseded": 3}
    assert hub.stats("milvus")["updates"] == 0


def test_a_contact_without_a_document_is_invalid_until_it_is_filled_in(make_hub: MakeHub) -> None:
    hub = make_hub(20, undocumented=2)
    nameless = sorted(row["Id"] for row in hub.rows("ploomes") if not row["Register"])

    done = hub.run()

    assert done.code == 3, done
    assert counts(done.customers) == {"fetched": 20, "delivered": 18, "invalid": 2}
    failures = hub.failures()
    assert sorted(failure["key"] for failure in failures) == [f"ploomes:{number}" for number in nameless]
    assert {(failure["outcome"], failure["number"]) for failure in failures} == {("invalid", 110)}

    hub.change(nameless[0], Register=OTHER_DOCUMENT)
    mended = hub.run()

    assert (mended.code, counts(mended.customers)) == (0, {"fetched": 1, "delivered": 1})
    assert [failure["key"] for failure in hub.failures()] == [f"ploomes:{nameless[1]}"]
    assert hub.at_target() == hub.at_source()
    assert hub.audited() == {"fetched": 21, "delivered": 19, "superseded": 1, "invalid": 1}


def test_a_malformed_document_is_invalid_and_its_neighbours_travel(make_hub: MakeHub) -> None:
    hub = make_hub(30, invalid=4)

    done = hub.run()

    assert done.code == 3, done
    assert counts(done.customers) == {"fetched": 30, "delivered": 26, "invalid": 4}
    failures = hub.failures("--number", "111")
    assert {failure["field"] for failure in failures} == {"Register"}
    assert len(failures) == 4
    assert hub.audited() == {"fetched": 30, "delivered": 26, "invalid": 4}


def test_an_invalid_contact_read_again_is_a_duplicate_and_one_failure(make_hub: MakeHub) -> None:
    hub = make_hub(30, invalid=2, undocumented=2)
    assert hub.run().code == 3

    again = hub.run("--full")

    assert counts(again.customers) == {"fetched": 30, "unchanged": 26, "duplicate": 4}
    assert len(hub.failures()) == 4
    assert hub.audited() == {"fetched": 30, "delivered": 26, "invalid": 4}


def test_a_contact_that_gets_another_document_becomes_another_client(hub: Hub) -> None:
    assert hub.run().code == 0
    moved = hub.rows("ploomes")[0]
    kind = {"TypeId": 2, "Name": "Pessoa Mudada"}
    hub.change(moved["Id"], Register=OTHER_DOCUMENT, **kind)

    done = hub.run()

    assert (done.code, counts(done.customers)) == (0, {"fetched": 1, "delivered": 1})
    assert dict(hub.at_target())[OTHER_DOCUMENT] == "Pessoa Mudada"
    assert (hub.arrived(), hub.stats("milvus")["deletes"]) == (41, 0)


def test_a_client_that_the_target_held_before_is_updated_and_not_doubled(hub: Hub) -> None:
    """Half of the customers were typed into the target by hand, some with another name."""
    headers = {"Authorization": hub.sandbox.milvus.token}
    for document, name in hub.at_source()[::2]:
        kind = "cliente_pessoa_fisica" if len(document) == 11 else "cliente_pessoa_juridica"
        names = {"nome": f"{name} Antigo"} if len(document) == 11 else {"nome_fantasia": f"{name} Antigo"}
        requests.post(
            f"{hub.environment['MILVUS_URL']}/cliente/criar",
            json={"cliente_documento": document, kind: names},
            headers=headers,
            timeout=30,
        ).raise_for_status()

    done = hub.run()

    assert (done.code, counts(done.customers)) == (0, {"fetched": 40, "delivered": 40})
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["updates"] == 20


def test_a_replay_of_what_is_still_invalid_keeps_each_failure_once(make_hub: MakeHub) -> None:
    hub = make_hub(30, invalid=2, undocumented=2)
    assert hub.run().code == 3

    done = hub.replay()

    assert (done.code, counts(done.document)) == (3, {"fetched": 4, "invalid": 4})
    assert len(hub.failures()) == 4
    assert hub.audited() == {"fetched": 30, "delivered": 26, "invalid": 4}
