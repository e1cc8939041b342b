"""The conversions that the fake BigQuery holds from the beginning.

Columns have the names that the Data Manager API gives to an event's fields; times lie within the last two days, which
every destination still takes.
"""

import random

from tests.sandbox.system import Row, Setup

CONVERSIONS = "sandbox.crm.conversions"
SCHEMA: list[Row] = [
    {"name": "transaction_id", "type": "STRING"},
    {"name": "event_timestamp", "type": "TIMESTAMP"},
    {"name": "conversion_value", "type": "FLOAT"},
    {"name": "currency", "type": "STRING"},
    {"name": "ad_identifiers", "type": "RECORD", "fields": [{"name": "gclid", "type": "STRING"}]},
]
HOUR = 3_600


def conversions(setup: Setup) -> list[Row]:
    """As many as the setup says; the same seed gives the same ones, dated back from the setup's clock."""
    chance = random.Random(f"{setup.seed} conversions")
    return [
        {
            "transaction_id": f"T{number:07d}",
            "event_timestamp": int((setup.clock() - chance.uniform(HOUR, 48 * HOUR)) * 1_000_000),
            "conversion_value": chance.randrange(500, 200_000) / 100,
            "currency": "BRL",
            "ad_identifiers": {"gclid": f"Cj0KCQ{chance.getrandbits(128):032x}"},
        }
        for number in range(1, setup.conversions + 1)
    ]
