"""Inputs that run ahead of each other are held, never for ever; and what the worker says of itself to the probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support.partitions import DAY_MS, HOUR_MS, T0, click, order, price_change, settings_for
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STALLED_MS = 300_000


@pytest.fixture
def bench(broker: str, tmp_path: Path) -> Iterator[Bench]:
    settings = settings_for(
        broker, tmp_path, window_ms=DAY_MS, alignment_ms=2 * DAY_MS, stalled_after_ms=STALLED_MS, idle_timeout_ms=60_000
    )
    made = Bench(settings)
    made.now_ms = T0 + 30 * DAY_MS
    yield made
    for number in list(made.worker.partitions):
        made.worker.opened.close(number)


def day(number: float) -> int:
    return T0 + int(number * DAY_MS)


def begin(bench: Bench) -> None:
    """All three inputs have spoken of day 0, and hold more."""
    bench.take(ORDERS, order("0", "a", day(0)), unread=100)
    bench.take(CLICKS, click("0", "a", day(0)), unread=100)
    bench.take(PRICES, price_change("0", "a", day(0), 1.0), unread=100)


def gauge(bench: Bench, source: int) -> float | None:
    labels = {"topic": bench.worker.environment.topics[source], "partition": "0"}
    return bench.worker.environment.metrics.registry.get_sample_value("skutrend_paused", labels)


def test_an_input_far_ahead_is_paused_and_resumed_when_the_others_have_caught_up(bench: Bench) -> None:
    begin(bench)
    bench.take(ORDERS, order("1", "a", day(2)), unread=100)
    bench.tick()
    assert bench.consumer.paused == set(), "two days ahead are allowed"
    bench.take(ORDERS, order("2", "a", day(2) + 1), unread=100)
    bench.tick()
    assert bench.consumer.paused == {bench.tp(ORDERS)}
    assert (gauge(bench, ORDERS), gauge(bench, CLICKS)) == (1.0, 0.0)
    bench.take(CLICKS, click("1", "a", day(1) + 2), unread=100)
    bench.tick()
    assert bench.consumer.paused == {bench.tp(ORDERS)}, "price changes are still behind"
    bench.take(PRICES, price_change("1", "a", day(0.5), 1.0), unread=100)
    bench.tick()
    assert bench.consumer.paused == {bench.tp(ORDERS)}, "within two days again, but it would soon be held anew"
    bench.take(PRICES, price_change("2", "a", day(1) + 1, 1.0), unread=100)
    bench.tick()
    assert bench.consumer.paused == set(), "the lead has halved"
    assert gauge(bench, ORDERS) == 0.0


def test_an_input_is_not_held_for_others_that_have_nothing_to_read(bench: Bench) -> None:
    begin(bench)
    bench.take(ORDERS, order("1", "a", day(9)), unread=100)
    bench.unread(CLICKS, 0)
    bench.unread(PRICES, 0)
    for _ in range(3):
        bench.tick(after_ms=1_000)
    assert bench.consumer.paused == set()


def test_a_held_input_is_let_go_when_the_others_run_dry_without_catching_up(bench: Bench) -> None:
    begin(bench)
    bench.take(ORDERS, order("1", "a", day(9)), unread=100)
    bench.tick()
    assert bench.consumer.paused == {bench.tp(ORDERS)}
    bench.unread(CLICKS, 0)
    bench.tick(after_ms=1_000)
    assert bench.consumer.paused == {bench.tp(ORDERS)}, "price changes still have something"
    bench.unread(PRICES, 0)
    bench.tick(after_ms=1_000)
    assert bench.consumer.paused == set()


def test_a_held_input_is_not_taken_for_idle_however_long_it_is_held(bench: Bench) -> None:
    begin(bench)
    bench.take(ORDERS, order("1", "a", day(9)), unread=0)
    bench.tick()
    assert bench.consumer.paused == {bench.tp(ORDERS)}
    for _ in range(5):
        bench.tick(after_ms=60_000)
        assert bench.partition.watermark.clocks[ORDERS].quiet_since_ms is None
    assert bench.partition.meta.windows_closed == 0
    assert bench.consumer.paused == {bench.tp(ORDERS)}


def test_two_inputs_ahead_are_both_held_and_the_slowest_never_is(bench: Bench) -> None:
    begin(bench)
    bench.take(ORDERS, order("1", "a", day(9)), unread=100)
    bench.take(CLICKS, click("1", "a", day(8)), unread=100)
    bench.tick()
    assert bench.consumer.paused == {bench.tp(ORDERS), bench.tp(CLICKS)}


def test_a_rebalance_forgets_pauses_as_the_transport_does(bench: Bench) -> None:
    begin(bench)
    bench.take(ORDERS, order("1", "a", day(9)), unread=100)
    bench.tick()
    bench.consumer.paused.clear()  # as the transport does
    bench.assign([0])
    assert bench.worker.inputs.paused == set()
    bench.tick()
    assert bench.consumer.paused == {bench.tp(ORDERS)}, "and finds out anew"


def test_an_input_that_has_never_spoken_holds_nobody(bench: Bench) -> None:
    bench.take(ORDERS, order("0", "a", day(0)), unread=100)
    bench.unread(CLICKS, 5)
    bench.take(ORDERS, order("1", "a", day(9)), unread=100)
    bench.tick()
    assert bench.consumer.paused == set()


# ---------------------------------------------------------------------- probes
def test_a_worker_is_ready_once_it_owns_partitions(bench: Bench) -> None:
    assert bench.worker.ready() == (True, "partitions [0]")
    bench.assign([])
    assert bench.worker.ready() == (False, "no partitions assigned yet")


def test_lag_without_progress_is_stuck_and_progress_or_no_lag_is_alive(bench: Bench) -> None:
    bench.take(ORDERS, order("0", "a", day(0)), unread=10)
    bench.tick()
    bench.tick(after_ms=STALLED_MS)
    assert bench.worker.live() == (True, "live")
    bench.tick(after_ms=1)
    topic = bench.worker.environment.topics[ORDERS]
    assert bench.worker.live() == (False, f"{topic}[0] stands at offset 1 since 300 s")
    bench.take(ORDERS, order("1", "a", day(0)), unread=9)
    bench.tick()
    assert bench.worker.live()[0], "it moves again"
    bench.tick(after_ms=STALLED_MS + 1)
    assert not bench.worker.live()[0]
    bench.unread(ORDERS, 0)
    bench.tick(after_ms=1)
    assert bench.worker.live()[0], "nothing to read is idle, not stuck"


def test_a_loop_that_no_longer_ticks_is_stuck_too(bench: Bench) -> None:
    bench.take(ORDERS, order("0", "a", day(0)), unread=10)
    bench.tick()
    bench.now_ms += STALLED_MS + 1
    assert not bench.worker.live()[0]


def test_an_input_that_is_held_back_is_not_stuck(bench: Bench) -> None:
    begin(bench)
    bench.take(ORDERS, order("1", "a", day(9)), unread=100)
    bench.tick()
    for hour in range(1, 4):
        bench.take(CLICKS, click(f"{hour}", "a", day(0) + hour * HOUR_MS), unread=100)
        bench.take(PRICES, price_change(f"{hour}", "a", day(0) + hour * HOUR_MS, 1.0), unread=100)
        bench.tick(after_ms=STALLED_MS - 1)
    assert bench.consumer.paused == {bench.tp(ORDERS)}
    assert bench.worker.live() == (True, "live")


def test_lag_is_reported_per_input(bench: Bench) -> None:
    bench.take(ORDERS, order("0", "a", day(0)), unread=10)
    bench.consumer.ends[bench.tp(CLICKS)] = None
    bench.tick()
    registry = bench.worker.environment.metrics.registry
    told = [
        registry.get_sample_value("skutrend_lag", {"topic": topic, "partition": "0"})
        for topic in bench.worker.environment.topics
    ]
    assert told == [10.0, 0.0, 0.0]
