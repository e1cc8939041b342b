"""A sink function that is ended by one record, as by one that takes all memory; whoever died is missed quickly."""

import os
from typing import Any

from functions.ploomes_to_milvus import mapping
from shared.rules import Rules
from tests.acceptance.google.functions.missed.main import sink
from tests.acceptance.google.functions.poison import POISON

__all__ = ["sink"]
customers = mapping.STREAMS["customers"]


def deadly(contact: dict[str, Any]) -> dict[str, Any]:
    if contact["Name"] == POISON:
        os._exit(1)
    return customers.to_target(contact)


mapping.STREAMS["customers"] = Rules(customers.read, customers.write, customers.identify, deadly)
