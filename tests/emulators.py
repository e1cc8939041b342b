"""The official Pub/Sub and Firestore emulators and a Cloud Storage server, for as long as a test session needs them.

They are started from their jars, never through gcloud, which would leave the JVM behind. A test that needs them asks
for the fixture `emulators` and works in a project of its own; where they are not installed it is skipped with the
reason, or fails when WAYBILL_REQUIRE_EMULATORS=1.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

# Read while the module is imported: the session scrubs WAYBILL_ variables before any fixture runs.
REQUIRED = os.environ.get("WAYBILL_REQUIRE_EMULATORS") == "1"
JARS = os.environ.get("WAYBILL_EMULATOR_JARS", "")
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
FIRESTORE_MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
# It answers one request at a time, so those that come together have to wait in line, not to be turned away; and it
# writes a list of all objects at every change, which nobody reads where nothing is kept.
STORAGE_MAIN = """
import http.server, sys
http.server.HTTPServer.request_queue_size = 128
from gcp_storage_emulator.__main__ import main
from gcp_storage_emulator.storage import Storage
Storage._write_config_to_file = lambda self: None
main(sys.argv[1:])
"""
VARIABLES = ("PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")


class EmulatorsMissing(Exception):
    """What is not installed, and where it was looked for."""


@dataclass
class Jars:
    """Where the emulators are on this machine."""

    java: str
    pubsub: Path
    firestore: Path


def find_jars() -> Jars:
    """Looks where WAYBILL_EMULATOR_JARS, CLOUDSDK_ROOT_DIR or gcloud point to. Raises EmulatorsMissing."""
    java = shutil.which("java")
    if java is None:
        raise EmulatorsMissing("java is not installed")
    root = _jar_folder()
    found = {}
    for product, pattern in (
        ("pubsub", "cloud-pubsub-emulator-*-all.jar"),
        ("firestore", "cloud-firestore-emulator.jar"),
    ):
        jars = sorted(root.rglob(pattern))
        if not jars:
            raise EmulatorsMissing(f"no {pattern} in {root}: gcloud components install {product}-emulator")
        found[product] = jars[-1]
    return Jars(java, found["pubsub"], found["firestore"])


def _jar_folder() -> Path:
    if JARS:
        return Path(JARS)
    root = os.environ.get("CLOUDSDK_ROOT_DIR", "")
    gcloud = shutil.which("gcloud")
    if not root and gcloud:
        asked = [gcloud, "info", "--format=value(installation.sdk_root)"]
        root = subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout.strip()
    if not root:
        raise EmulatorsMissing("neither WAYBILL_EMULATOR_JARS nor CLOUDSDK_ROOT_DIR is set, and there is no gcloud")
    return Path(root, "platform")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _end_with_parent() -> None:
    """In the new process: a test session that is killed stops nothing any more, so the kernel does (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Emulator:
    """One server process on a port of its own."""

    def __init__(self, name: str, log: Path, command: list[str], port: int, path: str = "/") -> None:
        self.name = name
        self.host = f"127.0.0.1:{port}"
        self._command = command
        self._url = f"http://{self.host}{path}"
        self._log: IO[bytes] = log.open("wb")
        self._log_file = log
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environ = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        return subprocess.Popen(
            self._command, env=environ, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=_end_with_parent,
        )  # fmt: skip

    def wait_until_ready(self) -> None:
        until = time.monotonic() + READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.name} does not start: {self._log_file.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self._url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Lets nobody get an answer for a while, as a network that drops everything."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@dataclass
class Emulators:
    """Running servers. `environ` is what a process needs to find them."""

    pubsub: Emulator
    firestore: Emulator
    storage: Emulator
    environ: dict[str, str] = field(default_factory=dict)

    def project(self) -> str:
        """A project that nobody used before."""
        return f"waybill-{uuid.uuid4().hex[:12]}"


def start(folder: Path) -> Emulators:
    """Starts all of them side by side. Raises EmulatorsMissing."""
    jars = find_jars()
    ports = [free_port() for _ in range(3)]
    host = "--host=127.0.0.1"
    commands = {
        "pubsub": [jars.java, "-Xmx512m", "-jar", str(jars.pubsub), host, f"--port={ports[0]}"],
        "firestore": [
            jars.java, "-Xmx512m", "-Duser.language=en", "-cp", str(jars.firestore), FIRESTORE_MAIN, host,
            f"--port={ports[1]}",
        ],
        "storage": [
            sys.executable, "-c", STORAGE_MAIN, "start", "--in-memory", "--quiet", "--host=127.0.0.1",
            f"--port={ports[2]}",
        ],
    }  # fmt: skip
    paths = {"storage": "/storage/v1/b?project=p"}
    started: list[Emulator] = []
    try:
        for (name, command), port in zip(commands.items(), ports, strict=True):
            started.append(Emulator(name, folder / f"{name}.log", command, port, paths.get(name, "/")))
        for emulator in started:
            emulator.wait_until_ready()
    except BaseException:
        for emulator in started:
            emulator.stop()
        raise
    pubsub, firestore, storage = started
    environ = dict(zip(VARIABLES, (pubsub.host, firestore.host, f"http://{storage.host}"), strict=True))
    return Emulators(pubsub, firestore, storage, environ)


@pytest.fixture(scope="session")
def emulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulators]:
    """The emulators, with the variables set that lead clients to them."""
    try:
        running = start(tmp_path_factory.mktemp("emulators"))
    except EmulatorsMissing as missing:
        if REQUIRED:
            raise
        pytest.skip(f"emulators: {missing}")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running.environ.items():
            patch.setenv(name, value)
        yield running
    for emulator in (running.pubsub, running.firestore, running.storage):
        emulator.stop()
