"""What probes ask of a worker, while the event loop and the recoveries change it."""

from __future__ import annotations

import sys
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from faust.types import TP

from streams.kafka.embedded import EmbeddedBroker
from streams.observe.metrics import Health, HttpServer
from streams.observe.shared_dict import SharedDict
from streams.worker.environment import Environment
from streams.worker.reopening import Reopening
from streams.worker.worker import Worker
from tests.support.partitions import NOW_MS, settings_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from streams.settings import Settings

ROUNDS = 3_000
KEYS = 40


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with EmbeddedBroker() as broker:
        yield settings_for(broker.bootstrap, tmp_path)


def hammer(look: Callable[[], object], *changes: Callable[[int], object]) -> None:
    """Let threads change what others look at, thousands of times; raises what any of them met."""
    met: list[BaseException] = []
    over = threading.Event()

    def run(work: Callable[[int], object]) -> None:
        try:
            for turn in range(ROUNDS):
                work(turn)
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the thread of the test
            met.append(error)

    def watch() -> None:
        try:
            while not over.is_set():
                look()
        except BaseException as error:  # noqa: BLE001 - likewise
            met.append(error)

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    workers = [threading.Thread(target=run, args=(work,)) for work in changes]
    for thread in (*watchers, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    for thread in watchers:
        thread.join()
    if met:
        raise met[0]


class Slow(str):
    """A key or value whose text takes Python's own code to make, so that another thread gets its turn meanwhile."""

    __slots__ = ()

    def __str__(self) -> str:
        return "".join(sorted(self[:5]))


def grow_and_shrink(held: Any, key: Callable[[int], Any], value: Any) -> Callable[[int], None]:  # noqa: ANN401
    def change(turn: int) -> None:
        at = key(turn % KEYS)
        if turn // KEYS % 2:
            held.pop(at, None)
        else:
            held[at] = value

    return change


def test_whoever_goes_through_it_sees_one_moment() -> None:
    shared = SharedDict[int, Slow]()
    changes = [grow_and_shrink(shared, lambda n, first=first: (first, n), Slow("value")) for first in range(3)]
    hammer(lambda: [str(value) for value in shared.values()], *changes)
    hammer(lambda: [(key, str(value)) for key, value in shared.items()], *changes)
    hammer(lambda: [str(shared.get(key)) for key in shared], *changes)


def test_probes_ask_a_worker_while_everything_about_it_changes(settings: Settings) -> None:
    worker = Worker(Environment(settings, None, KEYS, tp=TP, clock=lambda: NOW_MS))
    worker.assignment.is_restored = True

    def begin_and_end_a_restore(turn: int) -> None:
        worker.assignment.restoring = "restoring" if turn % 3 else ""

    hammer(
        lambda: (worker.ready(), worker.live()),
        begin_and_end_a_restore,
        *(
            grow_and_shrink(worker.opener.progress, lambda n, first=first: first * KEYS + n, Slow("n of m"))
            for first in range(2)
        ),
        grow_and_shrink(worker.reopener.waiting, lambda n: n, Reopening(NOW_MS, NOW_MS, 0)),
        grow_and_shrink(worker.partitions, lambda n: n, None),
    )


@pytest.mark.slow
def test_every_scrape_and_probe_over_http_is_answered_meanwhile(settings: Settings) -> None:
    worker = Worker(Environment(settings, None, KEYS, tp=TP, clock=lambda: NOW_MS))
    worker.assignment.is_restored = True
    health = Health(live=worker.live, ready=worker.ready)
    server = HttpServer(host="127.0.0.1", port=0, metrics=worker.environment.metrics, health=health).start()

    codes: set[int] = set()

    def ask(turn: int) -> None:
        if turn % 100 == 0:
            for path in ("/readyz", "/livez", "/metrics"):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=30).close()
                except urllib.error.HTTPError as error:  # 503, as long as there is something to reopen
                    error.close()
                    codes.add(error.code)

    def count(turn: int) -> None:
        worker.environment.metrics.lag.labels("orders", str(turn % KEYS)).set(turn)
        if turn % 7 == 0:
            worker.environment.metrics.forget(turn % KEYS)

    hammer(
        lambda: None, ask, count, grow_and_shrink(worker.reopener.waiting, lambda n: n, Reopening(NOW_MS, NOW_MS, 0))
    )
    server.stop()
    assert codes <= {503}
