"""A customer of the hub's own store is forgotten: no file holds a trace, and callers of the API get all the others."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.conftest import MakeHub
from tests.acceptance.data_syncs import COLUMNS, NAME, Caller, audited, customers, export, write
from tests.acceptance.servers import Serve
from tests.acceptance.test_forget import forgotten, traces

PERSON = ["K-4711", "Zulmira Esquecida", "zulmira.esquecida@example.org", "Olinda", "+55 81 3429", "7,50"]


def test_what_was_sent_and_what_is_given_holds_all_others(make_hub: MakeHub, tmp_path: Path) -> None:
    hub = make_hub(0)
    hub.overlay({}, **{NAME: {"streams": {"by_email": {"type": "import", "kind": "customers", "match": "email"}}}})
    others = list(customers(1, 300))
    table = write(tmp_path / "customers.csv", [*others[:100], PERSON, *others[100:]])
    with Serve(hub) as serve:
        api = Caller(hub, serve)
        api.send("import/customers_import", table)
        api.finished("customers_import")
        api.send("import/by_email", f"email,city\n{PERSON[2]},Recife\n{others[3][2]},Natal\n".encode())
        api.finished("by_email")
        export(hub, "customers_export")
        assert sum(row[0] == PERSON[0] for row in api.rows("export/customers_export")) == 1
        (sent,) = api.finished("customers_import")
        assert serve.end() == 0
    words = PERSON[:3]
    assert {trace.partition(" in ")[0] for trace in traces(hub, *words)} == set(words)

    done = forgotten(hub, PERSON[0])

    erased = done.document["erased"]
    assert (erased["objects"], erased["uploaded rows"], erased["exported rows"]) == (1, 2, 1)
    assert list(traces(hub, *words)) == []
    assert audited(hub)["customers_import"]["delivered"] == 301
    with Serve(hub) as serve:
        api = Caller(hub, serve)
        assert list(api.rows(f"customers_import/{sent['id']}/download")) == [COLUMNS, *others[:100], [], *others[100:]]
        exported = sorted(row[0] for row in api.rows("export/customers_export"))
        assert exported == sorted(["id", *(row[0] for row in others)])
        assert serve.end() == 0
    assert not any(forgotten(hub, PERSON[0]).document["erased"].values())
