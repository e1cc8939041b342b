"""A fake of the Milvus help desk API: clients, their contacts, and tickets, as the vendor documentation describes
them.

Not known of the real one and chosen here: the JSON form of an error (`message`, seen typed in one public client)
and its status (400 for what is refused, 404 for what does not exist). What concerns clients or tickets alone is
said in their files.
"""

import random
import string
from collections import Counter
from typing import Any

import msgspec

from tests.sandbox.milvus_body import Missing, Refused
from tests.sandbox.milvus_client import Clients
from tests.sandbox.milvus_ticket import Tickets
from tests.sandbox.people import Row
from tests.sandbox.system import Answer, Divided, Request, Setup, answer

MOUNT = "/api"
LISTING = f"{MOUNT}/chamado/listagem"


class Milvus(Divided):
    """A help desk. `clients` maps id to the row that is read; `tickets` the ticket number."""

    name = "milvus"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        chance = random.Random(f"{setup.seed} milvus token")
        self.token = "".join(chance.choices(string.ascii_letters + string.digits, k=64))
        self._clients = Clients(self, setup, chance)
        self._tickets = Tickets(self, setup, self._clients)
        self.parts = {"clients": self._clients, "tickets": self._tickets}
        self.clients = self._clients.rows_by_id
        self.by_document = self._clients.by_document
        self.tickets = self._tickets.rows_by_number
        self.counts: Counter[str] = Counter(finds=0, creates=0, updates=0, deletes=0, refusals=0)

    def environment(self, url: str) -> dict[str, str]:
        return {"MILVUS_URL": url + MOUNT, "MILVUS_TOKEN": self.token}

    def authorised(self, request: Request) -> bool:
        return request.headers.get("authorization") == self.token

    def reads(self, request: Request) -> bool:
        return request.method == "GET" or request.path == LISTING

    def error(self, status: int, message: str) -> Answer:
        return answer(status, {"message": message})

    def stats(self) -> dict[str, Any]:
        """As for every system, with the operations on clients that succeeded, what there is, and what there is
        more than once. `refusals` counts those of every kind."""
        with self.lock:
            return super().stats() | self.counts | {
                "clients": len(self.clients),
                "clients_per_document": {document: len(ids) for document, ids in self.by_document.items()},
                "repeated_documents": dict(self.by_document.repeated),
                "contacts": len(self._clients.contacts),
                "tickets": len(self.tickets),
                "follow_ups": sum(len(notes) for notes in self._tickets.follow_ups.values()),
                "repeated_subjects": dict(self._tickets.by_subject.repeated),
            }  # fmt: skip

    def respond(self, request: Request) -> Answer:
        path = request.path.removeprefix(MOUNT)
        try:
            if path.startswith("/chamado/"):
                return self._on_tickets(request, path)
            return self._on_clients(request, path)
        except Missing as missing:
            return self.error(404, str(missing))
        except Refused as refusal:
            self.counts["refusals"] += 1
            return self.error(400, str(refusal))

    def _on_clients(self, request: Request, path: str) -> Answer:
        match request.method, *path.rpartition("/")[::2]:
            case "GET", "/cliente", "busca":
                self.counts["finds"] += 1
                return answer(200, {"lista": self._clients.find(request.query)})
            case "POST", "/cliente", "criar":
                client_id = self._clients.create(_body(request))
                self.counts["creates"] += 1
                return answer(200, client_id)
            case "PUT", "/cliente/alterar", key if key.isdecimal():
                self._clients.update(self._client(key), _body(request))
                self.counts["updates"] += 1
                return Answer(204)
            case "DELETE", "/cliente/excluir", key if key.isdecimal():
                self._clients.remove([self._client(key)])
                self.counts["deletes"] += 1
                return Answer(204)
            case "POST", "/cliente/contato", "criar":
                return answer(200, self._clients.create_contact(_body(request)))
            case "GET", "/cliente/contato", "pesquisar":
                return answer(200, self._clients.find_contacts(request.query))
        raise Missing("Recurso não encontrado")

    def _on_tickets(self, request: Request, path: str) -> Answer:
        match request.method, *path.rpartition("/")[::2]:
            case "POST", "/chamado", "criar":
                return answer(200, self._tickets.create(_body(request)))
            case "POST", "/chamado", "listagem":
                return answer(200, self._tickets.listed(request.query, _body(request)))
            case "PUT", "/chamado", "finalizar":
                return answer(200, self._tickets.finish(_body(request)))
            case "POST", "/chamado/acompanhamento", "criar":
                self._tickets.follow_up(_body(request))
                return Answer(204)
            case "GET", "/chamado/acompanhamento", key if key.isdecimal():
                return answer(200, {"status_code": 200, "retorno": self._tickets.notes(key, request.query)})
        raise Missing("Recurso não encontrado")

    def _client(self, key: str) -> int:
        if int(key) not in self.clients:
            raise Missing("Cliente não encontrado")
        return int(key)


def _body(request: Request) -> Row:
    try:
        return msgspec.json.decode(request.body, type=Row)
    except msgspec.DecodeError:
        raise Refused("O corpo da requisição não é um JSON válido") from None
