"""Brokers that do not answer a flush, and what they refuse for good."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING

import pytest

from schemas.errors import BrokerTrouble, FlushFailed, Refused, Unavailable
from schemas.inputs import CLICKS, ORDERS
from streams.kafka.output_producer import OutputProducer
from streams.state.store import Store
from streams.worker.opening import Opener
from tests.support.partitions import T0, batch, click, order
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.partition.partition import Partition


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
