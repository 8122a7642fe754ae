"""A worker with a consumer that does what the test says; everything else is real."""

from __future__ import annotations

import asyncio
import math
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from faust.types import TP

from schemas.errors import BrokerTrouble, FlushFailed, Refused, StateMismatch, Unavailable, WrongPartitioner
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.kafka.murmur2 import partitions_of
from streams.kafka.output_producer import OutputProducer
from streams.state.store import Store
from streams.worker.clocks import monotonic_ms, now_ms
from streams.worker.environment import Environment, input_partitions
from streams.worker.opening import Opener
from streams.worker.worker import Worker
from tests.support.partitions import DAY_MS, HOUR_MS, T0, batch, click, order, price_change, published, settings_for
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.partition.partition import Partition
    from streams.settings import Settings

IDLE_MS = 60_000


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    return settings_for(broker, tmp_path, idle_timeout_ms=IDLE_MS, flush_interval_ms=1_000)


@pytest.fixture
def make(settings: Settings) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def bench(*, partitions: int = 1, **changes: Any) -> Bench:  # noqa: ANN401 - settings
        benches.append(Bench(msgspec.structs.replace(settings, **changes), partitions=partitions))
        return benches[-1]

    yield bench
    for each in benches:
        for number in list(each.worker.partitions):
            each.worker.opened.close(number)


# ---------------------------------------------------------------------- batches
def test_a_batch_that_is_next_is_folded_and_one_that_is_not_is_asked_for_anew(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0), order("1", "a", T0))
    topic = bench.worker.environment.topics[ORDERS]
    bench.deliver(ORDERS, batch(topic, [order("3", "a", T0)], start=3))  # 2 is missing
    bench.deliver(ORDERS, batch(topic, [order("1", "a", T0)], start=1))  # comes twice
    assert bench.consumer.sought == [{TP(topic, 0): 2}, {TP(topic, 0): 2}]
    assert bench.folded()["orders"] == 2
    bench.take(ORDERS, order("2", "a", T0))
    assert bench.folded()["orders"] == 3
    assert len(bench.consumer.sought) == 2


def test_a_stale_batch_is_ignored_whatever_it_holds(make: Callable[..., Bench]) -> None:
    bench = make()
    for start in (0, 5):
        fetched = batch(bench.worker.environment.topics[ORDERS], [order("0", "a", T0)], start=start)
        bench.consumer.stale.append(fetched)
        bench.deliver(ORDERS, fetched)
    assert bench.folded()["orders"] == 0
    assert bench.consumer.sought == []


