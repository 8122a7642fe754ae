"""The partitions that are open in this worker, and the error after which nothing of them is written any more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streams.observe.shared_dict import SharedDict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.errors import Broken
    from streams.observe.metrics import Metrics
    from streams.partition.partition import Partition
    from streams.worker.partition_locks import PartitionLocks


class OpenPartitions:
    """Partitions by number, each changed by whoever holds its lock.

    by_number: probes read it from another thread. failure: what ends this worker; from then on nothing is folded or
    flushed.
    """

    def __init__(self, metrics: Metrics, locks: PartitionLocks) -> None:
        """Nothing is open."""
        self.by_number: SharedDict[int, Partition] = SharedDict()
        self.locks = locks
        self.failure: Broken | None = None
        self._metrics = metrics

    def is_open(self, partition: Partition) -> bool:
        """Whether this very partition is open here: not closed meanwhile, not opened anew."""
        return self.by_number.get(partition.number) is partition

    def close(self, number: int) -> None:
        """Close one partition; what was not flushed is for its next owner to fold."""
        self.by_number.pop(number).close()
        self._metrics.forget(number)

    async def close_each(self, numbers: Iterable[int], *, within_s: float | None = None) -> None:
        """Close partitions, each under its lock; one whose lock cannot be had within this time stays open."""
        for number in numbers:
            async with self.locks.hold(number, within_s=within_s) as is_held:
                if is_held and number in self.by_number:
                    self.close(number)

    def shorten_deadlines(self, numbers: Iterable[int], *, by_s: float) -> None:
        """Let the flushes of these partitions end by then (time.monotonic), also those that begin later."""
        for number in numbers:
            self.by_number[number].shorten_deadline(by_s)

    def fail(self, error: Broken) -> None:
        """Fold and flush nothing more, because of this error or an earlier one; what is being flushed ends soon."""
        self.failure = self.failure or error
        self.shorten_deadlines(self.by_number, by_s=time.monotonic())

    def end(self) -> None:
        """Close threads, stores and producers, after the event loop has ended."""
        self.locks.end()
        for number in list(self.by_number):
            self.close(number)
