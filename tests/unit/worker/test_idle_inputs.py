"""What the passing of time closes, whatever becomes of the time of day."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from schemas.errors import FlushFailed
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.worker.clocks import monotonic_ms, now_ms
from tests.support.partitions import HOUR_MS, T0, click, order, price_change, published
from tests.support.scripted import IDLE_MS, Bench

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_quiet_partition_closes_by_the_clock_once_all_inputs_are_idle(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.now_ms = T0 + 30 * 60_000
    bench.take(ORDERS, order("0", "a", T0 + 60_000))
    bench.tick()
    bench.tick(after_ms=IDLE_MS)
    assert bench.partition.meta.windows_closed == 0, "the window is not over yet"
    bench.now_ms = T0 + HOUR_MS + 10 * 60_000 - 1
    bench.tick()
    assert bench.partition.meta.windows_closed == 0
    bench.tick(after_ms=1)
    assert bench.partition.meta.windows_closed == 1, "end of the window and the allowed lateness have passed"
    bench.tick(after_ms=2 * HOUR_MS)
    assert bench.partition.meta.windows_closed == 2, "and the silence after it is told as well"
    bench.flush()
    assert [w["units"] for w in published(bench.worker.environment.settings, "windows")] == [1.0, 0.0]


def test_an_input_without_lag_stops_holding_windows_back_after_the_idle_timeout(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0), order("1", "a", T0 + 3 * HOUR_MS))
    bench.tick()
    bench.tick(after_ms=IDLE_MS - 1)
    assert bench.partition.meta.windows_closed == 0, "clicks and price changes may still come"
    bench.take(ORDERS, order("2", "a", T0 + 3 * HOUR_MS + 1))
    bench.tick(after_ms=1)
    assert bench.partition.meta.windows_closed == 2


def test_an_input_whose_broker_does_not_answer_is_not_taken_for_silent(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0), order("1", "a", T0 + 3 * HOUR_MS))
    bench.consumer.heard[bench.tp(CLICKS)] = bench.now_ms
    for _ in range(10):
        bench.tick(after_ms=IDLE_MS)
    assert bench.partition.meta.windows_closed == 0, "what was sold meanwhile may lie with another broker by now"
    del bench.consumer.heard[bench.tp(CLICKS)]
    bench.tick()
    bench.tick(after_ms=IDLE_MS - 1)
    assert bench.partition.meta.windows_closed == 0, "listened to again, but not for long enough"
    bench.tick(after_ms=1)
    assert bench.partition.meta.windows_closed > 0


@pytest.mark.parametrize("why", ["lag", "unknown end"])
def test_an_input_that_has_something_to_read_is_waited_for_however_long(make: Callable[..., Bench], why: str) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0), order("1", "a", T0 + 3 * HOUR_MS))
    bench.consumer.ends[bench.tp(CLICKS)] = 5 if why == "lag" else None
    for _ in range(10):
        bench.tick(after_ms=IDLE_MS)
    assert bench.partition.meta.windows_closed == 0
    bench.consumer.ends[bench.tp(CLICKS)] = 0
    bench.tick()
    bench.tick(after_ms=IDLE_MS)
    assert bench.partition.meta.windows_closed > 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["unusable", "aborted transaction", "old"])
def test_an_input_that_gets_nothing_but_what_moves_no_event_time_stops_holding_windows_back(
    make: Callable[..., Bench], what: str
) -> None:
    bench = make()
    for source, value in ((ORDERS, order("0", "a", T0)), (CLICKS, click("0", "a", T0))):
        bench.take(source, value)
    bench.take(PRICES, price_change("0", "a", T0, 1.0))
    for half_minute in range(2 * 60 * 2):  # two hours
        at_ms = T0 + half_minute * 30_000
        bench.now_ms = at_ms
        bench.take(ORDERS, order(f"{half_minute + 1}", "a", at_ms))
        bench.unread(CLICKS, 1)
        bench.tick()  # it is seen before it is read
        fetched = bench.next(CLICKS, *{"unusable": [b"{"], "old": [click("0", "a", T0)]}.get(what, []))
        fetched.next = fetched.start + 1
        bench.deliver(CLICKS, fetched)
        bench.tick()
    lateness_ms = bench.worker.environment.settings.allowed_lateness_ms
    assert bench.partition.watermark.value_ms == at_ms - lateness_ms


HOURS = pytest.mark.parametrize("by_ms", [-5 * HOUR_MS, -HOUR_MS, HOUR_MS, 5 * HOUR_MS])


@HOURS
def test_a_flush_is_due_after_its_interval_whatever_becomes_of_the_time_of_day(
    make: Callable[..., Bench], by_ms: int
) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0))
    bench.tick()
    sequence = bench.partition.meta.sequence
    bench.take(ORDERS, order("1", "a", T0))
    bench.set_clock(by_ms)
    bench.tick(after_ms=999)
    assert bench.partition.meta.sequence == sequence
    bench.tick(after_ms=1)
    assert bench.partition.meta.sequence == sequence + 1


@HOURS
def test_the_idle_timeout_lasts_as_long_as_it_does_whatever_becomes_of_the_time_of_day(
    make: Callable[..., Bench], by_ms: int
) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0), order("1", "a", T0 + 3 * HOUR_MS))
    bench.tick()
    bench.set_clock(by_ms)
    bench.take(ORDERS, order("2", "a", T0 + 3 * HOUR_MS + 1))
    bench.tick(after_ms=IDLE_MS - 1)
    assert bench.partition.meta.windows_closed == 0, "clicks and price changes may still come"
    bench.take(ORDERS, order("3", "a", T0 + 3 * HOUR_MS + 2))
    bench.tick(after_ms=1)
    assert bench.partition.meta.windows_closed == 2


@HOURS
def test_an_input_with_lag_is_stuck_after_its_time_whatever_becomes_of_the_time_of_day(
    make: Callable[..., Bench], by_ms: int
) -> None:
    bench = make()
    bench.unread(CLICKS, 5)
    bench.tick()
    bench.set_clock(by_ms)
    bench.tick(after_ms=bench.worker.environment.settings.stalled_after_ms)
    assert bench.worker.live()[0]
    bench.tick(after_ms=1_000)
    assert not bench.worker.live()[0]


@HOURS
def test_a_partition_that_was_given_up_is_opened_when_its_time_has_come_whatever_the_time_of_day(
    make: Callable[..., Bench], by_ms: int
) -> None:
    bench = make()
    bench.worker.reopener.close(bench.partition, FlushFailed("no answer"))
    bench.set_clock(by_ms)
    bench.tick(after_ms=499)
    assert 0 not in bench.worker.partitions
    bench.tick(after_ms=1)
    assert 0 in bench.worker.partitions


def test_what_lasts_is_measured_by_a_clock_that_nobody_sets() -> None:
    before = time.monotonic()
    assert before <= monotonic_ms() / 1000 + 0.001 <= time.monotonic() + 0.002


def test_the_clock_is_the_time_of_day() -> None:
    assert now_ms() > T0