@pytest.mark.parametrize("what", ["batch", "close"])
def test_while_brokers_take_nothing_the_event_loop_goes_on(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A full queue held everything up for 15 s a partition, SIGTERM too."""
    bench = make()
    bench.take(ORDERS, order("0", "a", T0))
    if what == "close":
        bench.take(CLICKS, click("0", "a", T0 + 2 * DAY_MS))
        bench.take(PRICES, price_change("0", "a", T0 + 2 * DAY_MS, 1.0))
    answers = [False] * 3
    monkeypatch.setattr(bench.partition, "has_room", lambda: not answers or answers.pop())
    fetched = bench.next(ORDERS, order("1", "a", T0 + 2 * DAY_MS))
    windows = bench.partition.meta.windows_closed

    async def both() -> int:
        turns = 0
        taking = asyncio.ensure_future(bench.worker.take(ORDERS, fetched, bench.consumer))
        while not taking.done():
            assert not answers or bench.partition.meta.windows_closed == windows
            await asyncio.sleep(0.01)
            turns += 1
        await taking
        return turns

    assert asyncio.run(both()) >= 5
    assert bench.folded()["orders"] == 2


def test_a_batch_of_a_partition_that_is_not_ours_is_ignored(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.deliver(ORDERS, batch(bench.worker.environment.topics[ORDERS], [order("0", "a", T0)], partition=7))
    assert bench.folded()["orders"] == 0
    assert bench.consumer.sought == []


def test_the_first_batch_of_an_input_may_begin_where_retention_has_left_off(make: Callable[..., Bench]) -> None:
    bench = make()
    topic = bench.worker.environment.topics[ORDERS]
    bench.deliver(ORDERS, batch(topic, [order("0", "a", T0)], start=1_000))
    assert bench.folded()["orders"] == 1
    assert bench.partition.next_offset(topic) == 1_001


def test_a_range_without_records_moves_the_offset(make: Callable[..., Bench]) -> None:
    bench = make()
    empty = batch(bench.worker.environment.topics[CLICKS], [])
    empty.next = 4
    bench.deliver(CLICKS, empty)
    assert bench.worker.offsets([bench.tp(CLICKS)]) == {bench.tp(CLICKS): 4}


def test_a_batch_that_moves_event_time_on_closes_all_windows_that_are_due(make: Callable[..., Bench]) -> None:
    bench = make()
    end = T0 + 5 * HOUR_MS + 10 * 60_000
    bench.take(ORDERS, order("0", "a", T0), order("1", "a", end))
    bench.take(CLICKS, click("0", "a", end))
    assert bench.partition.meta.windows_closed == 0
    bench.take(PRICES, price_change("0", "a", end, 1.0))
    assert bench.partition.meta.windows_closed == 5


def test_a_partition_that_is_taken_away_while_its_windows_close_is_let_go(make: Callable[..., Bench]) -> None:
    bench = make()
    end = T0 + 100 * HOUR_MS
    bench.now_ms = end + HOUR_MS
    bench.take(ORDERS, order("0", "a", T0), order("1", "a", end))
    bench.take(CLICKS, click("0", "a", end))
    bench.now_ms += 10_000  # a flush is due
    fetched = bench.next(PRICES, price_change("0", "a", end, 1.0))
    leaving = bench.partition

    async def both() -> None:
        taking = asyncio.create_task(bench.worker.take(PRICES, fetched, bench.consumer))
        while leaving.meta.windows_closed < 3:
            await asyncio.sleep(0)
        bench.now_ms += 10_000
        bench.generation += 2
        await bench.worker.assign([], lambda: bench.generation)
        await taking

    asyncio.run(both())
    assert 3 <= leaving.meta.windows_closed < 10, "it stops closing windows that are no longer ours"


def test_a_batch_flushes_when_the_interval_is_over_and_not_before(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0))
    assert bench.worker.flushed_offsets() == {bench.tp(ORDERS): 1}, "the first is long overdue"
    bench.take(ORDERS, order("1", "a", T0))
    assert bench.worker.flushed_offsets() == {bench.tp(ORDERS): 1}
    bench.tick(after_ms=999)
    assert bench.worker.flushed_offsets() == {bench.tp(ORDERS): 1}
    bench.tick(after_ms=1)
    assert bench.worker.flushed_offsets() == {bench.tp(ORDERS): 2}


# ---------------------------------------------------------------------- brokers that do not answer
@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Partition], threading.Event]]:
    """Let the flushes of one partition wait until the event is set."""
    go = threading.Event()
    commit = OutputProducer.commit

    def hung(partition: Partition) -> threading.Event:
        def committed(producer: OutputProducer) -> int:
            assert producer is not partition.producer or go.wait(60)
            return commit(producer)

        monkeypatch.setattr(OutputProducer, "commit", committed)
        return go

    monkeypatch.setattr("streams.worker.batches.LOCK_WAIT_S", 0.05)
    monkeypatch.setattr("streams.worker.worker.TICK_WAIT_S", 0.05)
    yield hung
    go.set()


def test_a_partition_that_waits_for_its_brokers_keeps_no_other_one_waiting_and_loses_nothing(
    make: Callable[..., Bench], hang: Callable[[Partition], threading.Event]
) -> None:
    bench = make(partitions=2)
    worker, consumer = bench.worker, bench.consumer
    go = hang(worker.partitions[0])
    sku = {0: "sku30", 1: "a0"}
    batches = {
        (source, number): batch(worker.environment.topics[source], [make_one("0", sku[number], T0)], partition=number)
        for source, make_one in ((ORDERS, order), (CLICKS, click))
        for number in (0, 1)
    }

    async def story() -> None:
        hanging = asyncio.create_task(worker.take(ORDERS, batches[ORDERS, 0], consumer))
        await asyncio.sleep(0.01)
        await worker.take(CLICKS, batches[CLICKS, 0], consumer)  # waits a little, then is put off
        await worker.take(CLICKS, batches[CLICKS, 0], consumer)  # is put off at once
        assert consumer.paused == {bench.tp(CLICKS, 0)}
        for source in (ORDERS, CLICKS):
            await worker.take(source, batches[source, 1], consumer)
        bench.now_ms += 1_000
        await worker.tick(consumer)
        assert worker.flushed_offsets() == {bench.tp(ORDERS, 1): 1, bench.tp(CLICKS, 1): 1}
        assert not hanging.done()
        assert consumer.sought == []
        go.set()
        await hanging

    asyncio.run(story())
    assert worker.partitions[0].meta.counts["clicks"].records == 0
    bench.tick()
    assert consumer.sought == [{bench.tp(CLICKS, 0): 0}]
    assert consumer.paused == set()
    bench.deliver(CLICKS, batches[CLICKS, 0])
    bench.tick(after_ms=1_000)
    assert worker.flushed_offsets() == {bench.tp(source, number): 1 for source in (ORDERS, CLICKS) for number in (0, 1)}


def test_a_flush_that_waits_for_brokers_gets_a_shorter_deadline_when_the_worker_leaves(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.worker.leaving.LEAVE_S", 0.2)
    bench = make(brokers="127.0.0.1:1")
    stored = bench.worker.partitions[0].store.path
    fetched = bench.next(ORDERS, b"?")

    async def story() -> None:
        taking = asyncio.create_task(bench.worker.take(ORDERS, fetched, bench.consumer))
        await asyncio.sleep(0.3)
        assert not taking.done()
        async with asyncio.timeout(30):  # it would wait for a minute
            with pytest.raises(FlushFailed):
                await bench.worker.close()
            with pytest.raises(FlushFailed):
                await taking

    asyncio.run(story())
    bench.worker.opened.close(0)
    Store(stored).close()


def test_a_flush_that_begins_after_the_deadline_was_shortened_ends_by_then_too(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.worker.leaving.LEAVE_S", 0.2)
    bench = make(brokers="127.0.0.1:1")
    fetched = bench.next(ORDERS, b"?")

    async def story() -> None:
        bench.worker.shorten_deadline()
        async with asyncio.timeout(30):  # it would wait for a minute
            with pytest.raises(FlushFailed, match="1 of 1 records were not acknowledged"):
                await bench.worker.take(ORDERS, fetched, bench.consumer)

    asyncio.run(story())
    bench.worker.opened.close(0)


def test_a_partition_that_is_kept_has_its_time_again(make: Callable[..., Bench]) -> None:
    bench = make()
    heard: list[float] = []
    bench.partition.shorten_deadline = heard.append
    bench.worker.shorten_deadline()
    bench.assign([0])
    assert len(heard) == 2
    assert heard[0] < heard[1] == math.inf


def test_a_worker_that_has_failed_flushes_nothing_more(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0))  # flushed at once
    bench.take(ORDERS, order("1", "a", T0))
    flushed = bench.worker.flushed_offsets()
    bench.now_ms += 10_000
    bench.worker.fail(BrokerTrouble("no longer ours"))
    asyncio.run(bench.worker.closing.flush_due(bench.partition))
    assert bench.worker.flushed_offsets() == flushed


def test_a_flush_that_begins_while_the_worker_leaves_has_no_more_time_than_those_that_went_on(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.worker.leaving.LEAVE_S", 0.5)
    bench = make(brokers="127.0.0.1:1")
    stored = bench.worker.partitions[0].store.path
    fetched = bench.next(ORDERS, b"?")

    async def story() -> None:
        by_s = bench.worker.shorten_deadline()
        async with asyncio.timeout(30):
            with pytest.raises(FlushFailed):
                await bench.worker.take(ORDERS, fetched, bench.consumer)  # it would wait for a minute
        assert bench.worker.shorten_deadline() == by_s, "one deadline for all that belongs to this leaving"
        with pytest.raises(FlushFailed):
            await bench.worker.flush()
        assert bench.worker.shorten_deadline() > by_s, "and another for the next"

    asyncio.run(story())
    bench.worker.opened.close(0)
    Store(stored).close()


def test_a_new_assignment_ends_the_shortened_deadline_of_the_last_one(make: Callable[..., Bench]) -> None:
    bench = make()
    by_s = bench.worker.shorten_deadline()
    bench.assign([0])
    assert bench.worker.shorten_deadline() > by_s


# ---------------------------------------------------------------------- what brokers refuse for good
def refuse(*_: object) -> None:
    msg = "the missing right is Write on the transactional id 'g-0'"
    raise Refused(msg)


def test_what_is_refused_while_a_partition_is_opened_ends_the_worker(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    monkeypatch.setattr(Opener, "open", refuse)
    bench.assign([])
    with pytest.raises(Refused, match="transactional id"):
        bench.assign([0])


def test_what_is_refused_while_a_partition_is_opened_anew_ends_the_worker(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()

    def away(*_: object) -> None:
        msg = "no leader"
        raise Unavailable(msg)

    bench.assign([])
    with monkeypatch.context() as patched:
        patched.setattr(Opener, "open", away)
        bench.assign([0])
    monkeypatch.setattr(Opener, "open", refuse)
    with pytest.raises(Refused, match="transactional id"):
        bench.tick(after_ms=5_000)


def test_what_is_refused_of_a_flush_ends_the_worker_and_is_not_given_up_to_be_opened_anew(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    monkeypatch.setattr(OutputProducer, "commit", refuse)
    with pytest.raises(Refused, match="transactional id"):
        bench.take(ORDERS, order("0", "a", T0))
    assert not bench.worker.reopener.waiting


# ---------------------------------------------------------------------- the clock
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


# ---------------------------------------------------------------------- the group
def test_assigning_keeps_gives_up_and_restores(make: Callable[..., Bench]) -> None:
    bench = make(partitions=3)
    worker = bench.worker
    kept, given_up = worker.partitions[1], worker.partitions[0]
    skus = {0: "sku3", 1: "a"}
    topic = worker.environment.topics[ORDERS]
    for number in (0, 1):
        values = [order(f"e{n}", f"{skus[number]}{n}", T0) for n in range(12)]
        bench.deliver(ORDERS, batch(topic, values, partition=number))
    asyncio.run(worker.flush())
    folded = [worker.partitions[n].meta.counts["orders"].folded for n in (0, 1)]
    assert all(folded)
    bench.assign([1, 2])
    assert worker.partitions.keys() == {1, 2}
    assert worker.partitions[1] is kept
    Store(given_up.store.path).close()  # nobody holds it any more
    bench.assign([0, 1])
    assert worker.partitions[0] is not given_up
    assert worker.partitions[0].meta.counts["orders"].folded == folded[0]
    assert worker.offsets([TP(topic, n) for n in range(3)]) == {TP(topic, 0): 12, TP(topic, 1): 12}
    bench.assign([])
    assert worker.partitions == {}


def test_partitions_of_one_worker_have_one_currency_and_stored_ones_must_agree(
    make: Callable[..., Bench], settings: Settings, tmp_path: Path
) -> None:
    def absorb(bench: Bench, number: int, currency: str) -> None:
        topic, skus = bench.worker.environment.topics[ORDERS], [f"s{n}" for n in range(40)]
        mine = [sku for sku in skus if partitions_of([sku.encode()], count=2)[0] == number]
        values = [order(f"{number}", mine[0], T0, currency=currency)]
        bench.deliver(
            ORDERS, batch(topic, values, start=bench.worker.partitions[number].next_offset(topic), partition=number)
        )

    bench = make(partitions=2)
    absorb(bench, 0, "GBP")
    absorb(bench, 1, "EUR")
    metas = {number: partition.meta for number, partition in bench.worker.partitions.items()}
    assert {number: meta.counts["orders"].rejected for number, meta in metas.items()} == {0: 0, 1: 1}
    assert {number: meta.currency for number, meta in metas.items()} == {0: "GBP", 1: "GBP"}
    bench.close()

    other = make(partitions=2, state_dir=str(tmp_path / "other"))
    absorb(other, 1, "EUR")
    other.close()
    state = Path(settings.group_id) / "partition-1"
    shutil.rmtree(Path(settings.state_dir) / state)
    shutil.copytree(tmp_path / "other" / state, Path(settings.state_dir) / state)
    with pytest.raises(StateMismatch, match=r"other partitions have theirs in (GBP|EUR): set SKUTREND_CURRENCY"):
        make(partitions=2)


def test_what_was_not_flushed_goes_with_a_dropped_partition(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0))  # flushed at once
    bench.take(ORDERS, order("1", "a", T0))
    bench.worker.opened.close(0)
    bench.assign([0])
    assert bench.worker.offsets([bench.tp(ORDERS)]) == {bench.tp(ORDERS): 1}


def test_closing_flushes_everything_and_gives_it_up(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.take(ORDERS, order("0", "a", T0))
    bench.take(ORDERS, order("1", "a", T0))
    bench.close()
    assert bench.worker.partitions == {}
    bench.assign([0])
    assert bench.worker.offsets([bench.tp(ORDERS)]) == {bench.tp(ORDERS): 2}


def test_only_partitions_that_are_ours_have_an_offset_to_resume_from(make: Callable[..., Bench]) -> None:
    bench = make()
    assert bench.worker.offsets([bench.tp(ORDERS), bench.tp(ORDERS, 5)]) == {bench.tp(ORDERS): 0}
    assert bench.worker.flushed_offsets() == {}, "nothing was flushed yet"


def test_a_flush_that_fails_is_not_swallowed(make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.worker.closing.FLUSH_S", 0.2)
    bench = make(brokers="127.0.0.1:1")
    bench.take(CLICKS, click("0", "a", T0))  # nothing to publish, so this one is stored
    assert bench.worker.flushed_offsets() == {bench.tp(CLICKS): 1}
    bench.now_ms += DAY_MS
    with pytest.raises(FlushFailed):
        bench.take(ORDERS, b"?")


def test_a_directory_that_stays_locked_is_refused_after_a_while(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.worker.opening.LOCK_WAIT_S", 0.1)
    monkeypatch.setattr("streams.worker.opening.LOCK_RETRY_S", 0.05)
    holder = Store(settings.partition_dir(0))
    worker = Worker(Environment(settings, None, 1, tp=TP))
    with pytest.raises(StateMismatch, match="SKUTREND_STATE_DIR"):
        asyncio.run(worker.assign([0], lambda: 1))
    assert not worker.ready()[0]
    holder.close()
    asyncio.run(worker.assign([0], lambda: 1))
    assert worker.ready()[0]
    asyncio.run(worker.close())


def test_a_partition_whose_changelog_cannot_be_read_yet_is_opened_later_and_the_others_go_on(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(partitions=2)
    answers = iter(["away", "away", "there"])

    def opened(opener: Opener, number: int) -> Partition:
        if number == 1 and next(answers) == "away":
            msg = "no leader"
            raise Unavailable(msg)
        return open_it(opener, number)

    open_it = Opener.open
    monkeypatch.setattr(Opener, "open", opened)
    bench.assign([])
    bench.assign([0, 1])
    assert set(bench.worker.partitions) == {0}
    assert bench.worker.failure is None
    assert bench.worker.ready() == (False, "partitions [1] are about to be opened anew")
    bench.take(ORDERS, order("0", "a", T0))
    for _ in range(2):
        assert set(bench.worker.partitions) == {0}
        bench.tick(after_ms=5_000)
    assert set(bench.worker.partitions) == {0, 1}
    assert bench.worker.ready()[0]
    assert {TP(topic, 1): 0 for topic in bench.worker.environment.topics} in bench.consumer.sought


def test_inputs_of_different_partition_counts_are_trouble() -> None:
    assert input_partitions({"orders": 4, "clicks": 4, "price-changes": 4}) == 4
    with pytest.raises(
        BrokerTrouble, match=r"found clicks: 3, orders: 4, price-changes: 4; see `skutrend topics check`"
    ):
        input_partitions({"orders": 4, "clicks": 3, "price-changes": 4})


# ---------------------------------------------------------------------- placement
def test_an_input_that_is_mostly_on_wrong_partitions_stops_the_worker_and_nothing_more_is_flushed(
    make: Callable[..., Bench],
) -> None:
    bench = make(partitions=2)
    skus = [f"sku{i}" for i in range(2_000)]
    bench.take(ORDERS, *(order(sku, sku, T0) for sku in skus[:900]))
    with pytest.raises(WrongPartitioner, match=r"of the latest 1,000 records of topic .*murmur2_random") as why:
        bench.take(ORDERS, *(order(sku, sku, T0) for sku in skus[900:1_000]))
    bench.worker.fail(why.value)  # as streams.worker.app does
    bench.tick(after_ms=5_000)
    bench.flush()
    bench.take(ORDERS, order("more", "sku0", T0))
    assert bench.worker.flushed_offsets() == {bench.tp(ORDERS): 900}


def test_an_input_of_which_nothing_can_be_used_is_reported_and_the_worker_is_not_ready_until_something_can(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    """Records framed by a schema registry all became dead letters, while the worker was ready and the log empty."""
    bench = make()
    topic = bench.worker.environment.topics[ORDERS]
    framed = [b"\0\0\0\0\x07" + order(f"{n}", "a", T0) for n in range(2_000)]
    bench.take(ORDERS, *(order(f"first{n}", "a", T0) for n in range(20)), *framed[:980])
    assert bench.worker.ready() == (True, "partitions [0]"), "two of a hundred can be used"
    bench.take(CLICKS, *framed[:500])
    assert bench.worker.ready()[0], "five hundred records say nothing"
    bench.take(ORDERS, *framed[980:])
    said = (
        f"1,020 of the latest 1,020 records of topic {topic} cannot be used and are dead letters, lately because of "
        "not_json: the value begins with a schema registry's frame (a zero byte and schema id 7): plain JSON is "
        "expected"
    )
    assert bench.worker.ready() == (False, said)
    bench.take(ORDERS, *framed[:5])
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [said], "once"
    bench.take(ORDERS, *(order(f"good{n}", "a", T0) for n in range(100)))
    assert bench.worker.ready() == (True, "partitions [0]")
    assert f"records of topic {topic} can be used again" in caplog.text


def test_misplaced_records_are_buried_without_end_where_the_operator_says_so(make: Callable[..., Bench]) -> None:
    bench = make(partitions=2, misplaced_share=1.0)
    bench.take(ORDERS, *(order(f"{i}", f"sku{i}", T0) for i in range(2_000)))
    counts = bench.partition.meta.counts["orders"]
    assert counts.folded + counts.rejected == 2_000
    assert 800 < counts.rejected < 1_200
