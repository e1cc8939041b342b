"""The practical limit: pages read ahead and bounded concurrency with aiohttp, orjson and uvloop, nothing remembered."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Any

import aiohttp
import orjson
import uvloop

from tests.bench.contact import PAGE, POST, document_of, to_target

LATE = float(os.environ.get("LATENCY_MS", "0")) > 0
SINGLE = os.environ["MODE"] == "single"
AHEAD = 32 if LATE else 8
WRITERS = (512 if LATE else 32) if SINGLE else (64 if LATE else 32)
Item = dict[str, Any] | list[dict[str, Any]]


async def fetch(http: aiohttp.ClientSession, skip: int) -> list[dict[str, Any]]:
    url = f"{os.environ['SOURCE_URL']}/Contacts?$top={PAGE}&$skip={skip}"
    async with http.get(url, headers={"User-Key": os.environ["USER_KEY"]}) as answer:
        answer.raise_for_status()
        rows: list[dict[str, Any]] = orjson.loads(await answer.read())["value"]
        return rows


async def write(http: aiohttp.ClientSession, queue: asyncio.Queue[Item | None]) -> None:
    url = os.environ["TARGET_URL"] + ("/Contacts" if SINGLE else "/Contacts/batch")
    while (item := await queue.get()) is not None:
        async with http.post(url, data=orjson.dumps(item), headers={"Content-Type": "application/json"}) as answer:
            await answer.read()
            answer.raise_for_status()


async def read(http: aiohttp.ClientSession, queue: asyncio.Queue[Item | None]) -> None:
    ahead = deque(asyncio.create_task(fetch(http, skip * PAGE)) for skip in range(AHEAD))
    skip = AHEAD * PAGE
    seen: set[str] = set()
    waiting: list[dict[str, Any]] = []
    while ahead:
        page = await ahead.popleft()
        if len(page) == PAGE:
            ahead.append(asyncio.create_task(fetch(http, skip)))
            skip += PAGE
        for contact in page:
            if (document := document_of(contact)) in seen:
                continue
            seen.add(document)
            if SINGLE:
                await queue.put(to_target(contact))
                continue
            waiting.append(to_target(contact))
            if len(waiting) == POST:
                await queue.put(waiting)
                waiting = []
    if waiting:
        await queue.put(waiting)


async def main() -> None:
    queue: asyncio.Queue[Item | None] = asyncio.Queue(4 * WRITERS)
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
    async with session as http, asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(write(http, queue))
        await read(http, queue)
        for _ in range(WRITERS):
            await queue.put(None)


if __name__ == "__main__":
    uvloop.run(main())
