"""Partitions that the group gives and takes."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faust.types import TP

from schemas.errors import BrokerTrouble, FlushFailed, StateMismatch, Unavailable
from schemas.inputs import CLICKS, ORDERS
from streams.kafka.murmur2 import partitions_of
from streams.state.store import Store
from streams.worker.environment import Environment, input_partitions
from streams.worker.opening import Opener
from streams.worker.worker import Worker
from tests.support.partitions import DAY_MS, T0, batch, click, order
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.partition.partition import Partition
    from streams.settings import Settings


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


@pytest.mark.slow
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
