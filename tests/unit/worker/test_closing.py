"""Windows of many partitions that close in one event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from streams.worker.closing import AT_ONCE, Closing
from streams.worker.partition_locks import PartitionLocks

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS, STEPS = 8, 5


def partition(number: int, steps: Counter[int], *, windows: int) -> Any:  # noqa: ANN401 - stands for a Partition
    """Make what has so many windows due, each of `STEPS` steps, which are counted."""
    due = [windows]

    def close_steps(*, now_ms: int) -> Iterator[None]:
        del now_ms
        if due[0]:
            for _ in range(STEPS):
                steps[number] += 1
                yield
            due[0] -= 1

    closer = SimpleNamespace(advance_watermark=lambda **_: 0, close_steps=close_steps, may_wait=lambda: True)
    return SimpleNamespace(number=number, closer=closer, has_room=lambda: True, flush_due=lambda **_: False)


async def stays(_: object) -> None:
    """The model does not change."""


MODELS: Any = SimpleNamespace(adopt_due=stays)


def test_only_a_few_are_in_the_midst_of_a_window_so_that_the_others_can_be_flushed_when_the_worker_leaves() -> None:
    """With all of them at once no lock was released before nearly all windows had closed."""
    steps: Counter[int] = Counter()

    async def story() -> None:
        locks = PartitionLocks(1)
        environment: Any = SimpleNamespace(clock=lambda: 0, monotonic=lambda: 0)
        opened: Any = SimpleNamespace(locks=locks)
        closing = Closing(environment, opened, MODELS)

        async def tend(number: int) -> None:
            async with locks.hold(number):
                await closing.close_due(partition(number, steps, windows=3))

        async def leave(number: int) -> None:
            async with locks.hold(number, within_s=5) as is_held:
                assert is_held

        tasks = [asyncio.create_task(tend(number)) for number in range(PARTITIONS)]
        while not steps:
            await asyncio.sleep(0)
        await asyncio.gather(*(leave(number) for number in range(PARTITIONS)), *tasks)
        locks.end()

    asyncio.run(story())
    assert sum(steps.values()) <= 2 * AT_ONCE * STEPS, "no more than was begun"


def test_all_windows_of_all_partitions_close_in_the_end() -> None:
    steps: Counter[int] = Counter()

    async def story() -> None:
        locks = PartitionLocks(1)
        environment: Any = SimpleNamespace(clock=lambda: 0, monotonic=lambda: 0)
        opened: Any = SimpleNamespace(locks=locks)
        closing = Closing(environment, opened, MODELS)
        await asyncio.gather(*(closing.close_due(partition(n, steps, windows=3)) for n in range(PARTITIONS)))
        locks.end()

    asyncio.run(story())
    assert steps == dict.fromkeys(range(PARTITIONS), 3 * STEPS)
