"""What is measured of a node, for Prometheus: read when it is scraped; no label names a thread, a message or a person."""

import asyncio
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import TypeAlias, get_args

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.http.serve import DeadlineHandler
from gateway.runtime.world import SteadyClock
from gateway.services.commit import Committer
from gateway.services.receive import Receive
from gateway.services.settle import Settle
from protocols.ports.directory import DirectorySource
from protocols.ports.rows import Pile
from protocols.ports.store import ExchangeStore, LedgerStore, Unavailable
from protocols.problems import CODES
from protocols.thread import Delivery

_LOOK_S = 5.0  # a scrape waits 10 s
_BUCKETS_S = (0.005, 0.02, 0.1, 0.5, 2, 10, 40)  # the longest poll takes 30 s
_OUTCOMES = frozenset(("received", "repeated", *get_args(Delivery), *CODES))
_Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
Codes: TypeAlias = Callable[[], Mapping[str, str]]
"""What is wrong: what it is about -> problem code."""


class Metrics(Collector):
    """A node's metrics. Labels are bounded: members of the directory, templates of routes, problem codes."""

    def __init__(
        self,
        *,
        committer: Committer,
        settle: Settle,
        receive: Receive,
        store: ExchangeStore,
        ledger: LedgerStore,
        directory: DirectorySource,
        clock: SteadyClock,
        free: Callable[[], Mapping[str, int]],
        certificate_ends: datetime | None,
        wrong: Codes,
        warnings: Codes,
    ) -> None:
        self._committer, self._settle, self._receive, self._store = committer, settle, receive, store
        self._directory, self._clock, self._free = directory, clock, free
        self._certificate_ends, self._wrong, self._warnings = certificate_ends, wrong, warnings
        self._piles: list[Pile] | None = None
        self._ledger, self._witnessed = ledger, 0
        disable_created_metrics()  # type: ignore[no-untyped-call]  # else every series of a histogram has a second one
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "tracewire_request_seconds", "Answers given, by how long they took (a long poll takes its wait).",
            ("listener", "method", "route", "status"), buckets=_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        ProcessCollector(namespace="tracewire", registry=self.registry)
        self.registry.register(self)

    async def look(self) -> dict[str, str]:
        """Counts what waits in the store, and what nobody has cosigned; what keeps this node from its work, a store that is away included."""
        try:
            async with asyncio.timeout(_LOOK_S):
                self._piles = await self._store.piles(origin := self._committer.origin)
                if directory := self._directory.current:
                    quorum = directory.quorum_of(origin.rpartition("/")[0])
                    self._witnessed = await self._ledger.witnessed(origin, self._committer.size, quorum)
        except (Unavailable, TimeoutError):
            self._piles = None
        return self._all_wrong()

    def _all_wrong(self) -> dict[str, str]:
        return {**self._wrong(), **({"database": "store.busy"} if self._piles is None else {})}

    def collect(self) -> Iterator[Metric]:
        """Everything but the histogram and the process; what the store counts is as of the last `look`."""
        wrong, now = self._all_wrong(), self._clock.now()
        yield InfoMetricFamily(
            "tracewire_build", "This program.", {"version": version("tracewire"), "python": platform.python_version()}
        )
        yield _gauge("ready", "1 while nothing keeps this node from its work.", not wrong)
        checks = dict.fromkeys(wrong.items(), 1.0).items()
        yield _family(GaugeMetricFamily, "wrong_checks", "What keeps it from its work.", checks, "check", "code")
        alarms = Counter((self._member(about), code) for about, code in self._warnings().items())
        yield _family(GaugeMetricFamily, "alarms", "What is wrong with a member.", alarms.items(), "peer", "code")
        refused = [((), float(DeadlineHandler.refused))]
        name, text = "connections_refused_total", "Connections closed unread: too many of one address."
        yield _family(CounterMetricFamily, name, text, refused)
        yield _gauge("ledger_entries", "Entries of the open ledger.", self._committer.size)
        text = "Entries that are signed, and that is all: no witness has cosigned them yet."
        yield _gauge("ledger_unwitnessed_entries", text, self._committer.size - self._witnessed)
        yield _gauge("commit_queue_changes", "Changes that wait to be committed.", self._committer.waiting)
        for name, text, outcomes in (
            ("delivery_attempts_total", "Messages tried to deliver, by what became of it.", self._settle.outcomes),
            ("parcels_total", "Parcels that came, by what they were answered or refused for.", self._receive.outcomes),
        ):
            counted = [((each,), count) for each, count in outcomes.items() if each in _OUTCOMES]
            yield _family(CounterMetricFamily, name, text, counted, "outcome")
        directory, ends = self._directory.current, self._certificate_ends
        shown = directory.ref.version if directory else None
        yield _gauge("directory_version", "The directory version in force.", shown)
        left = (directory.expires - now).total_seconds() if directory else None
        yield _gauge("directory_expires_seconds", "Time until the directory expires; below 0 it has.", left)
        left = (ends - now).total_seconds() if ends else None
        yield _gauge("certificate_expires_seconds", "Time until the TLS certificate ends.", left)
        behind = self._clock.behind.total_seconds()
        yield _gauge("clock_behind_seconds", "How far this machine's clock is behind its own past.", behind)
        free = [((place,), size) for place, size in self._free().items()]
        yield _family(GaugeMetricFamily, "disk_free_bytes", "Free space where the node writes.", free, "place")
        if self._piles is not None:
            yield from self._waiting(self._piles, now)

    def _waiting(self, piles: list[Pile], now: datetime) -> Iterator[Metric]:
        counts, ages = Counter[tuple[str, ...]](), dict[tuple[str, ...], float]()
        for pile in piles:
            age = max((now - pile.since).total_seconds(), 0.0) if pile.since else 0.0
            if pile.kind == "outbox":
                key = (self._member(pile.peer),)
                counts[key] += pile.count
                ages[key] = max(ages.get(key, 0.0), age)
            elif pile.kind == "checkpoint":
                yield _gauge("checkpoint_age_seconds", "Time since our newest checkpoint.", age)
            else:
                text = {"inbox": "arrived and were not fetched", "review": "wait for a person"}[pile.kind]
                yield _gauge(f"{pile.kind}_messages", f"Messages that {text}.", pile.count)
                yield _gauge(f"{pile.kind}_oldest_seconds", f"Age of the oldest of those that {text}.", age)
        yield _family(GaugeMetricFamily, "outbox_messages", "Messages that wait for a receipt.", counts.items(), "peer")
        yield _family(GaugeMetricFamily, "outbox_oldest_seconds", "Age of the oldest of them.", ages.items(), "peer")

    def _member(self, about: str) -> str:
        """The directory's member that a warning (`member NAME`, `ledger NAME/YEAR.N`) or a recipient is about."""
        directory = self._directory.current
        name = about.removeprefix("member ")
        if name.startswith("ledger "):
            name = name.removeprefix("ledger ").rpartition("/")[0]
        return name if directory is not None and name in directory.records else "unlisted"


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return _family(GaugeMetricFamily, name, text, [] if value is None else [((), value)])


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, text: str, samples: _Samples, *labels: str
) -> Metric:
    family = kind(f"tracewire_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
