"""Two hubs: one serves data syncs, the other one, which has integrations of these tests, is their client."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from infra import replaying
from infra.clock import SystemClock
from infra.log import silent
from infra.operations import Operations
from infra.wiring import Hub as Wiring
from shared.books import FailureQuery
from tests.acceptance.hub import ROOT, Done, Hub
from tests.acceptance.servers import Serve
from tests.loopback import LOST, Loopback, Reply, Request, reply

FUNCTIONS = Path(__file__).parent / "prisma_functions"
SYNCS = {"IMPORT": "customers_import", "DELETE": "customers_delete", "EXPORT": "customers_export"}
HALF_AN_HOUR = timedelta(minutes=30)
Row = dict[str, Any]


class Ahead(SystemClock):
    """The real clock, set forward."""

    def __init__(self, by: timedelta) -> None:
        super().__init__()
        self.by = by

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by


class Provider:
    """The hub that serves the data syncs, each with a token of its own."""

    def __init__(self, hub: Hub, serve: Serve) -> None:
        self.hub = hub
        self.serve = serve
        self.tokens = {name: hub("token", "create", sync).document["token"] for name, sync in SYNCS.items()}

    def get(self, name: str, path: str = "") -> requests.Response:
        """As the vendor's documentation shows it: HTTP Basic, and a Content-Type."""
        url = f"{self.serve.url}/api/data-sync/{SYNCS[name]}{path}"
        headers = {"Content-Type": "application/json"}
        return requests.get(url, auth=("api", self.tokens[name]), headers=headers, timeout=60)

    def launches(self, name: str) -> list[Row]:
        """Newest first."""
        answer = self.get(name, "/latest-launches")
        assert answer.status_code == 200, answer.text
        found: list[Row] = answer.json()
        return found

    def is_idle(self, name: str) -> bool:
        return all(launch["status"] in ("finished", "cancelled") for launch in self.launches(name))

    def export(self) -> None:
        done = self.hub("run", "data_syncs", "--stream", SYNCS["EXPORT"])
        assert done.code == 0, done


class Client(Hub):
    """The hub whose integrations are those of these tests, in a folder of its own with all that `./waybill` needs."""

    def __init__(self, folder: Path, provider: Provider, url: str = "") -> None:
        super().__init__(folder, provider.hub.sandbox, {})
        self.root = folder / "root"
        for name in ("infra", "shared"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(FUNCTIONS, self.root / "functions", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "waybill", self.root)
        (self.root / ".venv").symlink_to(ROOT / ".venv")
        (self.root / "functions" / "__init__.py").touch()
        del self.environment["WAYBILL_OVERLAY"]
        self.environment["PRISMA_URL"] = url or provider.serve.url
        self.environment |= {f"PRISMA_TOKEN_{name}": token for name, token in provider.tokens.items()}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [self.root / "waybill", *arguments, "--json"]
        return self.keep(
            subprocess.Popen(
                command, env=self.environment, text=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        )

    def overlay_with(self, settings: Row) -> None:
        self.environment["WAYBILL_OVERLAY"] = str(self.root / "overlay.yaml")
        (self.root / "overlay.yaml").write_text(json.dumps(settings))

    @contextmanager
    def inside(self, later: timedelta = timedelta()) -> Iterator[Wiring]:
        """The same hub in this process, so much later."""
        wiring = Wiring(self.environment, FUNCTIONS, Ahead(later))
        try:
            yield wiring
        finally:
            wiring.close()

    def swept(self, name: str, later: timedelta = HALF_AN_HOUR) -> Row:
        """What a sweep says that comes so much later."""
        with self.inside(later) as wiring:
            answer = Operations(wiring, silent).carry_out("sweep", b"")
            assert answer.status == 200, answer
            found: Row = answer.body["integrations"][name]
            return found

    def replayed(self, name: str, later: timedelta = 2 * HALF_AN_HOUR) -> Row:
        """After a sweep that came later, so that nothing failed after now."""
        query = FailureQuery(name)
        with self.inside(later) as wiring:
            return replaying.carry_out(wiring, query, "the mapping is mended", replaying.plan(wiring, query))

    def pending(self, name: str, stream: str) -> tuple[int, int]:
        """Requests that nobody has confirmed yet, and their records."""
        with self.inside() as wiring:
            return wiring.home.confirmations.pending(name, stream)

    def stored(self) -> dict[str, Row]:
        """The customers in this hub's own store."""
        found: dict[str, Row] = {}
        with self.inside() as wiring:
            while page := wiring.home.objects.page("customers", max(found, default=""), 500):
                found |= {each.id: each.fields for each in page}
        return found

    def books(self, name: str) -> Mapping[str, Row]:
        """The present outcomes by stream, of books that balance and leave nothing out."""
        done = self("audit", name)
        assert (done.code, done.document["balanced"], done.document["unaccounted"]) == (0, True, []), done
        found: Mapping[str, Row] = done.document["streams"]
        return found


class Way:
    """A way to a server. One call is lost on it, before it arrives or with its answer, and its caller is killed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._server = Loopback(self._pass_on)
        self.calls: list[str] = []
        self.lost_at = 0
        self.with_answer = False
        self.victim: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return self._server.url

    def __enter__(self) -> Way:
        self._server.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._server.__exit__(*raised)

    def watch(self, victim: subprocess.Popen[str], number: int, *, with_answer: bool) -> None:
        """The call of this number, from 1, is the victim's last. To be said before it calls."""
        self.calls = []
        self.lost_at, self.with_answer, self.victim = number, with_answer, victim

    def _pass_on(self, request: Request) -> Reply:
        self.calls.append(request.method)
        is_last = len(self.calls) == self.lost_at
        if is_last and not self.with_answer:
            return self._kill()
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        url = self._url + request.target
        answer = requests.request(request.method, url, data=request.body, headers=headers, timeout=60)
        if is_last:
            return self._kill()
        return reply(answer.status_code, answer.content, {"Content-Type": answer.headers["Content-Type"]})

    def _kill(self) -> Reply:
        assert self.victim is not None
        self.victim.kill()
        self.victim.wait()
        return LOST


def report(done: Done, stream: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = done.document["streams"][stream]
    return found
