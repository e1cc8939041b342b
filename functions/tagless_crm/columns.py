"""The columns of each destination: the fields of its API, in snake case.

Facts: GA4's Measurement Protocol, page `reference`; Data Manager API v1, references of `Event` and `AudienceMember`;
Google Ads API v26, `ClickConversion` and `UserData`; Campaign Manager 360 API v5, `Conversion`. What an API requires
and limits is checked by its connector, before anything is sent.
"""

from __future__ import annotations

from typing import Final

from functions.tagless_crm.people import (
    Reading,
    cm360_identifiers,
    data_manager_identifiers,
    ga4_user_data,
    google_ads_identifiers,
)
from functions.tagless_crm.rows import Fields, Table, Value, any_names, list_of
from functions.tagless_crm.values import as_is, boolean, micros, number, rfc_3339, seconds_with_offset, text, whole
from infra.systems.ga4.names import NUMBERS


def _texts(*names: str) -> Fields:
    return dict.fromkeys(names, text)


def _short(home: str, *names: str) -> dict[str, str]:
    """Names that stand for those of identifiers, wherever these are."""
    return {name: f"{home}.{name}" for name in names}


_CONSENT: Final = _texts("ad_user_data", "ad_personalization")


def ga4(reading: Reading) -> Table:
    def kind_in(place: str) -> Value:
        return any_names(lambda name: number if name in NUMBERS or f"{place}.{name}" in reading.numbers else as_is)

    items = list_of(kind_in("params.items"))

    def kind_of_parameter(name: str) -> Value:
        if name == "items":
            return items
        return number if name in NUMBERS or f"params.{name}" in reading.numbers else as_is

    def kind_of_property(name: str) -> Fields:
        is_number = f"user_properties.{name}.value" in reading.numbers
        return {"value": number if is_number else as_is, "timestamp_micros": micros}

    return Table(
        {
            **_texts("client_id", "app_instance_id", "user_id", "name", "ip_override", "user_agent"),
            "timestamp_micros": micros,
            "params": any_names(kind_of_parameter),
            "user_properties": any_names(kind_of_property),
            "user_data": ga4_user_data(reading),
            "consent": _CONSENT,
            "user_location": _texts("city", "region_id", "country_id", "subcontinent_id", "continent_id"),
            "device": _texts(
                "category", "language", "screen_resolution", "operating_system", "operating_system_version", "model",
                "brand", "browser", "browser_version",
            ),
            "non_personalized_ads": boolean,
        }
    )  # fmt: skip


_DEVICE: Final[Fields] = {
    **_texts(
        "user_agent", "ip_address", "category", "language_code", "operating_system", "operating_system_version",
        "model", "brand", "browser", "browser_version",
    ),
    "screen_height": whole,
    "screen_width": whole,
}  # fmt: skip
_FEED: Final = _texts("merchant_id", "merchant_feed_label", "merchant_feed_language_code")
_PARAMETERS: Final = list_of(_texts("parameter_name", "value"))
_DATA_MANAGER_VARIABLES: Final = list_of({**_texts("variable", "value"), "destination_references": list_of(text)})
_OF_DATA_MANAGER: Final = _short("user_data.user_identifiers", "email_address", "phone_number", "address")


def data_manager_event(reading: Reading) -> Table:
    people = {"user_identifiers": data_manager_identifiers(reading)}
    return Table(
        {
            **_texts(
                "transaction_id", "currency", "event_source", "event_name", "client_id", "user_id", "app_instance_id",
            ),
            "event_timestamp": rfc_3339,
            "last_updated_timestamp": rfc_3339,
            "conversion_value": number,
            "conversion_count": number,
            "destination_references": list_of(text),
            "ad_identifiers": {
                **_texts(
                    "gclid", "gbraid", "wbraid", "dclid", "impression_id", "match_id", "mobile_device_id",
                    "session_attributes",
                ),
                "landing_page_device_info": _DEVICE,
            },
            "user_data": people,
            "third_party_user_data": people,
            "consent": _CONSENT,
            "event_device_info": _DEVICE,
            "event_location": _texts(
                "store_id", "city", "subdivision_code", "region_code", "subcontinent_code", "continent_code",
            ),
            "call_info": {"start_timestamp": rfc_3339},
            "cart_data": {
                **_FEED,
                "transaction_discount": number,
                "items": list_of(
                    {
                        **_FEED,
                        **_texts("merchant_product_id", "item_id"),
                        "quantity": whole,
                        "unit_price": number,
                        "conversion_value": number,
                        "custom_variables": _DATA_MANAGER_VARIABLES,
                        "additional_item_parameters": _PARAMETERS,
                    }
                ),
            },
            "custom_variables": _DATA_MANAGER_VARIABLES,
            "experimental_fields": list_of(_texts("field", "value")),
            "user_properties": {
                **_texts("customer_type", "customer_value_bucket"),
                "additional_user_properties": list_of(_texts("property_name", "value")),
            },
            "additional_event_parameters": _PARAMETERS,
        },
        _OF_DATA_MANAGER,
    )  # fmt: skip


