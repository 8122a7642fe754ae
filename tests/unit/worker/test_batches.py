"""Batches that come next and such that do not, on wrong partitions, or unusable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from faust.types import TP

from schemas.errors import WrongPartitioner
from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support.partitions import DAY_MS, HOUR_MS, T0, batch, click, order, price_change
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_an_input_whose_ids_are_none_of_events_is_reported_and_the_worker_is_not_ready(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    topic = bench.worker.environment.topics[ORDERS]
    bench.take(ORDERS, *(order(f"o{n // 3}", f"sku{n % 3}", T0) for n in range(900)))
    assert bench.worker.ready()[0], "nine hundred records say nothing"
    bench.take(ORDERS, *(order(f"p{n // 3}", f"sku{n % 3}", T0) for n in range(300)))
    is_ready, said = bench.worker.ready()
    assert not is_ready
    assert said.startswith(f"800 of the latest 1,200 records of topic {topic} have the event_id of another event")
    assert bench.partition.meta.counts["orders"].rejected == 800
    bench.take(ORDERS, *(order(f"good{n}", "sku0", T0) for n in range(4_000)))
    assert bench.worker.ready() == (True, "partitions [0]")


def test_misplaced_records_are_buried_without_end_where_the_operator_says_so(make: Callable[..., Bench]) -> None:
    bench = make(partitions=2, misplaced_share=1.0)
    bench.take(ORDERS, *(order(f"{i}", f"sku{i}", T0) for i in range(2_000)))
    counts = bench.partition.meta.counts["orders"]
    assert counts.folded + counts.rejected == 2_000
    assert 800 < counts.rejected < 1_200
