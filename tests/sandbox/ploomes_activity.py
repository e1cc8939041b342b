"""The task and the interaction record of Ploomes: their fields, what can be expanded, and what a write may set.

Field names: type packages of public clients and the vendor's own tests; no captured response of either is known.
Chosen here: a task needs a Title or a Description, its ContactName is the contact's name at the last write, a
ContactId that is written must be that of a contact (a DealId is kept as it is, there are no deals here), and the
names of the task types. Left out, and therefore refused: the actions Finish and NewComment, the expands Contacts,
Deal, Comments and Attachments.
"""

import random
from abc import abstractmethod

from tests.sandbox.odata import QueryError, Schema
from tests.sandbox.people import TAGS, Dates, Row, stamp
from tests.sandbox.ploomes_contact import CONTACT, FIELD, OPTION, OWNERS, TAG
from tests.sandbox.ploomes_set import EntitySet, chosen_tags, objects, plain, tagged, typed
from tests.sandbox.system import Setup, System

READ_ONLY = {"Id", "ContactName", "CreateDate", "LastUpdateDate", "CreatorId", "UpdaterId", "Editable", "FinishDate"}
READ_ONLY |= {"FinisherId", "OriginTaskId", "OriginalTaskId", "TotalVoiceCallId", "InteractionRecordId"}
DAY = 24 * 60 * 60 * 1000
ORPHANS = 0.05

# Which tags, and how many of a hundred rows have them; None is any of the others.
TAG_SETS: dict[tuple[str | None, ...], int] = {
    ("INSTALAÇÃO",): 22, ("ENTREGA",): 22, ("INSTALAÇÃO", None): 4, (None, "ENTREGA"): 4,
    ("INSTALAÇÃO", "ENTREGA"): 8, (None,): 12, (None, None): 8, (): 20,
}  # fmt: skip
OTHER_TAGS = ("MANUTENÇÃO", "VISITA", "COBRANÇA")

ERRANDS = (
    "Instalar roteador", "Entregar nobreak", "Visitar para orçamento", "Cobrar boleto vencido", "Trocar câmera",
    "Retirar equipamento", "Configurar ramal", "Levar contrato assinado", "Revisar cabeamento", "Testar alarme",
)  # fmt: skip
REMARKS = (
    "Ligar antes de ir.", "Portaria pede RG.", "Cliente prefere de manhã.", "Nota fiscal já emitida.",
    "Falar com a recepção & deixar recado.", "Não há elevador.", 'Perguntar por "Zé", da manutenção.',
)  # fmt: skip


def _schema(name: str, numbers: str, texts: str, instants: str, flags: str, **children: Schema) -> Schema:
    kinds = {"number": numbers, "text": texts, "instant": instants, "flag": flags}
    fields = {field: kind for kind, names in kinds.items() for field in names.split()}
    tags = typed(f"{name}Tag", f"Id TagId {name}Id", "", Tag=TAG)
    shared = {"Tags": tags, "Contact": CONTACT, "Type": OPTION, "Creator": OPTION, "OtherProperties": FIELD}
    return Schema(name, fields, shared | children, frozenset({"Contact"}))


TASK = _schema(
    "Task",
    "Id TypeId ContactId DealId Length FinisherId Latitude Longitude InteractionRecordId OriginTaskId"
    " RepeatIntervalLength RepeatIntervalUnitId EmailReminderId CreatorId UpdaterId",
    "Title Description ContactName Address",
    "DateTime EndTime FinishDate CreateDate LastUpdateDate",
    "NoTime Finished Finishable Editable CreatesGoogleCalendarEvent",
    Users=typed("TaskUser", "Id UserId TaskId", ""),
)
INTERACTION = _schema(
    "InteractionRecord",
    "Id ContactId DealId Length TypeId Latitude Longitude OriginalTaskId TotalVoiceCallId CreatorId UpdaterId"
    " DurationInSeconds CheckInLatitude CheckInLongitude",
    "Content CheckInAddress",
    "Date CreateDate LastUpdateDate",
    "VerifiedCheckIn Editable",
)
TASK_TYPES = {number: {"Id": number, "Name": name} for number, name in ((1, "Tarefa"), (2, "Visita"), (3, "Reunião"))}
INTERACTION_TYPES = {
    number: {"Id": number, "Name": name}
    for number, name in enumerate(
        ("Simples", "Visita", "Telefone", "E-mail", "Reunião", "Conferência", "WhatsApp"), start=1
    )
}


