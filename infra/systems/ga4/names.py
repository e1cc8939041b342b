"""The names that GA4 documents: of fields, of numbers, of an item's own parameters, and those that it keeps for itself.

Facts: the Measurement Protocol's pages `reference` (fields, reserved names) and `reference/events` (parameters and
their types); Analytics help for the prefixes of event names.
"""

from __future__ import annotations

from typing import Final, TypeGuard

# fmt: off
FIELDS: Final = frozenset((
    "client_id", "app_instance_id", "user_id", "timestamp_micros", "user_properties", "user_data", "consent",
    "user_location", "ip_override", "device", "user_agent", "non_personalized_ads", "name", "params",
))
ADDRESS: Final = frozenset((
    "sha256_first_name", "sha256_last_name", "sha256_street", "city", "region", "postal_code", "country",
))
NUMBERS: Final = frozenset((
    "value", "price", "quantity", "discount", "index", "shipping", "tax", "engagement_time_msec", "level", "score",
    "timestamp_micros",
))
"""Fields and parameters that are documented as numbers, wherever they stand."""
ITEM_PARAMETERS: Final = frozenset((
    "item_id", "item_name", "affiliation", "coupon", "currency", "creative_name", "creative_slot", "discount", "index",
    "item_brand", "item_category", "item_category2", "item_category3", "item_category4", "item_category5",
    "item_list_id", "item_list_name", "item_variant", "location_id", "price", "promotion_id", "promotion_name",
    "quantity",
))
RESERVED_EVENTS: Final = frozenset((
    "ad_activeview", "ad_click", "ad_exposure", "ad_query", "ad_reward", "adunit_exposure", "app_clear_data",
    "app_exception", "app_install", "app_remove", "app_store_refund", "app_update", "app_upgrade",
    "dynamic_link_app_open", "dynamic_link_app_update", "dynamic_link_first_open", "error", "firebase_campaign",
    "firebase_in_app_message_action", "firebase_in_app_message_dismiss", "firebase_in_app_message_impression",
    "first_open", "first_visit", "notification_dismiss", "notification_foreground", "notification_open",
    "notification_receive", "notification_send", "os_update", "session_start", "user_engagement",
))
OF_APPS: Final = frozenset(("ad_impression", "in_app_purchase", "screen_view"))
"""Events that a web stream may not have."""
RESERVED_PARAMETER: Final = "firebase_conversion"
RESERVED_PROPERTIES: Final = frozenset((
    "first_open_time", "first_visit_time", "last_deep_link_referrer", "user_id", "first_open_after_install",
))
PREFIXES: Final = ("_", "firebase_", "ga_", "google_", "gtag.")
# fmt: on


def is_name(value: object, most: int) -> TypeGuard[str]:
    """Letters, digits and underscores, and a letter first. Letters of any script, as Analytics help has it."""
    if not isinstance(value, str) or not 0 < len(value) <= most:
        return False
    return value[0].isalpha() and value.replace("_", "a").isalnum()
