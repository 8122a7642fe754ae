"""Partitions that are ours but not open: closed after a failed write, or not to be opened yet, and tried again."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.errors import BrokerTrouble, Fenced, FlushFailed
from streams.observe.shared_dict import SharedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from streams.partition.partition import Partition
    from streams.worker.environment import Environment
    from streams.worker.inputs import Consumer, Inputs
    from streams.worker.open_partitions import OpenPartitions
    from streams.worker.opening import Opener

log = logging.getLogger(__name__)
_FIRST_MS: Final = 500
_LONGEST_MS: Final = 30_000


@dataclass
class Reopening:
    """When a partition was lost, when it is to be tried next, and how long after that again; monotonic ms."""

    lost_ms: int
    due_ms: int
    wait_ms: int


class Reopener:
    """Closes partitions whose writes failed, and opens them again with growing waits.

    waiting: by partition; probes read it from another thread.
    """

    def __init__(self, environment: Environment, opened: OpenPartitions, opener: Opener, inputs: Inputs) -> None:
        """Nothing waits."""
        self.waiting: SharedDict[int, Reopening] = SharedDict()
        self._environment, self._opened, self._opener, self._inputs = environment, opened, opener, inputs

    @contextmanager
    def closing_on_failure(self, partition: Partition) -> Iterator[None]:
        """Close a partition whose writes fail in here, to be opened anew; without a changelog the error is raised.

        What the failed flush left in the topics is resolved when the partition is recovered from the changelog.
        """
        try:
            yield
        except (Fenced, FlushFailed) as error:
            if partition.changelog is None:
                raise
            self.close(partition, error)

    def close(self, partition: Partition, error: Fenced | FlushFailed) -> None:
        """Close a partition because of this error, and open it again after a while."""
        number, now = partition.number, self._environment.monotonic()
        # a fenced worker waits until it must have noticed that it is no longer in the group; else two workers would
        # fence each other in alternation
        wait_ms = self._environment.settings.session_timeout_ms if isinstance(error, Fenced) else _FIRST_MS
        log.warning("partition %d is closed, to be opened anew in %d ms: %s", number, wait_ms, error)
        if self._opened.is_open(partition):
            self._opened.close(number)
        self.waiting[number] = Reopening(now, now + wait_ms, _FIRST_MS)
        self._environment.metrics.reopened.labels(str(number), type(error).__name__).inc()

    def postpone(self, number: int) -> None:
        """Try a partition again soon that could not be opened when it was assigned."""
        now = self._environment.monotonic()
        self.waiting[number] = Reopening(now, now + _FIRST_MS, _FIRST_MS)

    def due(self, owned: Collection[int]) -> list[int]:
        """Give the partitions that are to be tried now; forgets those that are open or no longer ours."""
        now, found = self._environment.monotonic(), []
        for number, waiting in self.waiting.items():
            if number not in owned or number in self._opened.by_number:
                self.waiting.pop(number, None)
            elif waiting.due_ms <= now:
                found.append(number)
        return found

    async def reopen(self, number: int, is_ours: Callable[[], bool], consumer: Consumer) -> None:
        """Open a partition again and read its inputs from where its state stands.

        is_ours: whether the assignment of the call's time still holds; asked again after everything that takes time.
        """
        async with self._opened.locks.hold(number):
            waiting = self.waiting.get(number)
            if waiting is None or not is_ours():
                return
            try:
                partition = await asyncio.to_thread(self._opener.open, number)
            except (Fenced, FlushFailed, BrokerTrouble) as error:
                waiting.wait_ms = min(2 * waiting.wait_ms, _LONGEST_MS)
                waiting.due_ms = self._environment.monotonic() + waiting.wait_ms
                log.warning("partition %d cannot be opened yet, next try in %d ms: %s", number, waiting.wait_ms, error)
                return
            if not is_ours():
                partition.close()
                return
            self._opened.by_number[number] = partition
            self.waiting.pop(number, None)
            await self._inputs.read_anew(partition, consumer)

    def stuck(self) -> str:
        """Say which partition could not be opened for long (`stalled_after_ms`); empty where none."""
        now = self._environment.monotonic()
        for number, waiting in self.waiting.items():
            if now - waiting.lost_ms > self._environment.settings.stalled_after_ms:
                return f"partition {number} cannot be opened since {(now - waiting.lost_ms) // 1000} s"
        return ""
