"""Customers of the hub's own store as clients of Milvus, under a document that is made of the customer's id."""

from __future__ import annotations

from typing import Any, Final

from shared.rules import Rules
from shared.tabular import identify
from tests.sandbox.people import check_digits


def document_of(customer: dict[str, Any]) -> str:
    base = f"{int(identify(customer)):09d}"
    return base + check_digits(base)


def client(customer: dict[str, Any]) -> dict[str, Any]:
    person = {"nome": customer["name"]}
    return {"cliente_documento": document_of(customer), "cliente_ativo": True, "cliente_pessoa_fisica": person}


STREAMS: Final = {"customers": Rules("customers", "clients", document_of, client)}
