"""A worker whose consumer does what the test says; stores, producers and the broker behind them are real."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faust.types import TP

from schemas.inputs import INPUT_NAMES
from streams.worker.environment import Environment
from streams.worker.worker import Worker
from tests.support.partitions import NOW_MS, batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from inference.session import Session
    from streams.kafka.batch import RecordBatch
    from streams.settings import Settings

ALWAYS_MS = 1 << 62
IDLE_MS = 60_000  # idle timeout of the tests of workers


@dataclass
class Scripted:
    """What the worker asks of a consumer, and a note of all that it asked."""

    stale: list[RecordBatch] = field(default_factory=list)
    ends: dict[TP, int | None] = field(default_factory=lambda: defaultdict(int))
    kept: dict[TP, tuple[int, int]] = field(default_factory=dict)
    heard: dict[TP, int] = field(default_factory=dict)  # when a broker last answered; just now where it does not say
    paused: set[TP] = field(default_factory=set)
    sought: list[dict[TP, int]] = field(default_factory=list)

    def is_current(self, batch: RecordBatch) -> bool:
        return not any(batch is each for each in self.stale)

    def highwater(self, tp: TP) -> int | None:
        return self.ends[tp]

    def answered_ms(self, tp: TP) -> int | None:
        return self.heard.get(tp, ALWAYS_MS)

    def pause(self, tps: Iterable[TP]) -> None:
        assert not self.paused & set(tps), "paused twice"
        self.paused |= set(tps)

    def resume(self, tps: Iterable[TP]) -> None:
        assert self.paused >= set(tps), "resumed what was not paused"
        self.paused -= set(tps)

    async def bounds(self, tps: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        return {tp: self.kept.get(tp, (0, 1 << 40)) for tp in tps}

    async def seek_wait(self, offsets: Mapping[TP, int]) -> None:
        self.sought.append(dict(offsets))


class Bench:
    """A worker that owns partition 0 of one, at a clock that only moves when the test says so.

    now_ms: the time of day. skew_ms: by how much it was put forward (or back) since the beginning.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        partitions: int = 1,
        session: Session | None = None,
        **model: Any,  # noqa: ANN401
    ) -> None:
        """model: `bundle` and `make_session` of the worker."""
        self.now_ms = NOW_MS
        self.skew_ms = 0
        self.consumer = Scripted()
        self.monotonic: Callable[[], int] = lambda: self.now_ms - self.skew_ms
        self.worker = Worker(
            Environment(
                *(settings, session, partitions),
                tp=TP,
                clock=lambda: self.now_ms,
                monotonic=self.read_monotonic,
            ),
            **model,
        )
        self.generation = 0
        self.assign(range(partitions))

    def read_monotonic(self) -> int:
        return self.monotonic()

    def assign(self, numbers: Iterable[int]) -> None:
        """Let a rebalance give the worker these partitions."""
        self.generation += 1
        asyncio.run(self.worker.assign(numbers, lambda: self.generation))

    @property
    def partition(self) -> Any:  # noqa: ANN401 - Partition, whichever it is now
        return self.worker.partitions[0]

    def tp(self, source: int, number: int = 0) -> TP:
        return TP(self.worker.environment.topics[source], number)

    def next(self, source: int, *values: bytes | None, number: int = 0) -> RecordBatch:
        """Make the batch that comes next of an input."""
        topic = self.worker.environment.topics[source]
        return batch(topic, values, start=self.worker.partitions[number].next_offset(topic), partition=number)

    def take(self, source: int, *values: bytes | None, unread: int = 0) -> None:
        """Let the next batch of an input arrive; `unread` records lie behind it."""
        fetched = self.next(source, *values)
        self.consumer.ends[self.tp(source)] = fetched.next + unread
        self.deliver(source, fetched)

    def deliver(self, source: int, fetched: RecordBatch) -> None:
        asyncio.run(self.worker.take(source, fetched, self.consumer))

    def set_clock(self, by_ms: int) -> None:
        """Put the time of day forward or back; no time passes."""
        self.now_ms += by_ms
        self.skew_ms += by_ms

    def tick(self, *, after_ms: int = 0) -> None:
        self.now_ms += after_ms

        async def turn() -> None:
            await self.worker.tick(self.consumer)
            await self.worker.locks.wait_tasks(within_s=60)  # what a slow machine has not ended goes on, as it would

        asyncio.run(turn())

    def flush(self) -> None:
        asyncio.run(self.worker.flush())

    def close(self) -> None:
        asyncio.run(self.worker.close())

    def unread(self, source: int, count: int) -> None:
        """Say how many records of an input have not been read."""
        tp = self.tp(source)
        self.consumer.ends[tp] = self.partition.next_offset(tp.topic) + count

    def folded(self) -> dict[str, int]:
        return {name: self.partition.meta.counts[name].folded for name in INPUT_NAMES}
