"""The tickets of Milvus and what is noted on them.

Field names, filters and the paging by query string: vendor documentation. Not known of the real one and chosen
here: a list without a status filter shows open tickets only (waiting, in progress, paused), the names of desks
and sectors, that a blocked client may still get a ticket, that a page of more than 1000 is refused, that a filter
must not be empty, which filters look for a part and which for the whole, the labels in a row (those of the
filter), and the form of a follow-up that is read. Paging options in the body are ignored, as one team reports.
Fields and filters that the documentation does not list are refused, and so are those it lists without a meaning
that could be kept here.
"""

import operator
import random
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.sandbox.milvus_body import TICKET_TEXTS, Missing, Refused, check_ticket, text
from tests.sandbox.milvus_client import Clients, Index, known
from tests.sandbox.people import BRASILIA, Row
from tests.sandbox.system import Part, Setup, System

STATUSES = {
    1: "AgAtendimento", 2: "Atendendo", 3: "Pausado", 4: "Finalizado", 5: "Conferencia", 6: "Agendado",
    7: "Expirado", 11: "AgSolucao",
}  # fmt: skip
OPEN = frozenset(STATUSES[number] for number in (1, 2, 3))
# A status to filter by that is none a ticket can have.
VIEWS = {9: "ChamadosAbertos", 10: "Todos", 13: "AbertosNaoAgendados", 14: "SemTecnico"}
FINISH_TEXTS = {
    "chamado_codigo", "chamado_servico_realizado", "chamado_equipamento_retirado", "chamado_material_utilizado",
}  # fmt: skip
EXACT = {
    "cliente_token", "email_conferencia", "mesa_trabalho", "setor", "categoria_primaria", "categoria_secundaria",
    "prioridade",
}  # fmt: skip
PARTIAL = {"assunto": "assunto", "cliente": "cliente", "nome_contato": "contato", "tecnico": "email_tecnico"}
PERIODS: dict[str, tuple[str, Callable[[str, str], bool]]] = {
    "data_hora_criacao_inicial": ("data_criacao", operator.ge),
    "data_hora_criacao_final": ("data_criacao", operator.le),
    "data_hora_solucao_inicial": ("data_solucao", operator.ge),
    "data_hora_solucao_final": ("data_solucao", operator.le),
}
IN_QUERY = {"total_registros", "pagina", "order_by", "is_descending"}
SORTABLE = {"codigo", "id", "assunto", "cliente", "status", "data_criacao", "data_modificacao", "data_solucao"}
PER_PAGE, MOST_PER_PAGE = 50, 1000
FIRST_NUMBER = 10_001
MOMENT = "%Y-%m-%d %H:%M:%S"
ID_AHEAD = 7_000_000
BLANK: Row = {
    "prioridade": "Normal", "contato": "", "email_conferencia": "", "telefone": "", "tecnico": None,
    "email_tecnico": "", "mesa_trabalho": "", "setor": "", "categoria_primaria": "", "categoria_secundaria": "",
    "categorias": [], "origem": "API", "impacto": None, "urgencia": None, "data_resposta": None,
    "data_agendamento": None, "data_solucao": None, "total_horas": "00:00", "servico_realizado": None,
    "ultima_log": None, "ultimas_cinco_logs": [], "motivo_pausa": None, "sla": {}, "status_sla_resposta": None,
    "status_sla_solucao": None, "conciliado": False, "codigo_do_conciliado": None, "dispositivo_vinculado": None,
    "total_avaliacao": None, "descricao_avaliacao": None,
}  # fmt: skip
Predicate = Callable[[Row], bool]


