"""One lock per partition, a background task per partition, and threads for calls that block.

Batches, the clock, rebalances and the end of the process all change partitions. Each holds the partition's lock while
it does. A flush keeps holding it while a thread waits for the brokers, so that the event loop and all other partitions
go on.
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
    """Locks by partition number, and the tasks and blocking calls that run under them."""

    def __init__(self, threads: int, run_blocking: RunBlocking | None = None) -> None:
        """threads: how many blocking calls may run at a time. run_blocking: replaces the threads, for tests."""
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: Counter[int] = Counter()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="flush")
        self._run_blocking = run_blocking

    async def run_blocking(self, call: Callable[[], None]) -> None:
        """Run a call that blocks beside the event loop, and wait for its end."""
        if self._run_blocking is not None:
            await self._run_blocking(call)
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def end(self) -> None:
        """Wait until no blocking call is running; no further one is accepted."""
        self._threads.shutdown()

    @asynccontextmanager
    async def hold(self, number: int, *, within_s: float | None = None) -> AsyncIterator[bool]:
        """Acquire a partition's lock and hold it; gives False, and holds nothing, when acquiring takes longer."""
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
        """Whether somebody waits for a partition's lock: its holder should release it as soon as it can."""
        return self._waiting[number] > 0

    async def run_to_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that must not be cancelled: it comes to its own end also when its caller is cancelled."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_error)
            raise

    def is_free(self, number: int) -> bool:
        """Whether nobody holds a partition's lock and none of its tasks is running."""
        return number not in self._tasks and not self._locks[number].locked()

    def start_task(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        """Start a partition's task, which `wait_tasks` waits for; only where `is_free`."""
        self._tasks[number] = asyncio.ensure_future(work)

    def running_task(self, number: int) -> asyncio.Task[None] | None:
        """Give the task of a partition that has been started and not yet collected."""
        return self._tasks.get(number)

    async def wait_tasks(self, *, within_s: float) -> None:
        """Wait for the tasks that were started; what takes longer goes on. Raises as `collect_tasks` does."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=within_s)
        self.collect_tasks()

    def collect_tasks(self) -> None:
        """Forget the tasks that have ended, so that new ones can start. Raises what the first of them raised."""
        ended = [number for number, task in self._tasks.items() if task.done()]
        errors = [error for number in ended if (error := self._tasks.pop(number).exception()) is not None]
        if errors:
            raise errors[0]


def _log_error(task: asyncio.Task[None]) -> None:
    """Log the error of work whose caller was cancelled, since nobody else will see it."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("work whose caller was cancelled has ended in %r", error)