def data_manager_member(reading: Reading) -> Table:
    people = {"user_identifiers": data_manager_identifiers(reading)}
    seen = {"ip_address": text, "observe_start_time": rfc_3339, "observe_end_time": rfc_3339}
    return Table(
        {
            "user_data": people,
            "pair_data": {"pair_ids": list_of(text)},
            "mobile_data": {"mobile_ids": list_of(text)},
            "user_id_data": {"user_id": text},
            "ppid_data": {"ppids": list_of(text)},
            "composite_data": {"user_data": people, "ip_data": list_of(seen)},
            "consent": _CONSENT,
            "destination_references": list_of(text),
        },
        _OF_DATA_MANAGER,
    )


def click_conversion(reading: Reading) -> Table:
    return Table(
        {
            **_texts(
                "gclid", "gbraid", "wbraid", "conversion_action", "currency_code", "order_id", "conversion_environment",
                "customer_type", "user_ip_address", "session_attributes_encoded",
            ),
            "conversion_date_time": seconds_with_offset,
            "conversion_value": number,
            "user_identifiers": google_ads_identifiers(reading),
            "consent": _CONSENT,
            "custom_variables": list_of(_texts("conversion_custom_variable", "value")),
            "cart_data": {
                **_texts("feed_country_code", "feed_language_code"),
                "merchant_id": whole,
                "local_transaction_cost": number,
                "items": list_of({"product_id": text, "quantity": whole, "unit_price": number}),
            },
            "external_attribution_data": {
                "external_attribution_credit": number,
                "external_attribution_model": text,
            },
            "session_attributes_key_value_pairs": {
                "key_value_pairs": list_of(_texts("session_attribute_key", "session_attribute_value"))
            },
        },
        _short("user_identifiers", "hashed_email", "hashed_phone_number", "address_info"),
    )  # fmt: skip


def user_list_member(reading: Reading) -> Table:
    names = ("hashed_email", "hashed_phone_number", "address_info", "mobile_id", "third_party_user_id")
    return Table({"user_identifiers": google_ads_identifiers(reading)}, _short("user_identifiers", *names))


def floodlight_conversion(reading: Reading) -> Table:
    return Table(
        {
            **_texts(
                "gclid", "dclid", "match_id", "mobile_device_id", "impression_id", "encrypted_user_id",
                "ad_user_data_consent", "session_attributes_encoded",
            ),
            **dict.fromkeys(("floodlight_configuration_id", "floodlight_activity_id", "ordinal", "quantity"), whole),
            **dict.fromkeys(
                ("limit_ad_tracking", "child_directed_treatment", "non_personalized_ad", "treatment_for_underage"),
                boolean,
            ),
            "timestamp_micros": micros,
            "value": number,
            "encrypted_user_id_candidates": list_of(text),
            "user_identifiers": cm360_identifiers(reading),
            "custom_variables": list_of(_texts("type", "value")),
            "cart_data": {
                **_texts("merchant_feed_label", "merchant_feed_language"),
                "merchant_id": whole,
                "items": list_of({"item_id": text, "quantity": whole, "unit_price": number}),
            },
        },
        _short("user_identifiers", "hashed_email", "hashed_phone_number", "address_info"),
    )  # fmt: skip
