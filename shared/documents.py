"""CPF and CNPJ, the documents by which Brazilian systems know a person or a company.

A CPF has eleven digits, a CNPJ fourteen characters, of which the first twelve may be letters (IN RFB 2.229 of 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from stdnum.br import cnpj, cpf

from shared.errors import BAD_IDENTITY, NO_IDENTITY, RecordError

PERSON: Final = 11
COMPANY: Final = 14
"""The length says whose document it is."""

_SEPARATORS: Final = str.maketrans("", "", "./- ")
_LONGEST_MASKED: Final = 40


def document_in(data: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The checked document in the first of these fields that holds anything, without its mask and in capitals.

    Raises RecordError, which never quotes it.
    """
    for field in fields:
        value = data.get(field)
        if value is None:
            continue
        if type(value) is not str or len(value) > _LONGEST_MASKED:
            raise RecordError(f"{field} is no CPF or CNPJ", field=field, number=BAD_IDENTITY)
        document = unmasked(value)
        if document:
            document = document.upper()
            if not is_document(document):
                raise RecordError(f"{field} is no valid CPF or CNPJ", field=field, number=BAD_IDENTITY)
            return document
    raise RecordError("there is neither CPF nor CNPJ", field=fields[0], number=NO_IDENTITY)


def unmasked(text: str) -> str:
    """A document, or a postal code, without dots, dashes, slashes and blanks."""
    return text.translate(_SEPARATORS)


def masked(document: str) -> str:
    """A checked document as people write it."""
    if len(document) == PERSON:
        return f"{document[:3]}.{document[3:6]}.{document[6:9]}-{document[9:]}"
    return f"{document[:2]}.{document[2:5]}.{document[5:8]}/{document[8:12]}-{document[12:]}"


@lru_cache(maxsize=8192)
def is_document(text: str) -> bool:
    """Whether this is a valid document without a mask, in capitals. A CPF of equal digits passes the check sum and is
    none."""
    if not text.isascii() or not text.isalnum() or text != text.upper():
        return False
    if len(text) == PERSON:
        return text.isdigit() and text != text[0] * PERSON and bool(cpf.is_valid(text))
    return len(text) == COMPANY and bool(cnpj.is_valid(text))
