"""Both directions between one pair of systems: a change travels once, and neither side's is lost unseen."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import NAME, Document, Done, Hub
from tests.acceptance.test_pace import PER_MINUTE, hurried

BACK = "milvus_to_ploomes"
ROUNDS = 10


@pytest.fixture
def both(make_hub: MakeHub) -> Iterator[Hub]:
    """Sixty contacts and forty clients of other people, brought across once."""
    hub = make_hub(60, clients=40)
    hub.overlay({}, **{BACK: {}})
    for _ in range(2):
        assert there(hub).code == back(hub).code == 0
    yield hub


def there(hub: Hub) -> Done:
    return hub("run", NAME)


def back(hub: Hub) -> Done:
    return hub("run", BACK)


def writes(hub: Hub) -> int:
    """Requests that change something, as both systems counted them."""
    requests = {**hub.stats("ploomes")["requests"], **hub.stats("milvus")["requests"]}
    return sum(count for request, count in requests.items() if not request.startswith("GET "))


def contacts(hub: Hub) -> dict[str, Document]:
    return {row["Register"]: row for row in hub.rows("ploomes")}


def clients(hub: Hub) -> dict[str, Document]:
    return {row["cnpj_cpf"]: row for row in hub.rows("milvus") if row["is_ativo"]}


def names(hub: Hub) -> tuple[dict[str, str], dict[str, str]]:
    at_ploomes = {document: row["Name"] for document, row in contacts(hub).items()}
    return at_ploomes, {document: row["nome_fantasia"] for document, row in clients(hub).items()}


def rename(hub: Hub, system: str, document: str, name: str) -> None:
    if system == "ploomes":
        ids, fields = [contacts(hub)[document]["Id"]], {"Name": name}
    else:
        ids, fields = [clients(hub)[document]["id"]], {"nome_fantasia": name}
    hub.control(system, "edit", ids=ids, fields=fields)


def superseded(hub: Hub) -> int:
    return sum(hub("audit", name).document["streams"]["customers"]["superseded"] for name in (NAME, BACK))


def test_what_arrived_from_the_other_side_is_not_sent_back(make_hub: MakeHub) -> None:
    hub = make_hub(60, clients=40)
    hub.overlay({}, **{BACK: {}})
    active = len(clients(hub))
    first, second = there(hub), back(hub)
    assert (first.customers["delivered"], hub.stats("milvus")["creates"]) == (60, 60)
    assert second.customers["delivered"] == 60 + active
    assert hub.stats("ploomes")["requests"]["POST /Contacts"] == active
    before = writes(hub)
    for _ in range(2):
        assert there(hub).code == back(hub).code == 0
    assert writes(hub) == before == 60 + active
    assert names(hub)[0] == names(hub)[1]


@pytest.mark.parametrize("order", [(there, back), (back, there)], ids=["ploomes first", "milvus first"])
def test_each_edit_travels_once_and_stops_there(both: Hub, order: tuple[type, type]) -> None:
    """Ten rounds of random edits, none of them of one client on both sides, or twice before it came back."""
    chance = random.Random(7)
    before, edits = writes(both), 0
    everybody = sorted(names(both)[0].keys() & names(both)[1].keys())
    edited: list[str] = []
    for number in range(ROUNDS):
        edited = chance.sample([each for each in everybody if each not in edited], chance.randrange(0, 9))
        for document in edited:
            system = chance.choice(["ploomes", "milvus"])
            rename(both, system, document, f"Nome {number} {document[:4]} de {system}")
        edits += len(edited)
        assert [run(both).code for run in order] == [0, 0]
        assert names(both)[0] == names(both)[1]
        assert writes(both) - before == edits
    for _ in range(2):
        assert [run(both).code for run in order] == [0, 0]
    assert writes(both) - before == edits
    assert superseded(both) == 0


@pytest.mark.parametrize("order", [(there, back), (back, there)], ids=["ploomes first", "milvus first"])
def test_of_two_edits_in_one_interval_one_stays_on_both_sides_and_the_other_is_in_the_books(
    both: Hub, order: tuple[type, type]
) -> None:
    before = writes(both)
    chosen = sorted(names(both)[0].keys() & names(both)[1].keys())[:12]
    for document in chosen:
        rename(both, "ploomes", document, f"De Ploomes {document[:4]}")
        rename(both, "milvus", document, f"De Milvus {document[:4]}")
    for _ in range(3):
        assert [run(both).code for run in order] == [0, 0]
    at_ploomes, at_milvus = names(both)
    assert at_ploomes == at_milvus
    assert {at_ploomes[document].partition(" 1")[0][:6] for document in chosen} <= {"De Plo", "De Mil"}
    assert writes(both) - before == superseded(both) == len(chosen)
    for name in (NAME, BACK):
        assert both("audit", name, "--deep").code == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"nome_fantasia": " Novo  nome "},
        {"nome_fantasia": "Novo\u00a0nome"},
        {"observacao": "uma\r\noutra\n"},
        {"site": " https://novo.example "},
        {"nome_fantasia": None, "razao_social": "Nova Ltda"},
    ],
    ids=["blanks", "hard blank", "lines", "site", "one name"],
)
def test_an_edit_that_reads_otherwise_on_the_other_side_does_not_come_back(both: Hub, fields: Document) -> None:
    document = next(each for each in sorted(names(both)[0]) if len(each) == 14 and each in clients(both))
    before = writes(both)
    both.control("milvus", "edit", ids=[clients(both)[document]["id"]], fields=fields)
    for _ in range(3):
        assert back(both).code == there(both).code == 0
    assert writes(both) - before == 1


def test_both_directions_together_stay_below_the_accounts_limit(make_hub: MakeHub) -> None:
    """Six and four a second by our clock are 30 and 20 a minute by the sandbox's, which allows 50."""
    hub = make_hub(60, clients=30, clock=hurried(), ploomes_per_minute=PER_MINUTE)
    hub.overlay({"source": {"rate_limit": "6/s", "page_size": 1}}, **{BACK: {"sink": {"rate_limit": "4/s"}}})
    runs = [hub.start("run", name) for name in (NAME, BACK)]
    assert [hub.finish(run).code for run in runs] == [0, 0]
    stats = hub.stats("ploomes")
    assert sum(stats["requests"].values()) > 2 * PER_MINUTE
    assert stats["largest_minute"]["refused"] == 0
    assert stats["largest_minute"]["all"] <= PER_MINUTE


def test_a_split_above_the_limit_is_refused_by_check(make_hub: MakeHub) -> None:
    hub = make_hub(1)
    hub.overlay({"source": {"rate_limit": "81/min"}}, **{BACK: {"sink": {"rate_limit": "40/min"}}})
    checked = hub("check")
    assert checked.code == 2
    (mistake,) = [m for m in checked.document["mistakes"] if m["path"].endswith("rate_limit")]
    assert "121 calls a minute" in mistake["found"]
    hub.overlay({"source": {"rate_limit": "80/min"}}, **{BACK: {"sink": {"rate_limit": "40/min"}}})
    assert hub("check", NAME).code == 0
