"""Closing the windows of a partition and flushing it, without holding the event loop up."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from streams.partition.partition import Partition
    from streams.worker.environment import Environment
    from streams.worker.models import Models
    from streams.worker.open_partitions import OpenPartitions

FLUSH_S: Final = 60.0
ROOM_S: Final = 0.05
AT_ONCE: Final = 2  # partitions in the midst of a window: one may wait for its brokers, and the others can be flushed


class Closing:
    """Closes due windows and flushes; its caller holds the partition's lock."""

    def __init__(self, environment: Environment, opened: OpenPartitions, models: Models) -> None:
        """Take `opened`, which says whether the worker may still write, and whose locks run blocking calls.

        models: change between windows.
        """
        self._models = models
        self._environment = environment
        self._opened = opened
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def close_due(self, partition: Partition, *, within_ms: int | None = None) -> None:
        """Close all due windows; between them other partitions run, and it ends when somebody waits for the lock.

        within_ms: stop after so long, because a batch waits; the partition's periodic task does the rest. Windows that
        must not wait are closed all the same, see `WindowCloser.may_wait`.
        """
        clock, monotonic = self._environment.clock, self._environment.monotonic
        began_ms = monotonic()
        partition.closer.advance_watermark(now_ms=clock(), monotonic_ms=began_ms)
        while True:
            async with self._turns:
                if self._opened.locks.has_waiters(partition.number):
                    return
                await self._models.adopt_due(partition)
                if not await self._close_one(partition, now_ms=clock()):
                    return
            await self.flush_due(partition)
            await asyncio.sleep(0)
            if self._opened.locks.has_waiters(partition.number):
                return
            if within_ms is not None and monotonic() - began_ms >= within_ms and partition.closer.may_wait():
                return

    async def _close_one(self, partition: Partition, *, now_ms: int) -> bool:
        """Close the oldest window if it is due, see `WindowCloser.close_due`; others run between its steps."""
        was_due = False
        for _ in partition.closer.close_steps(now_ms=now_ms):
            was_due = True
            await asyncio.sleep(0)
            await self.room(partition)
        return was_due

    async def room(self, partition: Partition) -> None:
        """Wait until outputs can be put without waiting: the event loop must not stand still for slow brokers."""
        while not partition.has_room():
            await asyncio.sleep(ROOM_S)

    async def flush_due(self, partition: Partition) -> None:
        """Flush a partition whose flush interval is over."""
        if partition.flush_due(now_ms=self._environment.monotonic()):
            await self.flush(partition, within_s=FLUSH_S)

    async def flush(self, partition: Partition, *, within_s: float) -> None:
        """Flush, unless the worker has failed; a thread waits for the brokers while the partition's lock is held."""
        began_ms = self._environment.monotonic()
        if self._opened.failure is not None:
            return
        flushing = partition.begin_flush(within_s=within_s)
        if flushing is None:
            return
        await self._opened.locks.run_blocking(partial(partition.commit, flushing))
        partition.end_flush(flushing, now_ms=began_ms)
        partition.watermark.missed(self._environment.monotonic() - began_ms)
