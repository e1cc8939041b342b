"""The source's contacts, serialised beforehand: 25 fields, about 750 bytes, every 33rd repeats an earlier document.

Same index, same row: the first n rows do not depend on how many are made. Documents have the length of a CPF or CNPJ
and no check digits, since nobody checks them here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

FIRST_ID: Final = 40_000_001
START: Final = datetime(2020, 1, 1, 3, tzinfo=UTC)
TICK: Final = timedelta(seconds=37)
"""Between two update times."""
REPEATS: Final = 33

_OFFSET: Final = timedelta(hours=-3)
# fmt: off
_GIVEN: Final = (
    "Ana Maria", "João", "José Antônio", "Francisca", "Márcia", "Letícia", "Vinícius", "Sebastião", "Inês", "Cauê",
    "Beatriz",
)
_FAMILY: Final = (
    "Silva", "Gonçalves", "Araújo", "Conceição", "Santana", "Nascimento", "Oliveira", "Cardoso", "Moreira", "Machado",
)
_TRADE: Final = (
    "Comércio", "Construções", "Indústria", "Serviços", "Logística", "Móveis", "Papelaria", "Farmácia",
)
_PLACE: Final = (
    ("São Paulo", "SP", 11), ("Niterói", "RJ", 21), ("Uberlândia", "MG", 34), ("Maringá", "PR", 44),
    ("Florianópolis", "SC", 48), ("Caxias do Sul", "RS", 54), ("Salvador", "BA", 71), ("Goiânia", "GO", 62),
)
_STREET: Final = (
    "Rua das Flores", "Avenida Getúlio Vargas", "Rua Sete de Setembro", "Alameda Santos", "Travessa São José",
)
# fmt: on
_NOTE: Final = (
    '"Cliente prefere contato por telefone no período da manhã."',
    '"Solicitou segunda via do boleto e atualização cadastral."',
    '"Indicado pelo parceiro regional; revisar condições de pagamento."',
    "null",
)
_ROW: Final = (
    '{"Id":%d,"TypeId":%d,"Name":"%s","LegalName":%s,"Register":"%s","CNPJ":%s,"CPF":%s,"Email":"%s",'
    '"Phones":[{"PhoneNumber":"%s","TypeId":1,"CountryId":76}],"StreetAddress":"%s","StreetAddressNumber":"%d",'
    '"StreetAddressLine2":%s,"Neighborhood":"Jardim América","ZipCode":%d,"City":{"Id":%d,"Name":"%s"},"State":"%s",'
    '"CountryId":76,"OwnerId":%d,"StatusId":%d,"OriginId":%d,"LineOfBusinessId":%d,"Birthday":%s,"Note":%s,'
    '"CreateDate":"2019-%02d-%02dT09:30:00-03:00","LastUpdateDate":"%s-03:00"}'
)


def first_with_document(index: int) -> int:
    """The index of the row that had this row's document first."""
    while index >= 50 and index % REPEATS == 0:
        index = index * 2_654_435_761 % 2**32 % index
    return index


def document(index: int) -> str:
    """Eleven digits or fourteen; distinct for each index that repeats nobody."""
    origin = first_with_document(index)
    # A power of three and one of ten have no common factor: no two numbers below the modulus collide.
    mixed = origin * 387_420_489
    return f"{mixed % 10**8:08d}{origin // 10**8:04d}{mixed % 97:02d}" if origin % 2 else f"{mixed % 10**9:09d}07"


def row(index: int) -> bytes:
    number = document(index)
    company = len(number) == 14
    mix = index * 2_654_435_761 % 2**32
    given, family = _GIVEN[mix % 11], _FAMILY[mix // 11 % 10]
    city, state, area = _PLACE[mix // 110 % 8]
    other, trade = _FAMILY[mix // 880 % 10], _TRADE[mix // 8800 % 8]
    if mix & 1:
        shown = number
    elif company:
        shown = f"{number[:2]}.{number[2:5]}.{number[5:8]}/{number[8:12]}-{number[12:]}"
    else:
        shown = f"{number[:3]}.{number[3:6]}.{number[6:9]}-{number[9:]}"
    stamp = (START + TICK * index + _OFFSET).replace(tzinfo=None).isoformat()
    text = _ROW % (
        FIRST_ID + index,
        1 if company else 2,
        f"{family} & {other} {trade}" if company else f"{given} {family} {other}",
        f'"{family} e {other} {trade} Ltda"' if company else "null",
        shown,
        f'"{shown}"' if company else "null",
        "null" if company else f'"{shown}"',
        f"Contato.{index}@exemplo.test" if mix & 2 else f"contato.{index}@empresa.test",
        f"({area}) 9{mix % 10_000:04d}-{mix // 7 % 10_000:04d}",
        _STREET[mix % 5],
        mix % 5000 + 1,
        f'"Sala {mix % 900}"' if company else "null",
        mix % 90_000_000 + 1_000_000,
        100 + mix % 8,
        city,
        state,
        10_000 + mix % 40,
        mix % 5 + 1,
        mix % 11 + 1,
        mix % 59 + 1,
        "null" if company else f'"19{mix % 49 + 50}-0{mix % 8 + 1}-1{mix % 9}"',
        _NOTE[mix // 3 % 4],
        mix % 11 + 1,
        mix % 27 + 1,
        stamp,
    )
    return text.encode()


def place_at(instant: datetime, *, after: bool) -> int:
    """The index of the first row updated at that instant or later; with `after` only later."""
    ticks, rest = divmod(instant - START, TICK)
    return max(0, ticks + (1 if rest or after else 0))


class Expected:
    """What a client that loses and repeats nothing delivers of the first `count` rows."""

    def __init__(self, count: int) -> None:
        documents = [int(document(index)) for index in range(count) if first_with_document(index) == index]
        self.distinct = len(documents)
        self.sum = sum(documents)
