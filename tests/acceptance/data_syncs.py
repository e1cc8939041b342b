"""The data-sync API as its callers see it: files over HTTP, statuses to be polled, and nothing within."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import requests

from tests.acceptance.hub import PATIENCE, Hub, wait_until
from tests.acceptance.servers import Serve

NAME = "data_syncs"
PATH = "/api/data-sync"


def customers(first: int, count: int, city: str = "Zürich") -> Iterator[list[str]]:
    """Rows with what CSV makes difficult here and there."""
    for n in range(first, first + count):
        name = f'Ana "{n}" Müller, Dr.' if n % 100 else f"Ana\r\n{n}"
        yield [str(n), name, f"ana{n}@example.com", city, f"+55 11 9{n:08d}", f"-{n}.5"]


COLUMNS = ["id", "name", "email", "city", "phone", "balance"]


def write(path: Path, rows: Iterable[list[str]], columns: list[str] = COLUMNS) -> Path:
    with open(path, "w", newline="", encoding="utf8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)
    return path


def fingerprints(rows: Iterable[list[str]]) -> list[bytes]:
    """Of each row, in an order that does not depend on theirs: 200,000 rows twice would be much to hold."""
    return sorted(hashlib.blake2b("\x1f".join(row).encode(), digest_size=10).digest() for row in rows)


class Caller:
    """A client of the API of one `waybill serve`."""

    def __init__(self, hub: Hub, serve: Serve, token: str = "") -> None:
        self.hub = hub
        self.serve = serve
        self.auth = ("api", token) if token else None

    def url(self, path: str) -> str:
        return f"{self.serve.url}{PATH}/{path}"

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url(path), auth=self.auth, timeout=PATIENCE, **options)

    def send(self, path: str, file: Path | bytes, **options: Any) -> requests.Response:
        """A stock upload: `curl -F file=@customers.csv`, which streams neither."""
        with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as content:
            files = {"file": ("customers.csv", content, "text/csv")}
            return requests.post(self.url(path), files=files, auth=self.auth, timeout=PATIENCE, **options)

    def latest(self, data_sync: str) -> dict[str, Any]:
        answer = self.get(data_sync)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json().get("latest-launch", {})
        return found

    def finished(self, data_sync: str, count: int = 1) -> list[dict[str, Any]]:
        """The launches of a data sync, newest first, once there are so many and all are over."""

        def over() -> bool:
            launches = self.get(f"{data_sync}/latest-launches").json()
            return len(launches) >= count and all(each["status"] in ("finished", "cancelled") for each in launches)

        wait_until(over, f"{count} launches of {data_sync} are finished", every=0.1)
        found: list[dict[str, Any]] = self.get(f"{data_sync}/latest-launches").json()
        return found

    def rows(self, path: str) -> Iterator[list[str]]:
        """A CSV file, row by row, the header first; never all of it."""
        with self.get(path, stream=True) as answer:
            assert answer.status_code == 200, answer.text
            # Whoever reads it as text asks once more at its end.
            answer.raw.auto_close = False
            yield from csv.reader(io.TextIOWrapper(answer.raw, encoding="utf8", newline=""))


def export(hub: Hub, data_sync: str) -> dict[str, Any]:
    """Launches an export by hand."""
    done = hub("run", NAME, "--stream", data_sync)
    assert done.code == 0, done
    found: dict[str, Any] = done.document["streams"][data_sync]
    return found


def audited(hub: Hub) -> dict[str, dict[str, int]]:
    """The present outcomes by data sync, of books that balance."""
    done = hub("audit", NAME)
    assert (done.code, done.document["balanced"], done.document["unaccounted"]) == (0, True, []), done
    found: dict[str, dict[str, int]] = done.document["streams"]
    return found


def peak_memory(serve: Serve) -> int:
    """Of the process, in bytes, since it began."""
    assert serve.process is not None
    status = Path(f"/proc/{serve.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
