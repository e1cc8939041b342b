"""Brazilian contacts in the form Ploomes answers them, drawn from seeded pools.

Names and streets come from Faker's pt_BR pools, made once per population; everything else is arithmetic,
so ten thousand contacts take about a second. Field names and types: captured responses of public clients.
"""

import random
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from faker import Faker

Row = dict[str, Any]

BRASILIA = timezone(timedelta(hours=-3))
FIRST_DAY = datetime(2024, 3, 1, tzinfo=BRASILIA)
QUIET_DAYS = timedelta(days=3)
COMPANY, PERSON = 1, 2
MAILBOXES = ("example.com", "example.net", "example.org")
IDENTITY = ("TypeId", "Name", "LegalName", "Register", "CNPJ", "CPF")
SUFFIXES = ("Ltda", "S.A.", "e Filhos", "Comércio", "Engenharia", "Transportes", "Serviços", "Alimentos")

STATES = {
    "AC": "Acre", "AL": "Alagoas", "AM": "Amazonas", "AP": "Amapá", "BA": "Bahia", "CE": "Ceará",
    "DF": "Distrito Federal", "ES": "Espírito Santo", "GO": "Goiás", "MA": "Maranhão", "MG": "Minas Gerais",
    "MS": "Mato Grosso do Sul", "MT": "Mato Grosso", "PA": "Pará", "PB": "Paraíba", "PE": "Pernambuco",
    "PI": "Piauí", "PR": "Paraná", "RJ": "Rio de Janeiro", "RN": "Rio Grande do Norte", "RO": "Rondônia",
    "RR": "Roraima", "RS": "Rio Grande do Sul", "SC": "Santa Catarina", "SE": "Sergipe", "SP": "São Paulo",
    "TO": "Tocantins",
}  # fmt: skip

# IBGE code, name, state, first postal code, telephone area
CITIES = (
    (3550308, "São Paulo", "SP", 1000000, 11), (3304557, "Rio de Janeiro", "RJ", 20000000, 21),
    (3106200, "Belo Horizonte", "MG", 30000000, 31), (2927408, "Salvador", "BA", 40000000, 71),
    (2304400, "Fortaleza", "CE", 60000000, 85), (5300108, "Brasília", "DF", 70000000, 61),
    (4106902, "Curitiba", "PR", 80000000, 41), (1302603, "Manaus", "AM", 69000000, 92),
    (2611606, "Recife", "PE", 50000000, 81), (4314902, "Porto Alegre", "RS", 90000000, 51),
    (1501402, "Belém", "PA", 66000000, 91), (5208707, "Goiânia", "GO", 74000000, 62),
    (2111300, "São Luís", "MA", 65000000, 98), (2704302, "Maceió", "AL", 57000000, 82),
    (5002704, "Campo Grande", "MS", 79000000, 67), (2211001, "Teresina", "PI", 64000000, 86),
    (2408102, "Natal", "RN", 59000000, 84), (2507507, "João Pessoa", "PB", 58000000, 83),
    (2800308, "Aracaju", "SE", 49000000, 79), (5103403, "Cuiabá", "MT", 78000000, 65),
    (1100205, "Porto Velho", "RO", 76800000, 69), (4205407, "Florianópolis", "SC", 88000000, 48),
    (1600303, "Macapá", "AP", 68900000, 96), (1200401, "Rio Branco", "AC", 69900000, 68),
    (3205309, "Vitória", "ES", 29000000, 27), (1400100, "Boa Vista", "RR", 69300000, 95),
    (1721000, "Palmas", "TO", 77000000, 63), (3509502, "Campinas", "SP", 13000000, 19),
    (3548500, "Santos", "SP", 11000000, 13), (4209102, "Joinville", "SC", 89200000, 47),
    (4113700, "Londrina", "PR", 86000000, 43), (3170206, "Uberlândia", "MG", 38400000, 34),
)  # fmt: skip

