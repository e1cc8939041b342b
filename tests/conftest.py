"""What holds for every test: nothing of the caller's environment reaches it."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from infra.gcp.clients import NO_BUCKET_METADATA

pytest_plugins = ("tests.emulators",)

FOREIGN_PREFIXES = (
    "WAYBILL_", "PLOOMES_", "MILVUS_", "OKKI_", "QEASY_", "PRISMA_", "GA4_", "DATA_MANAGER_", "GOOGLE_ADS_", "CM360_",
    "BIGQUERY_",
)  # fmt: skip
FOREIGN = {
    "http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle",
    "google_application_credentials", "google_oauth_access_token", "google_cloud_project",
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def scrubbed_environment() -> Iterator[None]:
    """A proxy, a token or an address of the caller's would send a test somewhere else. Emulators are left alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FOREIGN_PREFIXES) or name.lower() in FOREIGN:
                patch.delenv(name)
        # A test's own client leaves a thread behind otherwise, which draws random numbers in the middle of later tests.
        patch.setenv(NO_BUCKET_METADATA, "true")
        yield


# A slow machine is no failure, and the same code gives the same examples.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
