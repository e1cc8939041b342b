"""Google Ads over REST: offline click conversions and Customer Match, for developer tokens that still may.

Facts: reference of the Google Ads API, "Quotas", "Partial failures", protos google/ads/googleads. Tokens that were not
used for it before are refused since 1 April 2026 (Customer Match) and 15 June 2026 (conversions); they send the same
through the Data Manager API.
"""

from __future__ import annotations

from typing import Final

from infra.systems import Connection, one_of
from infra.systems.google_ads.clicks import Clicks
from infra.systems.google_ads.customer_match import CustomerMatch

__all__ = ["Clicks", "CustomerMatch", "open_sink"]

_SINKS: Final[dict[str, type[Clicks] | type[CustomerMatch]]] = {"conversions": Clicks, "customer_match": CustomerMatch}


def open_sink(connection: Connection, write: str) -> Clicks | CustomerMatch:
    """Raises ConfigError for anything else, and for settings or variables that are missing or malformed."""
    return one_of(_SINKS, write, "Google Ads")(connection)
