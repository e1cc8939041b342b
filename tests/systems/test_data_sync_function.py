"""The API as it is deployed: one function on functions-framework, whose server and limits are its own."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.acceptance.hub import ROOT as PROJECT
from tests.acceptance.servers import Server
from tests.systems.data_sync_desk import NAME, ROOT, Desk, header, make_hub
from tests.systems.test_data_sync_connections import FORM, HEAD, head, in_pieces

LARGE = 40_000_000
"""More than functions-framework takes by itself in a body, and more than memory may grow by."""
ROOM = 25_000_000


class Api(Server):
    """`api` of the made-up integration, as the function of the real one begins."""

    def __init__(self, folder: Path, main_text: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        main = folder / "functions" / NAME / "main.py"
        shutil.copy(PROJECT / "functions" / "data_syncs" / "main.py", main)
        if main_text:
            main.write_text(main_text)
        command = [
            str(Path(sys.executable).with_name("functions-framework")),
            *("--source", str(main), "--target", "api", "--host", "127.0.0.1", "--port", str(self.port)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "WAYBILL_HOME": str(folder / "home")}
        super().__init__(command, environment, folder / "api.log")
        self.url = f"http://127.0.0.1:{self.port}"
        self.api = self.url + ROOT

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def memory(self) -> int:
        """The most that any of its processes ever had, in bytes."""
        assert self.process is not None
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            except OSError:
                continue
            if str(self.process.pid) in (lines["Pid"].strip(), lines["PPid"].strip()):
                found.append(int(lines.get("VmHWM", "0").split()[0]) * 1024)
        return max(found)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    hub = make_hub(tmp_path)
    yield Desk(hub)
    hub.close()


def test_a_deployed_function_serves_the_api(desk: Desk, tmp_path: Path) -> None:
    token = desk.token("customers")
    with Api(tmp_path) as function:
        api = function.api
        assert requests.get(f"{api}/openapi.json", timeout=60).json()["openapi"] == "3.1.1"
        assert requests.get(f"{api}/customers", timeout=60).status_code == 403
        assert requests.get(f"{api}/nobody", timeout=60).status_code == 404
        for path in ("", "/", "/customers", ROOT, f"{ROOT}/"):
            answer = requests.get(function.url + path, timeout=60)
            assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
        file = {"file": ("c.csv", b"id,name\r\n1,Ana\r\n")}
        assert requests.post(f"{api}/import/customers", files=file, timeout=60).status_code == 403
        sent = requests.post(f"{api}/import/customers", files=file, headers=dict(header("api", token)), timeout=60)
        assert (sent.status_code, sent.text) == (200, "File queued")
        headers = FORM | dict(header("api", token))
        chunked = requests.post(f"{api}/import/customers", data=in_pieces(100_000), headers=headers, timeout=60)
        assert chunked.status_code == 200
        desk.work()
        launches = requests.get(f"{api}/customers/latest-launches", auth=("api", token), timeout=60).json()
        assert [launch["status"] for launch in launches] == ["finished", "finished"]
        path = f"{api}/customers/{launches[1]['id']}"
        assert requests.get(f"{path}/download", auth=("api", token), timeout=60).content == b"id,name\r\n1,Ana\r\n"
        rows = requests.get(f"{path}/result", auth=("api", token), timeout=60).json()["rows"]
        assert rows == [{"line": 2, "key": "1", "outcome": "delivered"}]
        answer = requests.delete(path, auth=("api", token), timeout=60)
        assert (answer.status_code, answer.headers["Content-Type"]) == (409, "application/problem+json")
        answer = requests.put(path, timeout=60)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, DELETE")
        answer = requests.head(f"{path}/download", auth=("api", token), timeout=60)
        assert (answer.status_code, answer.headers["Content-Length"]) == (200, "16")


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="nobody says how much memory a process has")
def test_a_large_file_passes_through_and_one_that_is_too_large_is_answered(desk: Desk, tmp_path: Path) -> None:
    with Api(tmp_path) as function:
        api = function.api
        small = requests.post(f"{api}/import/customers", data=HEAD + b"id\r\n\r\n--B--", headers=FORM, timeout=60)
        assert small.status_code == 200
        before = function.memory()
        body = b"".join(in_pieces(LARGE))
        for path, status in (("customers", 200), ("open_import", 413), ("asleep", 409), ("nobody", 404)):
            for data in (body, in_pieces(LARGE)):
                answer = requests.post(f"{api}/import/{path}", data=data, headers=FORM, timeout=60)
                assert answer.status_code == status, (path, answer.text)
        launch = desk.launches("customers")[0]
        assert launch.size == LARGE // 65_536 * 65_536
        with requests.get(f"{api}/customers/{launch.id}/download", stream=True, timeout=60) as answer:
            assert sum(len(piece) for piece in answer.iter_content(65_536)) == launch.size
        assert function.memory() < before + ROOM
    assert len(desk.uploads()) == 3


def test_a_client_that_goes_away_leaves_nothing_behind(desk: Desk, tmp_path: Path) -> None:
    with Api(tmp_path) as function:
        for line in ("Content-Length: 500000", "Transfer-Encoding: chunked"):
            start = b"7fffffff\r\n" if "chunked" in line else b""
            with socket.create_connection(("127.0.0.1", function.port)) as connection:
                connection.sendall(head(line) + start + HEAD + b"id\r\n1")
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(60)
                assert b" 400 " in connection.recv(65_536)[:20]
    assert (desk.uploads(), desk.launches("open_import")) == ([], [])


IMPATIENT = """\
from pathlib import Path

from infra.data_sync.api import DataSyncs
from infra.data_sync.body import Patience
from infra.log import silent
from infra.wiring import Hub

SYNCS = DataSyncs(Hub(functions=Path(__file__).resolve().parent.parent), silent, Patience(piece=0.3, tick=0.02))

def api(request):
    return SYNCS.answer(request)
"""


@pytest.mark.parametrize("start", [b"", b"7fffffff\r\n"], ids=["a length", "a chunk"])
def test_a_client_that_sends_too_slowly_is_told_so(desk: Desk, tmp_path: Path, start: bytes) -> None:
    line = "Transfer-Encoding: chunked" if start else "Content-Length: 500000"
    with Api(tmp_path, IMPATIENT) as function, socket.create_connection(("127.0.0.1", function.port)) as connection:
        connection.sendall(head(line) + start + HEAD)
        connection.settimeout(60)
        answer = connection.recv(65_536)
        assert b" 408 " in answer[:20], answer
        assert requests.get(f"{function.api}/open_import", timeout=60).status_code == 200
    assert desk.uploads() == []
