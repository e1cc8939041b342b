"""Processes that serve HTTP, can be killed and started again, and the push subscription that brings them messages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import requests

from infra.entrypoints import push_body
from infra.local.bus import Claimed
from infra.local.home import EmbeddedHome
from shared.ports import topic_of
from tests.acceptance.hub import NAME, PATIENCE, ROOT, Hub, wait_until

LISTENING = "listening on "


class Server:
    """One process with a group of its own, so that a kill reaches its workers too. Its log is a file."""

    folder = ROOT
    """Where it is started; gunicorn looks for modules there first."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.command = command
        self.environment = environment
        self.log = log
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it takes requests."""
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: self.ended or self.listens(), f"{self.command} takes requests")
        assert not self.ended, self.said

    def listens(self) -> bool:
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def said(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        """`kill -9` of the process and its workers."""
        assert self.process is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            assert self.ended
        self.process.wait(PATIENCE)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end, and gives its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def post(self, path: str = "/", body: Any = None, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return requests.post(self.url + path, data=body, headers=named, timeout=PATIENCE)
        return requests.post(self.url + path, json=body or {}, headers=named, timeout=PATIENCE)


class Listening(Server):
    """One that is told its port."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        super().__init__(command, {**environment, "HOST": "127.0.0.1", "PORT": str(self.port)}, log)
        self.url = f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        super().kill()
        # A worker may outlive its master by moments, and would be taken for the next one.
        wait_until(lambda: not self.listens(), "nobody listens any more")

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Function(Listening):
    """The source or the sink of the integration under the functions-framework, from the working copy."""

    def __init__(self, hub: Hub, target: str, number: int = 0) -> None:
        command = [
            str(Path(sys.executable).with_name("functions-framework")),
            *("--source", str(ROOT / "functions" / NAME / "main.py"), "--target", target),
        ]
        environment = {**hub.environment, "PYTHONPATH": str(ROOT)}
        super().__init__(command, environment, hub.home.parent / f"{target}-{number}.log")


class Archived(Listening):
    """A function as the buildpack starts it: in the folder to which its archive was unpacked, with `runtime` for all
    commands and libraries, and told its target by the environment."""

    def __init__(self, runtime: Path, folder: Path, target: str, environment: Mapping[str, str]) -> None:
        foreign = {name for name in environment if name.startswith("PYTHON")}
        told = {name: value for name, value in environment.items() if name not in foreign}
        told |= {"PATH": f"{runtime}:{os.defpath}", "FUNCTION_TARGET": target}
        super().__init__([str(runtime / "functions-framework")], told, folder.parent / f"{folder.name}-{target}.log")
        self.folder = folder


class Serve(Server):
    """`waybill serve` on a free port."""

    def __init__(self, hub: Hub, *options: str) -> None:
        command = [str(ROOT / "waybill"), "serve", "--port", "0", *options]
        super().__init__(command, hub.environment, hub.home.parent / "serve.log")

    def listens(self) -> bool:
        for line in self.said.splitlines():
            if line.startswith(LISTENING):
                self.url = line.removeprefix(LISTENING)
                return True
        return False


class Subscription:
    """A push subscription: brings each message to a sink, again and again until it is answered 2xx."""

    def __init__(self, hub: Hub, sinks: Sequence[Server]) -> None:
        self.home = EmbeddedHome(hub.home)
        self.topic = topic_of(NAME)
        self.sinks = sinks
        self.answers: list[int] = []
        self.done = threading.Event()

    def push(self, claimed: Claimed, sink: Server) -> None:
        """One delivery. Without an answer the message comes again, like one that was refused."""
        body = push_body(claimed.message, f"projects/local/subscriptions/{NAME}-records", claimed.attempts)
        try:
            status = sink.post(body=body).status_code
        except requests.RequestException:
            status = 0
        self.answers.append(status)
        if 200 <= status < 300:
            self.home.bus.acknowledge(claimed)
        else:
            self.home.bus.refuse(claimed, 0.05)

    def work(self, sink: Server) -> None:
        while not self.done.is_set():
            claimed = self.home.bus.claim([self.topic])
            if claimed is None:
                self.home.bus.wait(0.1)
            else:
                self.push(claimed, sink)

    @property
    def waiting(self) -> int:
        return self.home.bus.depth([self.topic])


@contextmanager
def subscription(hub: Hub, sinks: Sequence[Server]) -> Iterator[Subscription]:
    """A subscription at work, two deliveries at a time for each sink."""
    made = Subscription(hub, sinks)
    threads = [threading.Thread(target=made.work, args=(sink,)) for sink in sinks for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.done.set()
        for thread in threads:
            thread.join()
        made.home.close()
