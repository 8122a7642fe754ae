"""What a worker learns about its topics while partitions are being flushed."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from schemas.inputs import ORDERS
from tests.support.partitions import T0, order, settings_for
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from streams.partition.partition import Flushing


def test_ids_that_are_learnt_while_a_flush_waits_for_the_brokers_are_stored_by_the_next(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were taken for part of that flush, and never stored: a topic made again was taken for the old one."""
    bench = Bench(settings_for(broker, tmp_path, flush_interval_ms=60_000))
    bench.take(ORDERS, order("1", "a", T0))
    bench.tick()
    topic = bench.worker.environment.topics[ORDERS]
    monkeypatch.setattr(bench.worker.opener, "topic_ids", lambda: {topic: "ONE"})
    commit, may_go_on = bench.partition.commit, threading.Event()

    def slow(flushing: Flushing) -> None:
        commit(flushing)
        assert may_go_on.wait(10)

    async def both() -> None:
        flush = asyncio.ensure_future(bench.worker.flush())
        check = asyncio.ensure_future(bench.worker.check_topics())
        await asyncio.sleep(0.1)
        assert not flush.done()
        may_go_on.set()
        await asyncio.gather(flush, check)

    bench.take(ORDERS, order("2", "a", T0))
    monkeypatch.setattr(bench.partition, "commit", slow)
    asyncio.run(both())
    bench.tick(after_ms=60_000)
    stored = bench.partition.store.meta()
    bench.worker.opened.close(0)
    assert stored is not None
    assert stored.topic_ids == {topic: "ONE"}
