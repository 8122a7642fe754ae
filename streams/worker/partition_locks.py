"""One hand at a time on each partition, and threads for what waits for the brokers.

Batches, the clock, rebalances and the end of the process all want to change partitions. Whoever holds a partition's
hand may; a flush holds it while a thread waits for the brokers, so that the event loop and all other partitions go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

RunBlocking = Callable[[Callable[[], None]], Awaitable[None]]


log = logging.getLogger(__name__)


class PartitionLocks:
    """Locks by partition number, and the work that goes on under them."""

    def __init__(self, threads: int, run_blocking: RunBlocking | None = None) -> None:
        """threads: at most so many calls wait at a time. apart: runs a call elsewhere; None: in one of the threads."""
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: Counter[int] = Counter()
        self._turns: dict[int, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="flush")
        self._run_blocking = run_blocking

    async def run_blocking(self, call: Callable[[], None]) -> None:
        """Let a call that blocks run beside the event loop, and wait for its end."""
        if self._run_blocking is not None:
            await self._run_blocking(call)
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def end(self) -> None:
        """Wait until no thread waits any more; none will again."""
        self._threads.shutdown()

    @asynccontextmanager
    async def hold(self, number: int, *, within_s: float | None = None) -> AsyncIterator[bool]:
        """Wait for a partition's hand, and hold it; gives False, and holds nothing, when that takes longer."""
        lock, is_held = self._locks[number], True
        self._waiting[number] += 1
        try:
            async with asyncio.timeout(within_s):
                await lock.acquire()
        except TimeoutError:
            is_held = False
        finally:
            self._waiting[number] -= 1
        try:
            yield is_held
        finally:
            if is_held:
                lock.release()

    def has_waiters(self, number: int) -> bool:
        """Whether somebody waits for a partition's hand: whoever holds it should give way when it can."""
        return self._waiting[number] > 0

    async def run_to_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for work that must come to its own end even when whoever waits for it is cancelled."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell)
            raise

    def is_free(self, number: int) -> bool:
        """Whether nobody holds a partition's hand and none of its turns is still going on."""
        return number not in self._turns and not self._locks[number].locked()

    def begin(self, number: int, turn: Coroutine[Any, Any, None]) -> None:
        """Begin a partition's turn, which `end_turns` waits for."""
        self._turns[number] = asyncio.ensure_future(turn)

    async def wait_turns(self, *, within_s: float) -> None:
        """Wait for the turns that have begun; what takes longer goes on. Raises as `forget_turns` does."""
        if self._turns:
            await asyncio.wait(self._turns.values(), timeout=within_s)
        self.collect_turns()

    def collect_turns(self) -> None:
        """Make room for new turns where the last ones have ended. Raises what the first of them raised."""
        ended = [number for number, turn in self._turns.items() if turn.done()]
        errors = [error for number in ended if (error := self._turns.pop(number).exception()) is not None]
        if errors:
            raise errors[0]


def _tell(task: asyncio.Task[None]) -> None:
    """Log what work has met for which nobody waits any more."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("what went on alone has ended in %r", error)