class Activities(EntitySet):
    """Tasks or interaction records: what was or is to be done for a contact."""

    entity: int
    types: dict[int, Row]

    def __init__(
        self, account: System, name: str, schema: Schema, first_id: int, setup: Setup, contacts: EntitySet
    ) -> None:
        super().__init__(account, name, schema, first_id)
        self.one = {"Contact": (contacts, "ContactId")}
        self._contacts = contacts
        self._first_id = self._last_drawn = first_id
        self._draw = random.Random(f"{setup.seed} {name}")
        self._dates = Dates(self._draw, setup.now, shared=0.3)
        self._tags = {tag["Name"]: tag for tag in TAGS if tag["EntityId"] == self.entity}

    def drawn(self, count: int) -> list[Row]:
        """So many, over the contacts that are there; some of no contact."""
        contacts = sorted(self._contacts.items)
        return [self._drawn(contacts) for _ in range(count)]

    @abstractmethod
    def told(self, row: Row, created: int) -> Row:
        """The fields that say what the activity is about; no two rows say the same."""

    def _errand(self, number: int) -> str:
        return f"{self._draw.choice(ERRANDS)}, pedido {number}"

    def _remarks(self) -> list[str]:
        return self._draw.sample(REMARKS, self._draw.randrange(1, 4))

    def linked(self, row: Row) -> Row:
        return row | {"Type": self.types.get(row["TypeId"]), "Creator": OWNERS.get(row["CreatorId"])}

    def writable(self, row_id: int, body: Row) -> Row:
        fields: Row = {}
        for name, value in body.items():
            if name == "Tags":
                fields[name] = tagged(self.schema.name, row_id, chosen_tags(self.entity, objects(name, value)))
            elif name == "OtherProperties":
                fields[name] = objects(name, value)
            elif name in READ_ONLY or name not in self.schema.fields:
                raise QueryError(f"The property '{name}' does not exist on type '{self.schema.name}' or is read-only.")
            else:
                fields[name] = plain(self.schema, name, value)
        if fields.get("TypeId") is not None and fields["TypeId"] not in self.types:
            raise QueryError(f"There is no type {fields['TypeId']}.")
        if fields.get("ContactId") is not None and fields["ContactId"] not in self._contacts.items:
            raise QueryError(f"There is no contact {fields['ContactId']}.")
        return fields

    def blank(self) -> Row:
        row = dict.fromkeys(self.schema.fields) | {"Tags": [], "OtherProperties": [], "Editable": True}
        return row | {"TypeId": 1, "CreatorId": 10001, "UpdaterId": 10001}

    def _drawn(self, contacts: list[int]) -> Row:
        draw = self._draw
        self._last_drawn += draw.randrange(1, 4)
        created, updated = self._dates.next()
        chosen = draw.choices(list(TAG_SETS), list(TAG_SETS.values()))[0]
        names = dict.fromkeys(name or draw.choice(OTHER_TAGS) for name in chosen)
        row = self.blank() | {
            "Id": self._last_drawn,
            "TypeId": draw.choice(list(self.types)),
            "ContactId": draw.choice(contacts) if contacts and draw.random() >= ORPHANS else None,
            "Tags": tagged(self.schema.name, self._last_drawn, [self._tags[name] for name in names]),
            "CreateDate": stamp(created),
            "LastUpdateDate": stamp(updated),
        }
        return row | self.told(row, created)


class Tasks(Activities):
    """What is to be done."""

    entity = 12
    types = TASK_TYPES

    def __init__(self, account: System, setup: Setup, contacts: EntitySet) -> None:
        super().__init__(account, "Tasks", TASK, 601_000_000, setup, contacts)
        self.fill(self.drawn(setup.tasks))

    def told(self, row: Row, created: int) -> Row:
        draw = self._draw
        due = (created + draw.randrange(10 * DAY)) // 60_000 * 60_000
        errand = self._errand(row["Id"] - self._first_id)
        bare, finished = draw.random() < 0.1, draw.random() < 0.3
        return {
            "Title": None if bare else errand,
            "Description": "\n".join([errand, *self._remarks()] if bare or draw.random() < 0.7 else []) or None,
            "DateTime": None if draw.random() < 0.1 else stamp(due),
            "Length": draw.choice((None, 30, 60, 120)),
            "Finished": finished,
            "FinishDate": row["LastUpdateDate"] if finished else None,
            "FinisherId": row["UpdaterId"] if finished else None,
        }

    def redrawn(self, row: Row, chance: random.Random) -> Row:
        """Another remark; the errand stays."""
        return {"Description": f"{row['Title'] or row['Description']}\nRemarcado: {chance.randrange(10**6)}"}

    def require(self, body: Row) -> None:
        if not {"Title", "Description"} & body.keys():
            raise QueryError("A task needs a Title or a Description.")

    def blank(self) -> Row:
        flags = {"Finished": False, "Finishable": True, "NoTime": False, "CreatesGoogleCalendarEvent": False}
        return super().blank() | flags | {"Users": []}

    def linked(self, row: Row) -> Row:
        contact = self._contacts.items.get(row["ContactId"])
        return super().linked(row) | {"ContactName": contact and contact["Name"]}

    def writable(self, row_id: int, body: Row) -> Row:
        fields = super().writable(row_id, {name: value for name, value in body.items() if name != "Users"})
        if "Users" in body:
            users = objects("Users", body["Users"])
            if not all(user.get("UserId") in OWNERS for user in users):
                raise QueryError("Each of Users needs the UserId of a user.")
            fields["Users"] = [
                {"Id": row_id + place, "UserId": user["UserId"], "TaskId": row_id} for place, user in enumerate(users)
            ]
        return fields


class Interactions(Activities):
    """What was done, or said by the contact."""

    entity = 36
    types = INTERACTION_TYPES

    def __init__(self, account: System, setup: Setup, contacts: EntitySet) -> None:
        super().__init__(account, "InteractionRecords", INTERACTION, 801_000_000, setup, contacts)
        self.fill(self.drawn(setup.interactions))

    def told(self, row: Row, created: int) -> Row:
        draw = self._draw
        lines = [self._errand(row["Id"] - self._first_id), *self._remarks()]
        content = "".join(f"<p>{line}</p>" for line in lines) if draw.random() < 0.2 else "\n".join(lines)
        date = draw.choices((None, row["CreateDate"][:10], stamp(created)), (1, 3, 6))[0]
        return {"Content": content, "Date": date}

    def redrawn(self, row: Row, chance: random.Random) -> Row:
        """Something more was said."""
        return {"Content": f"{row['Content']}\nComplemento: {chance.randrange(10**6)}"}

    def require(self, body: Row) -> None:
        if "Content" not in body or not {"ContactId", "DealId"} & body.keys():
            raise QueryError("An interaction record needs Content, and a ContactId or a DealId.")

    def blank(self) -> Row:
        return super().blank() | {"VerifiedCheckIn": False}
