"""`make demo`: every integration end to end against the sandbox, with faults on and one run killed in the middle."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from tests.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".demo"
CUSTOMERS = 300
FAULTS = "429=2%,retry_after=0,503=1%,milvus.drop=2%,short_pages=10%"
# The shipped limits (one call a second to Milvus) would make this a coffee break.
QUICK = {
    "source": {"rate_limit": "100/s", "retry": {"attempts": 5, "wait": "100ms"}},
    "sink": {"rate_limit": "200/s", "redeliver_after": "200ms", "retry": {"attempts": 3, "wait": "100ms"}},
}
# Which tags make a ticket differs from account to account; `max_age: none` lets what is there already travel.
TICKETS = {"enabled": True, "hold_back": "0s", "max_age": "none"}
OVERLAY = {
    "ploomes_to_milvus": QUICK
    | {
        "streams": {
            "customers": {"hold_back": "0s"},
            "tasks": TICKETS | {"tags": {40012345: "INSTALAÇÃO", 40012346: "ENTREGA"}},
            "interactions": TICKETS | {"tags": {40036345: "INSTALAÇÃO", 40036346: "ENTREGA"}},
        }
    },
    "milvus_to_ploomes": QUICK,
    "okki_to_qeasy": QUICK,
    "tagless_crm": {
        "sink": QUICK["sink"],
        "monitoring": {"enabled": True},
        "streams": {
            "ga4": {
                "enabled": True,
                "from": {"system": "files", "path": str(HOME / "exports" / "purchases.csv")},
                "key": ["params.transaction_id"],
            },
            "data_manager_events": {
                "enabled": True,
                "from": {"system": "files", "path": str(HOME / "exports" / "conversions-*.csv")},
                "key": ["transaction_id"],
                "settings": {
                    "destinations": [
                        {
                            "operating_account": {"account_type": "GOOGLE_ADS", "account_id": "1234567890"},
                            "product_destination_id": "77",
                        }
                    ]
                },
            },
        },
    },
}
THERE, BACK, STAFF, ADS = OVERLAY
SYNCS = "data_syncs"


class Demo:
    """The sandbox, and Waybill driven as a person would."""

    def __init__(self, sandbox: Sandbox) -> None:
        HOME.mkdir()
        export_files(HOME / "exports")
        (HOME / "overlay.yaml").write_text(json.dumps(OVERLAY, ensure_ascii=False))
        self.sandbox = sandbox
        self.environment = {
            **os.environ,
            **sandbox.environment,
            "WAYBILL_HOME": str(HOME / "state"),
            "WAYBILL_OVERLAY": str(HOME / "overlay.yaml"),
            "WAYBILL_BACKEND": "embedded",
        }

    def say(self, text: str) -> None:
        print(f"\n# {text}", flush=True)

    def waybill(self, *arguments: str, may_fail: bool = False) -> None:
        """Runs a command and shows it; exit code 3 (settled, with failures) is expected where it may fail."""
        print(f"$ ./waybill {' '.join(arguments)}", flush=True)
        done = subprocess.run([ROOT / "waybill", *arguments], env=self.environment, check=False)
        if done.returncode not in ((0, 3) if may_fail else (0,)):
            sys.exit(f"the demo stopped: exit code {done.returncode}")

    def control(self, system: str, action: str, **body: Any) -> Any:
        """Somebody works in a system itself; or, without a body, looks at it."""
        url = f"{self.sandbox.urls[system]}/_sandbox/{action}"
        answer = requests.post(url, json=body, timeout=10) if body else requests.get(url, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def largest_department(self) -> int:
        with self.sandbox.okki.lock:
            members = Counter(int(user["department_id"]) for user in self.sandbox.okki.rows())
        return members.most_common(1)[0][0]

    def killed_run(self) -> None:
        """Starts a run and kills it with SIGKILL once a third of the customers have arrived."""
        print(f"$ ./waybill run {THERE} --stream customers   # and kill -9 in the middle", flush=True)
        command = [ROOT / "waybill", "run", THERE, "--stream", "customers"]
        run = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while run.poll() is None and time.monotonic() < deadline:
            if self.control("milvus", "stats")["creates"] >= CUSTOMERS // 3:
                run.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        run.wait()
        print(f"killed with {self.control('milvus', 'stats')['creates']} customers at the target", flush=True)

    @contextmanager
    def served(self) -> Iterator[str]:
        """`waybill serve` on a free port; gives the address of its data-sync API."""
        print("$ ./waybill serve --port 0 &", flush=True)
        log = HOME / "serve.log"
        with open(log, "wb") as output:
            server = subprocess.Popen(
                [ROOT / "waybill", "serve", "--port", "0"], env=self.environment, stdout=output, stderr=output
            )
        try:
            deadline = time.monotonic() + 60
            while (found := re.search(r"^listening on (\S+)$", log.read_text(), re.MULTILINE)) is None:
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the demo stopped: {log.read_text()}")
                time.sleep(0.05)
            yield f"{found[1]}/api/data-sync"
        finally:
            server.terminate()
            server.wait()

    def send(self, url: str) -> None:
        """Uploads a file and waits until its launch is over."""
        made = subprocess.run(
            [ROOT / "waybill", "token", "create", "customers_import", "--json"],
            env=self.environment,
            check=True,
            capture_output=True,
        )
        login = ("api", json.loads(made.stdout)["token"])
        print(f"$ curl -u api:$TOKEN -F file=@customers.csv {url}/import/customers_import", flush=True)
        with open(HOME / "exports" / "customers.csv", "rb") as file:
            answer = requests.post(f"{url}/import/customers_import", files={"file": file}, auth=login, timeout=60)
        print(answer.text, flush=True)
        answer.raise_for_status()
        deadline = time.monotonic() + 60
        while (launch := requests.get(f"{url}/customers_import", auth=login, timeout=60).json()["latest-launch"])[
            "status"
        ] != "finished":
            if time.monotonic() > deadline:
                sys.exit(f"the demo stopped: {launch}")
            time.sleep(0.1)
        print(f"$ curl -u api:$TOKEN {url}/customers_import\n{json.dumps(launch, indent=2)}", flush=True)

    def compare(self, url: str) -> None:
        """Downloads the export, and compares it with the file that was sent."""
        print(f"$ curl -o export.csv {url}/export/customers_export", flush=True)
        answer = requests.get(f"{url}/export/customers_export", timeout=60)
        answer.raise_for_status()
        with open(HOME / "exports" / "customers.csv", newline="") as file:
            sent = [row for row in csv.reader(file) if row[0]]
        exported = list(csv.reader(answer.content.decode().splitlines()))
        print(f"{len(exported) - 1} customers came back", flush=True)
        if sorted(exported) != sorted(sent):
            sys.exit("the demo failed: what came back is not what was sent")


def export_files(folder: Path) -> None:
    """What a shop sold in the last hours, as its CRM exports it: for GA4, and with people and clicks for the ads."""
    folder.mkdir()
    now = datetime.now(UTC)
    sold = [((now - timedelta(minutes=n)).isoformat(timespec="seconds"), n) for n in range(500)]
    with open(folder / "purchases.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["name", "client_id", "timestamp_micros", "params.transaction_id", "params.value", "params.currency"]
        )
        table.writerows(["purchase", f"{n % 40}.17", at, f"T{n}", f"{n % 90}.90", "BRL"] for at, n in sold)
    with open(folder / "customers.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "name", "email"])
        table.writerows([n if n % 400 else "", f"Ana {n}", f"ana{n}@example.com"] for n in range(1_000))
    for part in range(2):
        with open(folder / f"conversions-{part}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(
                ["transaction_id", "event_timestamp", "ad_identifiers.gclid", "email_address", "conversion_value"]
            )
            table.writerows([f"T{n}", at, f"click{n}", f"p{n}@example.com", f"{n % 90}.90"] for at, n in sold[part::2])


def main() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    with Sandbox(
        seed=7,
        customers=CUSTOMERS,
        faults=FAULTS,
        invalid=4,
        duplicates=3,
        tasks=150,
        interactions=150,
        clients=60,
        users=400,
        departments=40,
        ploomes_per_minute=None,
        qeasy_per_minute=None,
    ) as sandbox:
        demo = Demo(sandbox)
        say, waybill = demo.say, demo.waybill
        say(f"{CUSTOMERS} customers in a fake Ploomes; both ends refuse, stall and drop connections after the write")
        waybill("list")
        demo.killed_run()
        say("the next run finishes the killed one under its own name; then tasks and interactions become tickets")
        waybill("run", THERE, may_fail=True)
        say("clients of Milvus go back; what came from Ploomes is there already and is not sent again")
        waybill("run", BACK, may_fail=True)
        demo.control("ploomes", "edit", count=12, seed=1)
        demo.control("milvus", "edit", count=5, seed=2)
        say(
            "12 customers are edited in Ploomes, 5 in Milvus: each edit is written once; what comes back from the other"
        )
        print("# side is found to be there already, and counts as delivered without a write")
        waybill("run", THERE, may_fail=True)
        waybill("run", BACK, may_fail=True)
        say("400 users of a fake OKKI go to a fake Qeasy with their departments; then one department gets another name")
        waybill("run", STAFF, may_fail=True)
        demo.control("okki", "edit", kind="departments", ids=[demo.largest_department()], fields={"name": "海外事业部"})
        waybill("run", STAFF, may_fail=True)
        say("what a shop sold, from CSV files to a fake GA4 and a fake Data Manager, which refuses four of the records")
        demo.control("data_manager", "refuse", values=["T7", "T77", "T177", "T277"], code="INVALID_CONVERSION_VALUE")
        waybill("run", ADS, may_fail=True)
        say("the cause is mended there: the replay sends those four, and the next run nothing at all")
        demo.control("data_manager", "mend", values=["T7", "T77", "T177", "T277"])
        waybill("replay", ADS, "--outcome", "rejected", "--reason", "mended at the destination", "--yes")
        waybill("run", ADS)
        say(
            "a file of 1,000 customers over the data-sync API, served on this machine; three of its rows cannot be used"
        )
        with demo.served() as url:
            demo.send(url)
            waybill("run", SYNCS, "--stream", "customers_export")
            demo.compare(url)
        say("what could not travel, and why")
        waybill("failures", THERE)
        say("the proof: the present outcome of every record version ever fetched")
        waybill("audit", THERE)
        waybill("audit", BACK)
        waybill("audit", STAFF)
        waybill("audit", ADS)
        waybill("audit", SYNCS)
        milvus = demo.control("milvus", "stats")
        twice = len(milvus["repeated_documents"]) + len(milvus["repeated_subjects"])
        print(f"Milvus holds {milvus['clients']} clients and {milvus['tickets']} tickets, {twice} of them twice")
        twice += len(demo.control("data_manager", "stats")["repeated"]) + len(demo.control("ga4", "stats")["repeated"])
        if twice:
            sys.exit("the demo failed: something is there twice")
    say("look around: the state of this demo stays in .demo/state")
    print("export WAYBILL_HOME=.demo/state WAYBILL_OVERLAY=.demo/overlay.yaml")
    print("./waybill status")
    print(f"./waybill runs {THERE}")
    print(f"./waybill trace {THERE} --stream customers --key <a key from failures>")
    print("and with CRMs to try on: ./waybill sandbox --customers 500 --faults 429=2%,drop=1%")


if __name__ == "__main__":
    main()
