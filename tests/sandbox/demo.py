"""`make demo`: every integration end to end against the sandbox, with faults on and one run killed in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import requests

from tests.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".demo"
CUSTOMERS = 300
FAULTS = "429=2%,retry_after=0,503=1%,milvus.drop=2%,short_pages=10%"
# The shipped limits (one call a second to Milvus) would make this a coffee break.
OVERLAY = """\
ploomes_to_milvus:
  source: {rate_limit: 100/s, retry: {attempts: 5, wait: 100ms}}
  sink: {rate_limit: 200/s, redeliver_after: 200ms, retry: {attempts: 3, wait: 100ms}}
  streams: {customers: {hold_back: 0s}}
"""


def say(text: str) -> None:
    print(f"\n# {text}", flush=True)


def waybill(environment: dict[str, str], *arguments: str, may_fail: bool = False) -> None:
    """Runs a command as a person would, and shows it."""
    print(f"$ ./waybill {' '.join(arguments)}", flush=True)
    done = subprocess.run([ROOT / "waybill", *arguments], env=environment, check=False)
    if done.returncode not in ((0, 3) if may_fail else (0,)):
        sys.exit(f"the demo stopped: exit code {done.returncode}")


def killed_run(environment: dict[str, str], sandbox: Sandbox) -> None:
    """Starts a run and kills it with SIGKILL once a third of the customers have arrived."""
    print("$ ./waybill run ploomes_to_milvus   # and kill -9 in the middle", flush=True)
    run = subprocess.Popen([ROOT / "waybill", "run", "ploomes_to_milvus"], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while run.poll() is None and time.monotonic() < deadline:
        with sandbox.milvus.lock:
            arrived = len(sandbox.milvus.clients)
        if arrived >= CUSTOMERS // 3:
            run.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    run.wait()
    with sandbox.milvus.lock:
        print(f"killed with {len(sandbox.milvus.clients)} customers at the target", flush=True)


def doubles(sandbox: Sandbox) -> tuple[int, int]:
    stats = requests.get(f"{sandbox.urls['milvus']}/_sandbox/stats", timeout=10).json()
    return stats["clients"], len(stats["repeated_documents"])


def main() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    overlay = HOME / "overlay.yaml"
    overlay.write_text(OVERLAY)
    with Sandbox(
        seed=7, customers=CUSTOMERS, faults=FAULTS, invalid=4, duplicates=3, ploomes_per_minute=None
    ) as sandbox:
        environment = {
            **os.environ,
            **sandbox.environment,
            "WAYBILL_HOME": str(HOME / "state"),
            "WAYBILL_OVERLAY": str(overlay),
            "WAYBILL_BACKEND": "embedded",
        }
        say(f"{CUSTOMERS} customers in a fake Ploomes; both ends refuse, stall and drop connections after the write")
        waybill(environment, "list")
        killed_run(environment, sandbox)
        say("the next run finishes the killed one under its own name, then reads what is new")
        waybill(environment, "run", "ploomes_to_milvus", may_fail=True)
        requests.post(f"{sandbox.urls['ploomes']}/_sandbox/edit", json={"count": 12, "seed": 1}, timeout=10)
        say("12 customers are edited in Ploomes: 12 travel, whatever is read again is known")
        waybill(environment, "run", "ploomes_to_milvus", may_fail=True)
        say("what could not travel, and why")
        waybill(environment, "failures", "ploomes_to_milvus")
        say("the proof: the present outcome of every record version ever fetched")
        waybill(environment, "audit", "ploomes_to_milvus")
        clients, repeated = doubles(sandbox)
        print(f"Milvus holds {clients} clients, {repeated} of them twice")
        if repeated:
            sys.exit("the demo failed: a customer is there twice")
    say("look around: the state of this demo stays in .demo/state")
    print("export WAYBILL_HOME=.demo/state")
    print("./waybill status")
    print("./waybill runs ploomes_to_milvus")
    print("./waybill trace ploomes_to_milvus --stream customers --key <a key from failures>")
    print("and with CRMs to try on: ./waybill sandbox --customers 500 --faults 429=2%,drop=1%")


if __name__ == "__main__":
    main()