class Tickets(Part):
    """`rows_by_number` maps the ticket number to the row that is read; `bodies` to what it was created from;
    `follow_ups` to what was noted on it."""

    def __init__(self, desk: System, setup: Setup, clients: Clients) -> None:
        self.rows_by_number: dict[int, Row] = {}
        self.bodies: dict[int, Row] = {}
        self.follow_ups: dict[int, list[Row]] = {}
        self.by_subject = Index()
        self._clients = clients
        self._clock = desk.clock
        self._chance = random.Random(f"{setup.seed} milvus tickets")
        self._last_number = FIRST_NUMBER - 1
        self._last_note = 0

    def rows(self) -> list[Row]:
        """As they are read, with the body of the creation as `written` and the follow-ups."""
        return [
            row | {"written": self.bodies[number], "follow_ups": self.follow_ups[number]}
            for number, row in self.rows_by_number.items()
        ]

    def identity(self, row: Row) -> tuple[int, str | None]:
        return row["codigo"], None

    def edit(self, count: int, seed: int) -> list[Row]:
        """Somebody begins so many tickets, and pauses those that were begun."""
        numbers = random.Random(seed).sample(sorted(self.rows_by_number), count)
        for number in numbers:
            begun = self.rows_by_number[number]["status"] == STATUSES[2]
            self._replace(number, {"status": STATUSES[3 if begun else 2]})
        return [self.rows_by_number[number] for number in numbers]

    def delete(self, count: int, seed: int) -> list[Row]:
        return self.remove(random.Random(seed).sample(sorted(self.rows_by_number), count))

    def add(self, count: int) -> list[Row]:
        """Opened by hand for clients that are there."""
        tokens = list(self._clients.by_token)
        if count and not tokens:
            raise ValueError("a ticket needs a client, and there is none")
        numbers = []
        for _ in range(count):
            subject = f"Aberto por telefone {self._chance.randrange(10**9)}"
            body = {"cliente_id": self._chance.choice(tokens), "chamado_assunto": subject}
            numbers.append(self.create(body | {"chamado_descricao": "Cliente ligou."}))
        return [self.rows_by_number[number] for number in numbers]

    def change(self, ids: Sequence[int], fields: Row) -> list[Row]:
        """Takes the fields of a ticket as it is read, but for its numbers and its client; the status also as a
        number. `{"status": 2}` begins a ticket. Nothing else is checked."""
        known(self.rows_by_number, ids)
        settable = {"assunto", "descricao", "status", "data_criacao", "data_modificacao"} | BLANK.keys()
        if unknown := fields.keys() - settable:
            raise ValueError(f"a ticket has no field {min(unknown)} to be set")
        if "status" in fields:
            status = STATUSES.get(fields["status"], fields["status"])
            if status not in STATUSES.values():
                raise ValueError(f"no ticket has the status {status!r}")
            fields = fields | {"status": status}
        for number in ids:
            self._replace(number, fields)
        return [self.rows_by_number[number] for number in ids]

    def remove(self, ids: Sequence[int]) -> list[Row]:
        known(self.rows_by_number, ids)
        removed = [self.rows_by_number.pop(number) for number in ids]
        for row in removed:
            del self.bodies[row["codigo"]], self.follow_ups[row["codigo"]]
            self.by_subject.drop(row["assunto"], row["codigo"])
        return removed

    def create(self, body: Row) -> int:
        """The number of a new ticket, even if there is one just like it."""
        check_ticket(body)
        token = body["cliente_id"]
        if token not in self._clients.by_token:
            raise Refused("Cliente não encontrado: cliente_id deve ser o token do cliente")
        self._last_number += 1
        number, now = self._last_number, self._now()
        client = self._clients.rows_by_id[self._clients.by_token[token]]
        kept = {field: body[name] for name, field in TICKET_TEXTS.items() if name in body}
        self.rows_by_number[number] = {
            "id": number + ID_AHEAD,
            "codigo": number,
            "status": STATUSES[1],
            "cliente": client["nome_fantasia"],
            "cliente_token": token,
            **BLANK,
            **kept,
            "categorias": [body["categoria_id"]] if "categoria_id" in body else [],
            "data_criacao": now,
            "data_modificacao": now,
        }
        self.bodies[number] = body
        self.follow_ups[number] = []
        self.by_subject.put(body["chamado_assunto"], number)
        return number

    def listed(self, query: Mapping[str, str], body: Row) -> Row:
        """One page of the tickets that suit all filters."""
        if unknown := (query.keys() - IN_QUERY) | (body.keys() - IN_QUERY - {"filtro_body"}):
            raise Refused(f"Campo inválido: {min(unknown)}")
        per_page, page = _whole(query, "total_registros", PER_PAGE), _whole(query, "pagina", 1)
        if per_page > MOST_PER_PAGE:
            raise Refused(f"Campo inválido: total_registros não pode passar de {MOST_PER_PAGE}")
        order, descending = query.get("order_by", "codigo"), query.get("is_descending", "true")
        if order not in SORTABLE or descending not in ("true", "false"):
            raise Refused("Campo inválido: order_by ou is_descending")
        filters = body.get("filtro_body", {})
        if not isinstance(filters, dict):
            raise Refused("Campo inválido: filtro_body")
        suits = [self._filter(name, value) for name, value in filters.items()]
        if "status" not in filters:
            suits.append(lambda row: row["status"] in OPEN)
        found = [row for row in self.rows_by_number.values() if all(suit(row) for suit in suits)]
        found.sort(key=lambda row: (row[order] is not None, row[order], row["codigo"]), reverse=descending == "true")
        start = (page - 1) * per_page
        rows = found[start : start + per_page]
        numbers = {
            "current_page": page,
            "total": len(found),
            "to": start + len(rows) if rows else 0,
            "from": start + 1 if rows else 0,
            "last_page": max(1, -(-len(found) // per_page)),
            "per_page": per_page,
        }
        return {"meta": {"paginate": {name: str(number) for name, number in numbers.items()}}, "lista": rows}

    def finish(self, body: Row) -> int:
        """The number of the ticket, now finished; one that was finished stays as it is."""
        if unknown := body.keys() - FINISH_TEXTS:
            raise Refused(f"Campo inválido: {min(unknown)}")
        if not all(isinstance(value, str) for value in body.values()):
            raise Refused("Campo inválido: os dados da finalização são textos")
        number = self.number(body.get("chamado_codigo"))
        status = self.rows_by_number[number]["status"]
        if status == STATUSES[1]:
            raise Refused("O chamado ainda está a fazer e não pode ser finalizado")
        if status != STATUSES[4]:
            done = {"servico_realizado": body.get("chamado_servico_realizado"), "data_solucao": self._now()}
            self._replace(number, {"status": STATUSES[4]} | done)
        return number

    def follow_up(self, body: Row) -> None:
        """Notes something on a ticket."""
        names = {"ticket", "descricao", "privado"}
        if unknown := body.keys() - {f"acompanhamento_{name}" for name in names} - {"atendimento_total_horas"}:
            raise Refused(f"Campo inválido: {min(unknown)}")
        number = self.number(body.get("acompanhamento_ticket"))
        said, hours = body.get("acompanhamento_descricao"), body.get("atendimento_total_horas", "00:00")
        if not text(said):
            raise Refused("Campo obrigatório: acompanhamento_descricao")
        if not isinstance(hours, str) or not re.fullmatch(r"\d\d:[0-5]\d", hours, re.ASCII):
            raise Refused("Campo inválido: atendimento_total_horas deve ter o formato HH:MM")
        private = body.get("acompanhamento_privado", False)
        if not isinstance(private, bool):
            raise Refused("Campo inválido: acompanhamento_privado")
        self._last_note += 1
        now = self._now()
        note = {"id": self._last_note, "descricao": said, "privado": private, "total_horas": hours, "data": now}
        self.follow_ups[number].append(note)
        log = {"tecnico": None, "texto": said, "texto_html": f"<p>{said}</p>", "data": now}
        logs = [log, *self.rows_by_number[number]["ultimas_cinco_logs"]][:5]
        self._replace(number, {"ultima_log": log, "ultimas_cinco_logs": logs})

    def notes(self, number: object, query: Mapping[str, str]) -> list[Row]:
        """What was noted on a ticket, the oldest first."""
        if unknown := query.keys() - {"privado"}:
            raise Refused(f"Campo inválido: {min(unknown)}")
        if query.get("privado", "true") not in ("true", "false"):
            raise Refused("Campo inválido: privado")
        notes = self.follow_ups[self.number(number)]
        return [note for note in notes if "privado" not in query or note["privado"] is (query["privado"] == "true")]

    def number(self, value: object) -> int:
        """The ticket number that a request gives as a number or as its digits."""
        if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value), re.ASCII):
            raise Refused("Campo inválido: código do chamado")
        if int(str(value)) not in self.rows_by_number:
            raise Missing("Chamado não encontrado")
        return int(str(value))

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), BRASILIA).strftime(MOMENT)

    def _replace(self, number: int, fields: Row) -> None:
        before = self.rows_by_number[number]
        self.rows_by_number[number] = before | {"data_modificacao": self._now()} | fields
        after = self.rows_by_number[number]["assunto"]
        if after != before["assunto"]:
            self.by_subject.drop(before["assunto"], number)
            self.by_subject.put(after, number)

    def _filter(self, name: str, value: Any) -> Predicate:
        if name == "status":
            return _status(value)
        if name in ("codigo", "cliente_id"):
            if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value), re.ASCII):
                raise Refused(f"Campo inválido: {name}")
            wanted = int(str(value))
            if name == "codigo":
                return lambda row: row["codigo"] == wanted
            return lambda row: self._clients.by_token.get(row["cliente_token"]) == wanted
        if not text(value):
            raise Refused(f"Campo inválido: {name}")
        if name in PARTIAL:
            field, part = PARTIAL[name], value.lower()
            return lambda row: part in (row[field] or "").lower()
        if name in EXACT:
            return lambda row: row[name] == value
        if name not in PERIODS:
            raise Refused(f"Campo inválido: {name}")
        if not _is_moment(value):
            raise Refused(f"Campo inválido: {name} deve ter o formato AAAA-MM-DD HH:MM:SS")
        field, within = PERIODS[name]
        return lambda row: row[field] is not None and within(row[field], value)


def _is_moment(value: str) -> bool:
    """Whether it has the form in which dates are shown, so that texts compare as their moments do."""
    try:
        return datetime.strptime(value, MOMENT).strftime(MOMENT) == value
    except ValueError:
        return False


def _status(value: object) -> Predicate:
    names = STATUSES | VIEWS
    label = names.get(int(str(value)), "") if re.fullmatch(r"\d+", str(value), re.ASCII) else value
    if label not in names.values():
        raise Refused("Campo inválido: status")
    if label in STATUSES.values():
        return lambda row: row["status"] == label
    if label == VIEWS[10]:
        return lambda row: True
    if label == VIEWS[14]:
        return lambda row: row["status"] in OPEN and not row["email_tecnico"]
    return lambda row: row["status"] in OPEN and (label == VIEWS[9] or row["data_agendamento"] is None)


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not re.fullmatch(r"\d+", value, re.ASCII) or int(value) < 1:
        raise Refused(f"Campo inválido: {name}")
    return int(value)
