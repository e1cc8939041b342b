"""The environment: which variables a system needs, which addresses are accepted, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.config import Alerts, Integration, MonitoringConfig, Retention, SinkConfig, SourceConfig
from infra.environment import SYSTEM_VARIABLES, backend, missing_secrets, state_home, system_settings
from shared.errors import ConfigError

PLOOMES = {"PLOOMES_USER_KEY": "k"}
MILVUS = {"MILVUS_TOKEN": "t"}


def integration(source: str, sink: str) -> Integration:
    return Integration(
        name="a_to_b",
        source=SourceConfig(source),
        sink=SinkConfig(sink),
        streams={},
        monitoring=MonitoringConfig(),
        retention=Retention(),
        alerts=Alerts(),
        folder=Path("a_to_b"),
        file=Path("a_to_b/integration.yaml"),
    )


def test_a_system_has_its_public_address_and_its_secrets() -> None:
    settings = system_settings("okki", {"OKKI_CLIENT_ID": "i", "OKKI_CLIENT_SECRET": " s\n"})
    assert settings.url == "https://api-sandbox.xiaoman.cn"
    assert settings.secrets == {"OKKI_CLIENT_ID": "i", "OKKI_CLIENT_SECRET": "s"}


@pytest.mark.parametrize(
    ("system", "variable", "url"),
    [
        ("ploomes", "PLOOMES_URL", "https://api2.ploomes.com"),
        ("milvus", "MILVUS_URL", "https://apiintegracao.milvus.com.br/api"),
        ("okki", "OKKI_URL", "https://api-sandbox.xiaoman.cn"),
        ("qeasy", "QEASY_URL", "https://api.qeasy.cloud"),
        ("prisma", "PRISMA_URL", None),
        ("ga4", "GA4_URL", "https://www.google-analytics.com"),
        ("data_manager", "DATA_MANAGER_URL", "https://datamanager.googleapis.com"),
        ("google_ads", "GOOGLE_ADS_URL", "https://googleads.googleapis.com"),
        ("cm360", "CM360_URL", "https://dfareporting.googleapis.com"),
        ("gcs", "STORAGE_EMULATOR_HOST", "https://storage.googleapis.com"),
        ("bigquery", "BIGQUERY_URL", "https://bigquery.googleapis.com"),
    ],
)
def test_every_default_address_is_one_that_would_be_accepted(system: str, variable: str, url: str | None) -> None:
    variables = SYSTEM_VARIABLES[system]
    assert (variables.url_variable, variables.default_url) == (variable, url)
    environ = dict.fromkeys(variables.secrets, "x") | {variable: url or "https://bank.example.com"}
    assert system_settings(system, environ).url == environ[variable]


def test_no_system_is_left_out_of_the_table_above() -> None:
    assert len(SYSTEM_VARIABLES) == 11


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "https://api2.ploomes.com"),
        ({"PLOOMES_URL": " "}, "https://api2.ploomes.com"),
        ({"PLOOMES_URL": "https://public-api2.ploomes.com/"}, "https://public-api2.ploomes.com"),
        ({"PLOOMES_URL": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080"),
        ({"PLOOMES_URL": "http://localhost:8080/"}, "http://localhost:8080"),
        ({"PLOOMES_URL": "http://[::1]:8080"}, "http://[::1]:8080"),
    ],
)
def test_a_url_may_be_replaced(environ: dict[str, str], url: str) -> None:
    assert system_settings("ploomes", PLOOMES | environ).url == url


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://api2.ploomes.com/v1", "has a path"),
        ("https://api2.ploomes.com?a=b", "has a query"),
        ("https://api2.ploomes.com?", "has a query"),
        ("https://api2.ploomes.com#top", "has a fragment"),
        ("https://me:hidden@api2.ploomes.com", "carries credentials"),
        ("ftp://api2.ploomes.com", "neither https:// nor http://"),
        ("api2.ploomes.com", "neither https:// nor http://"),
        ("https://", "names no host"),
        ("https://:8080", "names no host"),
        ("https://host:0", "names no host"),
        ("https://host:99999", "is no URL"),
        ("https://[::1", "is no URL"),
        ("https://a\\@b", "holds a character"),
        ("https://a b", "holds a character"),
        ("https://é.example", "holds a character"),
        ("http://api2.ploomes.com", "not this machine"),
        ("http://127.evil.example", "not this machine"),
        ("http://localhost.evil.example", "not this machine"),
        ("http://10.0.0.1", "not this machine"),
    ],
)
def test_a_bad_url_is_refused_without_repeating_it(url: str, fault: str) -> None:
    with pytest.raises(ConfigError) as refused:
        system_settings("ploomes", PLOOMES | {"PLOOMES_URL": url})
    assert "PLOOMES_URL" in str(refused.value) and fault in str(refused.value)
    assert "hidden" not in str(refused.value) + refused.value.cure
    assert refused.value.cure == "export PLOOMES_URL=https://api2.ploomes.com"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/api", "http://127.0.0.1:8080/api/", "https://proxy.example/m/api"]
)
def test_the_url_of_milvus_ends_in_api(url: str) -> None:
    assert system_settings("milvus", MILVUS | {"MILVUS_URL": url}).url == url.rstrip("/")
    with pytest.raises(ConfigError, match="MILVUS_URL does not end in /api"):
        system_settings("milvus", MILVUS | {"MILVUS_URL": url.rstrip("/").removesuffix("/api")})


def test_everything_missing_is_named_at_once_with_its_cure() -> None:
    with pytest.raises(ConfigError) as refused:
        system_settings("qeasy", {"QEASY_APP_KEY": " ", "QEASY_URL": "http://example.com"})
    assert str(refused.value) == (
        "qeasy: missing: QEASY_APP_KEY, QEASY_APP_SECRET; QEASY_URL is http to a host that is not this machine"
    )
    assert refused.value.cure == (
        "export QEASY_APP_KEY=...; export QEASY_APP_SECRET=...; export QEASY_URL=https://api.qeasy.cloud"
    )


def test_a_system_without_a_public_address_needs_its_url() -> None:
    with pytest.raises(ConfigError, match=r"missing: PRISMA_URL$"):
        system_settings("prisma", {})
    with pytest.raises(ConfigError) as refused:
        system_settings("prisma", {"PRISMA_TOKEN": "t", "PRISMA_URL": "https://bank.example.com/api"})
    assert refused.value.cure == "export PRISMA_URL=https://<host>"


def test_a_data_sync_has_a_token_of_its_own_or_none() -> None:
    url = {"PRISMA_URL": "https://bank.example.com"}
    assert system_settings("prisma", url).secrets == {}
    tokens = {"PRISMA_TOKEN": "a", "PRISMA_TOKEN_CUSTOMERS": " b\n", "PRISMA_TOKEN_RESULTS": " "}
    found = system_settings("prisma", url | tokens | {"PRISMA_TOKENS": "c", "QEASY_TOKEN_X": "d"})
    assert found.secrets == {"PRISMA_TOKEN": "a", "PRISMA_TOKEN_CUSTOMERS": "b"}
    assert system_settings("milvus", MILVUS | tokens).secrets == MILVUS


def test_an_unknown_system_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="ploomse is no system") as refused:
        system_settings("ploomse", {})
    assert refused.value.cure == "write ploomes"
    with pytest.raises(ConfigError) as refused:
        system_settings("zzzzzz", {})
    assert refused.value.cure == "write one of them"


def test_secrets_are_not_shown() -> None:
    settings = system_settings("ploomes", {"PLOOMES_USER_KEY": "hidden"})
    assert "PLOOMES_USER_KEY" in repr(settings) and "PLOOMES_USER_KEY" in str(settings.__rich_repr__())
    assert "hidden" not in repr(settings) + str(settings) + str(settings.__rich_repr__())


def test_missing_secrets_are_listed_over_all_systems_once() -> None:
    systems = ["ploomes", "milvus", "prisma", "milvus", "ploomes", "tests.bench.sink", "files"]
    assert missing_secrets(systems, {}) == ["PLOOMES_USER_KEY", "MILVUS_TOKEN", "PRISMA_URL"]
    assert missing_secrets(systems, MILVUS | {"PRISMA_URL": "https://x"}) == ["PLOOMES_USER_KEY"]


def test_the_state_has_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_home({}, Path("/root-of-it")) == Path("/root-of-it/.waybill")
    assert state_home({"WAYBILL_HOME": ""}, Path("/root-of-it")) == Path("/root-of-it/.waybill")
    assert state_home({"WAYBILL_HOME": "/state"}, Path("/root-of-it")) == Path("/state")
    assert state_home({"WAYBILL_HOME": "~/state"}, Path("/root-of-it")) == tmp_path / "state"


def test_the_backend_is_one_of_two() -> None:
    assert [backend({}), backend({"WAYBILL_BACKEND": "embedded"}), backend({"WAYBILL_BACKEND": "gcp"})] == [
        "embedded",
        "embedded",
        "gcp",
    ]
    with pytest.raises(ConfigError, match="found `aws`, expected embedded or gcp") as refused:
        backend({"WAYBILL_BACKEND": "aws"})
    assert refused.value.cure == "export WAYBILL_BACKEND=embedded"
