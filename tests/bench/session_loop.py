"""What a script does: a loop over one requests.Session, one POST at a time, nothing remembered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import requests

from tests.bench.contact import PAGE, POST, document_of, to_target


def contacts(http: requests.Session) -> Iterator[dict[str, Any]]:
    url, skip = f"{os.environ['SOURCE_URL']}/Contacts", 0
    while True:
        answer = http.get(
            url, params={"$top": PAGE, "$skip": skip}, headers={"User-Key": os.environ["USER_KEY"]}, timeout=30
        )
        answer.raise_for_status()
        rows = answer.json()["value"]
        yield from rows
        if len(rows) < PAGE:
            return
        skip += PAGE


def main() -> None:
    http = requests.Session()
    target = os.environ["TARGET_URL"]
    single = os.environ["MODE"] == "single"
    seen: set[str] = set()
    waiting: list[dict[str, Any]] = []

    def post(path: str, body: Any) -> None:
        http.post(target + path, json=body, timeout=30).raise_for_status()

    for contact in contacts(http):
        if (document := document_of(contact)) in seen:
            continue
        seen.add(document)
        if single:
            post("/Contacts", to_target(contact))
            continue
        waiting.append(to_target(contact))
        if len(waiting) == POST:
            post("/Contacts/batch", waiting)
            waiting.clear()
    if waiting:
        post("/Contacts/batch", waiting)


if __name__ == "__main__":
    main()
