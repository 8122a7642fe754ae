"""The partitions that the group has assigned to this worker: which to keep, to close and to restore."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Final

from schemas.errors import BrokerTrouble, Fenced, FlushFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streams.worker.environment import Environment
    from streams.worker.inputs import Inputs
    from streams.worker.leaving import Leaving
    from streams.worker.open_partitions import OpenPartitions
    from streams.worker.opening import Opener
    from streams.worker.reopening import Reopener

log = logging.getLogger(__name__)
RESTORED_AT_ONCE: Final = 4  # partitions: each holds what it has read and fetched, up to some 130 MB


class Assignment:
    """What the group says this worker owns, and as of which generation.

    is_restored: whether there is something, and all of it was tried. restoring: says what is being restored; empty
    where nothing is. Probes read both from another thread.
    """

    def __init__(
        self,
        environment: Environment,
        opened: OpenPartitions,
        *,
        opener: Opener,
        reopener: Reopener,
        leaving: Leaving,
        inputs: Inputs,
    ) -> None:
        """Nothing is assigned yet."""
        self.owned: set[int] = set()
        self.generation = -1
        self.is_restored = False
        self.restoring = ""
        self._count = environment.partition_count
        self._opened, self._opener, self._reopener = opened, opener, reopener
        self._leaving, self._inputs = leaving, inputs
        self._restores = asyncio.Semaphore(RESTORED_AT_ONCE)

    async def assign(self, numbers: Iterable[int], generation: Callable[[], int]) -> None:
        """Own exactly these partition numbers: keep, close, restore.

        generation: gives the group's at this moment. When it moves while partitions are restored the rest is left
        undone: another assignment follows. A partition is kept only from one generation to the next: a worker that
        missed a generation may have missed another owner as well.
        """
        wanted, now = set(numbers), generation()
        self._check_count(wanted)
        kept = wanted if now == self.generation + 1 else set()
        self.owned, self.generation = wanted, now
        self.is_restored = False
        self._leaving.reset()
        self._reopener.waiting.clear()
        await self._close(set(self._opened.by_number) - kept)
        await self._restore(sorted(wanted - set(self._opened.by_number)), lambda: generation() == now)
        if generation() != now:
            log.warning("generation %d ended while its partitions were restored; the next assignment follows", now)
            return
        self._inputs.forget()
        self.is_restored = bool(wanted)
        log.info("generation %d, partitions %s", now, sorted(self._opened.by_number) or "none")

    def as_of_now(self) -> Callable[[], bool]:
        """Give a question: whether the assignment of this moment still holds."""
        generation = self.generation
        return lambda: generation == self.generation

    def _check_count(self, wanted: set[int]) -> None:
        if max(wanted, default=0) >= self._count:
            msg = (
                f"an input has got partitions beyond the {self._count} it had: keys have moved; make the others alike, "
                "start with a new SKUTREND_GROUP, and let the inputs be read again"
            )
            raise BrokerTrouble(msg)

    async def _close(self, gone: set[int]) -> None:
        """Close what is not kept without waiting long; what is kept has no deadline any more."""
        self._opened.shorten_deadlines(gone, by_s=time.monotonic())
        await self._opened.close_each(gone)
        self._opened.shorten_deadlines(self._opened.by_number, by_s=math.inf)

    async def _restore(self, missing: list[int], is_ours: Callable[[], bool]) -> None:
        self.restoring = f"restoring partitions {missing}" if missing else ""
        await asyncio.gather(*(self._restore_one(number, is_ours) for number in missing))
        self.restoring = ""

    async def _restore_one(self, number: int, is_ours: Callable[[], bool]) -> None:
        """Open one partition without holding the event loop up; where the brokers do not let us, try again later."""
        try:
            async with self._restores, self._opened.locks.hold(number):
                if is_ours():
                    self._opened.by_number[number] = await asyncio.to_thread(self._opener.open, number)
        except (Fenced, FlushFailed, Unavailable) as error:
            log.warning("partition %d cannot be opened yet: %s", number, error)
            self._reopener.postpone(number)
