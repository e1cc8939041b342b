"""All fake systems together."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from threading import Event
from types import TracebackType
from typing import Self

from tests.sandbox.bigquery import BigQuery
from tests.sandbox.cm360 import PER_DAY as CM360_PER_DAY
from tests.sandbox.cm360 import Cm360
from tests.sandbox.data_manager import PER_DAY as DATA_MANAGER_PER_DAY
from tests.sandbox.data_manager import PER_MINUTE as DATA_MANAGER_PER_MINUTE
from tests.sandbox.data_manager import DataManager
from tests.sandbox.faults import parse
from tests.sandbox.ga4 import Ga4
from tests.sandbox.google_ads import GoogleAds
from tests.sandbox.milvus import Milvus
from tests.sandbox.okki import Okki
from tests.sandbox.ploomes import PER_MINUTE, Ploomes
from tests.sandbox.qeasy import PER_MINUTE as QEASY_PER_MINUTE
from tests.sandbox.qeasy import Qeasy
from tests.sandbox.server import Server
from tests.sandbox.system import Setup, System, steady_clock


class Sandbox:
    """The fake systems, built at once and served between `start` and `stop` (or in a `with` block).

    `environment` holds the variables that point Waybill at them. To add a system, write its file and add it
    to `systems` here; it says its name and its variables itself.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        customers: int = 100,
        faults: str = "",
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], object] | None = None,
        ploomes_per_minute: int | None = PER_MINUTE,
        milvus_per_minute: int | None = None,
        qeasy_per_minute: int | None = QEASY_PER_MINUTE,
        data_manager_per_minute: int | None = DATA_MANAGER_PER_MINUTE,
        data_manager_per_day: int | None = DATA_MANAGER_PER_DAY,
        google_ads_per_day: int | None = None,
        cm360_per_minute: int | None = 60,
        cm360_per_day: int | None = CM360_PER_DAY,
        invalid: int = 0,
        duplicates: int = 0,
        undocumented: int = 0,
        tasks: int = 0,
        interactions: int = 0,
        clients: int = 0,
        users: int = 0,
        departments: int = 0,
        same_nicknames: int = 0,
        conversions: int = 0,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        self._stopping = Event()
        setup = Setup(
            seed=seed,
            customers=customers,
            invalid=invalid,
            duplicates=duplicates,
            undocumented=undocumented,
            tasks=tasks,
            interactions=interactions,
            clients=clients,
            users=users,
            departments=departments,
            same_nicknames=same_nicknames,
            conversions=conversions,
            limits={"ploomes": ploomes_per_minute, "milvus": milvus_per_minute, "qeasy": qeasy_per_minute},
            quotas={
                "data_manager": {"per_minute": data_manager_per_minute, "per_day": data_manager_per_day},
                "google_ads": {"per_day": google_ads_per_day},
                "cm360": {"per_minute": cm360_per_minute, "per_day": cm360_per_day},
            },
            clock=clock or steady_clock(),
            # A slow answer must not hold up the end.
            sleep=sleep or self._stopping.wait,
        )
        self.ploomes = Ploomes(setup)
        self.milvus = Milvus(setup)
        self.okki = Okki(setup)
        self.qeasy = Qeasy(setup)
        self.ga4 = Ga4(setup)
        self.data_manager = DataManager(setup)
        self.google_ads = GoogleAds(setup)
        self.cm360 = Cm360(setup)
        self.bigquery = BigQuery(setup)
        together: tuple[System, ...] = (
            self.ploomes, self.milvus, self.okki, self.qeasy, self.ga4, self.data_manager, self.google_ads, self.cm360,
            self.bigquery,
        )  # fmt: skip
        self.systems: dict[str, System] = {system.name: system for system in together}
        for name, switches in parse(faults, self.systems).items():
            self.systems[name].set_faults(switches)
        self.environment: dict[str, str] = {}
        self.urls: dict[str, str] = {}
        self._ports = ports or {}
        self._servers = ExitStack()

    def start(self) -> None:
        """Serves every system, each on the port asked for or a free one."""
        for name, system in self.systems.items():
            server = self._servers.enter_context(Server(system, self._ports.get(name, 0)))
            self.urls[name] = server.url
            self.environment |= system.environment(server.url)

    def stop(self) -> None:
        """Closes every connection; the state of the systems stays readable."""
        self._stopping.set()
        self._servers.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
