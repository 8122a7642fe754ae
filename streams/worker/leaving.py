"""The flush before partitions are taken away or the process ends: one deadline for all of it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from streams.kafka.output_producer import SLICE_S

if TYPE_CHECKING:
    from streams.partition.partition import Partition
    from streams.worker.closing import Closing
    from streams.worker.open_partitions import OpenPartitions
    from streams.worker.reopening import Reopener

log = logging.getLogger(__name__)
LEAVE_S: Final = 8.0  # the group waits for this worker, or whoever sent SIGTERM does
LEAST_S: Final = 0.1


class Leaving:
    """Flushes all partitions by one deadline: from the first `shorten_deadline` to the end of the next `flush`."""

    def __init__(self, opened: OpenPartitions, closing: Closing, reopener: Reopener) -> None:
        """Nothing is leaving."""
        self._opened, self._closing, self._reopener = opened, closing, reopener
        self._by_s: float | None = None  # time.monotonic

    def shorten_deadline(self) -> float:
        """Let flushes end within `LEAVE_S`: partitions are about to be taken away, or the process is to end.

        Returns the deadline (time.monotonic): the same for all that is flushed up to the end of the next `flush`.
        """
        if self._by_s is None:
            self._by_s = time.monotonic() + LEAVE_S
        self._opened.shorten_deadlines(self._opened.by_number, by_s=self._by_s)
        return self._by_s

    def reset(self) -> None:
        """Forget the deadline: a new assignment has begun."""
        self._by_s = None

    async def flush(self) -> None:
        """Flush every partition by the deadline, not after a failure; what is not flushed its next owner folds."""
        if self._opened.failure is not None:
            return
        by_s = self.shorten_deadline()
        flushes = (self._flush_by(partition, by_s) for partition in list(self._opened.by_number.values()))
        errors = await asyncio.gather(*flushes, return_exceptions=True)
        self._by_s = None
        for error in errors:
            if error is not None:
                raise error

    async def _flush_by(self, partition: Partition, by_s: float) -> None:
        async with self._opened.locks.hold(partition.number, within_s=_left_s(by_s) + 2 * SLICE_S) as is_held:
            if not is_held:
                log.warning("partition %d stays as it was last flushed: its lock is not released", partition.number)
            elif self._opened.is_open(partition):
                with self._reopener.closing_on_failure(partition):
                    await self._closing.flush(partition, within_s=_left_s(by_s))


def _left_s(by_s: float) -> float:
    return max(LEAST_S, by_s - time.monotonic())