# A tag belongs to one kind of entity: 1 contact, 12 task, 36 interaction record (vendor documentation on fields).
TAGS: tuple[Row, ...] = (
    {"Id": 40012341, "Name": "Cliente", "Color": "#2E7D32", "EntityId": 1},
    {"Id": 40012342, "Name": "Prioritário", "Color": "#C62828", "EntityId": 1},
    {"Id": 40012343, "Name": "Fornecedor", "Color": "#1565C0", "EntityId": 1},
    {"Id": 40012345, "Name": "INSTALAÇÃO", "Color": "#6A1B9A", "EntityId": 12},
    {"Id": 40012346, "Name": "ENTREGA", "Color": "#EF6C00", "EntityId": 12},
    {"Id": 40012347, "Name": "MANUTENÇÃO", "Color": "#00838F", "EntityId": 12},
    {"Id": 40012348, "Name": "VISITA", "Color": "#558B2F", "EntityId": 12},
    {"Id": 40012349, "Name": "COBRANÇA", "Color": "#4E342E", "EntityId": 12},
    {"Id": 40036345, "Name": "INSTALAÇÃO", "Color": "#6A1B9A", "EntityId": 36},
    {"Id": 40036346, "Name": "ENTREGA", "Color": "#EF6C00", "EntityId": 36},
    {"Id": 40036347, "Name": "MANUTENÇÃO", "Color": "#00838F", "EntityId": 36},
    {"Id": 40036348, "Name": "VISITA", "Color": "#558B2F", "EntityId": 36},
    {"Id": 40036349, "Name": "COBRANÇA", "Color": "#4E342E", "EntityId": 36},
)
CONTACT_TAGS = tuple(tag for tag in TAGS if tag["EntityId"] == 1)

NUMBERS = [
    "Id", "TypeId", "StatusId", "OriginId", "ClassId", "LineOfBusinessId", "NumberOfEmployeesId",
    "RelationshipId", "OwnerId", "CompanyId", "CreatorId", "UpdaterId", "RoleId", "DepartmentId",
    "CurrencyId", "ZipCode", "CityId", "StateId", "CountryId", "FirstTaskId", "LastInteractionRecordId",
    "LastDealId", "LastOrderId", "LastDocumentId", "LastCompanyId", "LeadId", "ImportId", "Latitude",
    "Longitude",
]  # fmt: skip
TEXTS = [
    "Name", "LegalName", "Register", "CNPJ", "CPF", "Email", "Website", "Skype", "Facebook", "Note",
    "StreetAddress", "StreetAddressNumber", "StreetAddressLine2", "Neighborhood", "ForeignZipCode",
    "IdentityDocument", "Key", "CNAECode", "CNAEName", "AvatarUrl",
]  # fmt: skip
INSTANTS = [
    "CreateDate", "LastUpdateDate", "Birthday", "NextAnniversary", "PreviousAnniversary",
    "FirstTaskDate",
]  # fmt: skip
FLAGS = ["HasScheduledTasks", "Editable", "Deletable", "EmailMarketing", "HasConsent"]
BLANK: Row = dict.fromkeys([*NUMBERS, *TEXTS, *INSTANTS, *FLAGS])


def _place(index: int) -> Row:
    code, name, short, _, _ = CITIES[index]
    state_id = code // 100000
    state = {"Id": state_id, "Name": STATES[short], "Short": short, "CountryId": 76}
    city = {"Id": index + 1, "Name": name, "CountryId": 76, "StateId": state_id, "IBGECode": code}
    return city | {"State": state}


PLACES: dict[int, Row] = {index + 1: _place(index) for index in range(len(CITIES))}


def stamp(milliseconds: int) -> str:
    """The instant as Ploomes writes it: offset -03:00, fraction of 0 to 3 digits with the zeros trimmed."""
    seconds, rest = divmod(milliseconds, 1000)
    text = datetime.fromtimestamp(seconds, BRASILIA).strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{rest:03d}".rstrip("0") if rest else "") + "-03:00"


