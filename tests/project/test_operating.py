"""What docs/operating.md says of deploying, and what it costs, is what there is."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.gcp.indexes import FIELDS
from infra.wiring import Hub
from tests.bench import prices
from tests.bench.prices import FUNCTION_SECOND, MONTHLY, PRICES, SECRET_READ, TIB
from tests.bench.rest import platform_jobs, times
from tests.documents import DOCUMENTS, OPERATING, ROOT, commands, number, table

TEXT = OPERATING.read_text(encoding="utf8")
HCL = "\n".join(path.read_text(encoding="utf8") for path in sorted((ROOT / "terraform").glob("*.tf")))
VARIABLES = set(re.findall(r'^variable "(\w+)"', HCL, re.MULTILINE))
OUTPUTS = set(re.findall(r'^output "(\w+)"', HCL, re.MULTILINE))
RESOURCES = {".".join(pair) for pair in re.findall(r'^resource "(\w+)" "(\w+)"', HCL, re.MULTILINE)}


# --- commands ---


def wrong_names(text: str) -> list[str]:
    """The variables, outputs and resources of terraform/ that a text names and that there are not."""
    wrong = []
    for words in commands(text, "terraform"):
        given = re.findall(r"-var[ =]'?(\w+)", " ".join(words))
        wrong += [name for name in given if name not in VARIABLES]
        if "output" in words:
            wrong += [name for name in words[words.index("output") + 1 :] if name not in OUTPUTS]
        named = re.findall(r"\b(google_\w+\.\w+)", " ".join(words))
        wrong += [name for name in named if name not in RESOURCES]
    for block in re.findall(r"```hcl\n(.*?)```", text, re.DOTALL):
        wrong += [name for name in re.findall(r"^ *(\w+) +=", block, re.MULTILINE) if name not in VARIABLES]
    wrong += [name for name in re.findall(r"`(google_\w+\.\w+)`", text) if name not in RESOURCES]
    return wrong + [name for name in re.findall(r"[Oo]utput\s+`(\w+)`", text) if name not in OUTPUTS]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_document_names_of_terraform_exists(path: Path) -> None:
    assert wrong_names(path.read_text(encoding="utf8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "$ terraform -chdir=terraform apply -var projekt=x",
        "$ terraform apply -var 'secret_version={A=\"2\"}'",
        "$ terraform output secrets_to_set",
        "the output `secrets_to_set`",
        "$ terraform apply -target=google_secret_manager_secret.all",
        "`google_bigquery_table.rows` too",
        "```hcl\nprojekt = 1\n```",
    ],
)
def test_what_there_is_not_in_terraform_is_found(text: str) -> None:
    assert wrong_names(text) != []


@cache
def gcloud() -> dict[str, Any]:
    """The commands that gcloud knows, as it keeps them for a shell's completion."""
    if shutil.which("gcloud") is None:
        pytest.skip("gcloud is not installed")
    asked = ["gcloud", "info", "--format=value(installation.sdk_root)"]
    root = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    file = Path(root, "data", "cli", "gcloud_completions.py")
    if not file.is_file():
        pytest.skip("this gcloud keeps no list of its commands")
    tree = ast.parse(file.read_text(encoding="utf8"))
    (value,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    found: dict[str, Any] = ast.literal_eval(value)
    return found


def unknown_to_gcloud(words: list[str]) -> list[str]:
    """The commands and flags among these words that gcloud does not know."""
    here, flags, rest = gcloud(), dict(gcloud()["flags"]), list(words)
    while rest and rest[0] in here["commands"]:
        here = here["commands"][rest.pop(0)]
        flags |= here["flags"]
    wrong = [] if not here["commands"] else [" ".join(words)]
    return wrong + [each for each in rest if each.startswith("--") and each.partition("=")[0] not in flags]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_gcloud_exists(path: Path) -> None:
    found = commands(path.read_text(encoding="utf8"), "gcloud")
    assert [wrong for words in found for wrong in unknown_to_gcloud(words)] == []


def test_a_command_that_gcloud_does_not_know_is_found() -> None:
    assert unknown_to_gcloud(["pubsub", "subscriptions", "sek", "x"]) == ["pubsub subscriptions sek x"]
    assert unknown_to_gcloud(["pubsub", "subscriptions", "seek", "x", "--tim=1"]) == ["--tim=1"]
    assert unknown_to_gcloud(["pubsub", "subscriptions", "seek", "x", "--time=1", "--project=p"]) == []


def test_the_books_are_restored_as_a_whole() -> None:
    (deleted,) = [words for words in commands(TEXT, "gcloud") if "bulk-delete" in words]
    assert f"--collection-ids={','.join(FIELDS)}" in deleted


# --- what it costs ---


def shown(price: prices.Price) -> dict[str, str]:
    usd = f"{price.usd:.8f}".rstrip("0") if price.usd < 0.01 else f"{price.usd:.2f}".removesuffix(".00")
    per = "TiB" if price.per == TIB else f"{price.per:,}"
    return {"USD": usd, "for": per, "read on": price.read_on, "where": price.source}


def test_the_prices_are_those_that_are_reckoned_with() -> None:
    every = [*PRICES.values(), FUNCTION_SECOND, SECRET_READ, *MONTHLY.values()]
    assert table(TEXT, "price, us-central1, November 2026") == {price.unit: shown(price) for price in every}
    assert (prices.REGION, prices.AS_OF) == ("us-central1", "2026-11")


def test_a_million_records_cost_what_their_operations_cost() -> None:
    amounts, usd = table(TEXT, "per 1,000 records"), table(TEXT, "USD per million records")
    columns = [name for name in amounts["Firestore reads"] if name != "at most"]
    priced = {price.unit: price for price in PRICES.values() if price.unit in amounts}
    assert set(usd) == {*priced, "together"}
    for column in columns:
        costs = {unit: price.of(1_000 * number(amounts[unit][column])) for unit, price in priced.items()}
        assert {unit: usd[unit][column] for unit in costs} == {unit: f"{cost:.3f}" for unit, cost in costs.items()}
        assert usd["together"][column] == f"{sum(costs.values()):.2f}"


def scheduled() -> dict[str, int]:
    """How often a month each job of Cloud Scheduler calls, in the configuration as it is shipped."""
    streams = {
        f"{name} {stream.name}": stream.schedule
        for name, integration in Hub({}).integrations.items()
        for stream in integration.streams.values()
        if stream.enabled
    }
    return {job: times(cron) for job, cron in {**streams, **platform_jobs()}.items() if cron is not None}


def test_a_month_is_what_its_jobs_take_and_what_is_kept() -> None:
    jobs, month = table(TEXT, "a month in which nothing happens"), table(TEXT, "a month at rest")
    assert {job: number(row["calls"]) for job, row in jobs.items()} == scheduled()

    def all_of(column: str) -> float:
        return sum(number(job["calls"]) * number(job[column]) for job in jobs.values())

    calls = sum(number(job["calls"]) for job in jobs.values())
    reckoned = {
        PRICES["reads"]: all_of("each reads"),
        PRICES["writes"]: all_of("writes"),
        PRICES["blob_operations"]: all_of("Cloud Storage operations"),
        PRICES["invocations"]: calls,
        SECRET_READ: all_of("reads of secrets"),
        FUNCTION_SECOND: calls,
        MONTHLY["jobs"]: len(jobs),
        MONTHLY["secrets"]: number(month["versions of secrets"]["how many"]),
    }
    costs = {price.unit: (f"{most:,.0f}", f"{price.of(most):.3f}") for price, most in reckoned.items()}
    together = sum(price.of(most) for price, most in reckoned.items())
    assert {unit: (row["how many"], row["USD"]) for unit, row in month.items()} == {
        **costs,
        "together": ("", f"{together:.2f}"),
    }


def test_what_is_read_again_every_ten_minutes_costs_what_the_text_says() -> None:
    million = number(table(TEXT, "USD per million records")["together"]["`milvus_to_ploomes` again"])
    said = re.search(r"([\d,]+) clients in Milvus.* million records\s+a month, and (\d+) USD", TEXT)
    assert said is not None
    usd = number(said[1]) * scheduled()["milvus_to_ploomes customers"] / 1_000_000 * million
    assert abs(usd - number(said[2])) <= 1
    assert f"{FUNCTION_SECOND.of(3600):.2f} USD for each hour" in TEXT