def check_digits(base: str) -> str:
    """The two check digits of a CPF (9 characters) or a CNPJ (12, letters count as their code minus 48)."""
    first = range(10, 1, -1) if len(base) == 9 else (5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    digits = ""
    for weights in (first, (first[0] + 1, *first)):
        values = (ord(character) - 48 for character in base + digits)
        rest = sum(weight * value for weight, value in zip(weights, values, strict=True)) % 11
        digits += "0" if rest < 2 else str(11 - rest)
    return digits


def phone(contact_id: int, number: int, text: str, type_id: int) -> Row:
    """One row of the expanded Phones; Ploomes keeps the digits of the number apart for searching."""
    digits = "".join(character for character in text if character.isdigit())
    return {
        "Id": number,
        "ContactId": contact_id,
        "PhoneNumber": text,
        "SearchPhoneNumber": int(digits or 0),
        "TypeId": type_id,
        "CountryId": 76,
    }


class Dates:
    """Pairs of creation and last update from the first day until some days ago.

    They depend on `now`, but only on its day, so that a sandbox started anew shows the same rows.
    """

    def __init__(self, draw: random.Random, now: datetime, shared: float) -> None:
        self._draw = draw
        self._shared = shared
        self._start = int(FIRST_DAY.astimezone(UTC).timestamp() * 1000)
        last_day = (now - QUIET_DAYS).astimezone(BRASILIA).replace(hour=0, minute=0, second=0, microsecond=0)
        self._end = int(last_day.timestamp() * 1000)
        if self._end <= self._start:
            raise ValueError(f"now must lie more than {QUIET_DAYS.days} days after {FIRST_DAY.date()}")
        self._last = (self._start, self._start)

    def next(self) -> tuple[int, int]:
        """Both in milliseconds; a share of them (`shared`) are their predecessor's, as if imported together."""
        draw = self._draw
        if draw.random() < self._shared:
            return self._last
        step = draw.choice((1000, 100, 10, 1))
        # A whole-number draw would use up the generator by the size of its range, and so by the day.
        created = int(self._start + draw.random() * (self._end - self._start)) // step * step
        edited = draw.random() < 0.5
        updated = int(created + draw.random() * (self._end - created)) // step * step if edited else created
        self._last = (created, updated)
        return self._last


class People:
    """An endless population: the same seed gives the same first n contacts, whatever n is; only their dates
    depend on `now`. Populations that share `documents` have none in common."""

    def __init__(self, seed: int, now: datetime, documents: set[str] | None = None) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        faker = Faker("pt_BR")
        faker.seed_instance(seed)
        self._first_names = [faker.first_name() for _ in range(300)]
        self._last_names = [faker.last_name() for _ in range(300)]
        self._streets = [faker.street_name() for _ in range(400)]
        self._districts = [faker.bairro() for _ in range(200)]
        self._dates = Dates(self._random, now, shared=0.125)
        self._documents = set() if documents is None else documents
        self._companies: list[int] = []
        self._made = 0

    def take(self, count: int, *, undocumented: int = 0, invalid: int = 0, duplicates: int = 0) -> list[Row]:
        """The next `count` contacts, with valid and distinct documents, but for so many of them (never the
        first) without one, with a wrong one or with that of an earlier contact."""
        flawed = undocumented + invalid + duplicates
        if flawed and flawed >= count:
            raise ValueError(f"{flawed} flawed contacts need more than {flawed} contacts, not {count}")
        rows = [self.contact() for _ in range(count)]
        chance = random.Random(f"{self._seed} flaws {self._made}")
        positions = chance.sample(range(1, count), flawed) if flawed else []
        flawless = sorted(set(range(count)) - set(positions))
        for place, position in enumerate(positions):
            row = rows[position]
            if place < undocumented:
                row.update(Register=None, CNPJ=None, CPF=None)
            elif place < undocumented + invalid:
                self._spoil(row, repeated=place % 2 == 0)
            else:
                twin = rows[chance.choice([earlier for earlier in flawless if earlier < position])]
                row.update({name: twin[name] for name in IDENTITY})
        return rows

    def contact(self) -> Row:
        """The next contact, with its children (City, Phones, Tags ...) in place."""
        draw = self._random
        self._made += 1
        contact_id = 401_000_000 + self._made * 3 + draw.randrange(3)
        company = draw.random() < 0.6
        document = self._document(company, letters=draw.random() < 0.02)
        name, legal_name = self.names(draw, company)
        place = draw.randrange(len(CITIES))
        _, _, _, first_zip, area = CITIES[place]
        created, updated = self._dates.next()
        employer = draw.choice(self._companies) if self._companies and draw.random() < 0.3 else None
        city = PLACES[place + 1]
        row = BLANK | {
            "Id": contact_id,
            "TypeId": COMPANY if company else PERSON,
            "Name": name,
            "LegalName": legal_name,
            "Register": document,
            "CNPJ": document if company else None,
            "CPF": None if company else document,
            "StatusId": 1,
            "OwnerId": 10001,
            "CreatorId": 10001,
            "UpdaterId": 10001,
            "CompanyId": None if company else employer,
            "Email": self.email(name, contact_id),
            "StreetAddress": draw.choice(self._streets),
            "StreetAddressNumber": str(draw.randrange(1, 3000)),
            "StreetAddressLine2": f"Sala {draw.randrange(1, 200)}" if draw.random() < 0.3 else None,
            "Neighborhood": draw.choice(self._districts),
            "ZipCode": first_zip + draw.randrange(90_000),
            "CityId": city["Id"],
            "StateId": city["StateId"],
            "CountryId": 76,
            "CreateDate": stamp(created),
            "LastUpdateDate": stamp(updated),
            "HasScheduledTasks": False,
            "Editable": True,
            "Deletable": True,
            "City": city,
            "State": city["State"],
            "Phones": self.phones(draw, contact_id, area),
            "Tags": [
                {"Id": contact_id + place, "TagId": tag["Id"], "ContactId": contact_id, "Tag": tag}
                for place, tag in enumerate(draw.sample(CONTACT_TAGS, draw.randrange(3)))
            ],
            "OtherProperties": [],
        }
        if company:
            self._companies.append(contact_id)
        return row

    def names(self, draw: random.Random, company: bool) -> tuple[str, str | None]:
        """A name, and for a company its legal name."""
        if company:
            name = f"{draw.choice(self._last_names)} {draw.choice(self._last_names)} {draw.choice(SUFFIXES)}"
            return name, f"{name} ME"
        return f"{draw.choice(self._first_names)} {draw.choice(self._last_names)}", None

    def email(self, name: str, number: int) -> str:
        """An address below a domain that is reserved for examples, so that no mail ever reaches anybody."""
        plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
        local = "".join(part for part in plain if part.isalnum() or part == " ").replace(" ", ".")
        return f"{local}.{number % 100_000}@{MAILBOXES[number % len(MAILBOXES)]}"

    def phones(self, draw: random.Random, contact_id: int, area: int) -> list[Row]:
        """No, one or two numbers, written in the several ways people write them."""
        chance = draw.random()
        if chance < 0.1:
            return []
        mobile = f"9{draw.randrange(10_000_000, 99_999_999)}"
        masks = (f"({area}) {mobile[:5]}-{mobile[5:]}", f"+55 {area} {mobile}", f"{area}{mobile}")
        numbers = [phone(contact_id, contact_id * 2, draw.choice(masks), 2)]
        if chance > 0.7:
            fixed = f"({area}) 3{draw.randrange(100, 999)}-{draw.randrange(1000, 9999)}"
            numbers.append(phone(contact_id, contact_id * 2 + 1, fixed, 1))
        return numbers

    def _document(self, company: bool, letters: bool) -> str:
        while True:
            if not company:
                base = f"{self._random.randrange(10**9):09d}"
            elif letters:
                base = "".join(self._random.choices("0123456789ABCDEFGHJKLMNPRSTVWXYZ", k=8)) + "0001"
            else:
                base = f"{self._random.randrange(1, 10**8):08d}0001"
            document = base + check_digits(base)
            if document not in self._documents and len(set(document)) > 1:
                self._documents.add(document)
                return document

    def _spoil(self, row: Row, repeated: bool) -> None:
        """Gives the contact a document that nobody may have: eleven equal digits or a wrong check digit."""
        document = row["Register"]
        wrong = document[0] * 11 if repeated and row["CPF"] else document[:-1] + str((int(document[-1]) + 1) % 10)
        row.update(Register=wrong, CNPJ=row["CNPJ"] and wrong, CPF=row["CPF"] and wrong)
