"""One lock holder at a time for each partition, over every way of waiting for the lock."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streams.worker.partition_locks import PartitionLocks


def test_a_caller_that_waits_too_long_holds_nothing_and_leaves_the_lock_to_others() -> None:
    async def story() -> None:
        locks = PartitionLocks(1)
        async with locks.hold(0) as first:
            assert first
            assert not locks.is_free(0)
            assert locks.is_free(1)
            async with locks.hold(0, within_s=0.01) as second:
                assert not second
                assert not locks.has_waiters(0), "it has stopped waiting"
        async with locks.hold(0, within_s=0.01) as third:
            assert third
        assert locks.is_free(0)

    asyncio.run(story())


def test_the_holder_sees_waiters_and_they_acquire_the_lock_in_their_order() -> None:
    async def story() -> None:
        locks, order = PartitionLocks(1), []

        async def wants(name: str) -> None:
            async with locks.hold(0):
                order.append(name)

        async with locks.hold(0):
            assert not locks.has_waiters(0)
            waiting = [asyncio.create_task(wants(name)) for name in "ab"]
            await asyncio.sleep(0)
            assert locks.has_waiters(0)
            assert not locks.has_waiters(1)
        await asyncio.gather(*waiting)
        assert order == ["a", "b"]
        assert not locks.has_waiters(0)

    asyncio.run(story())


def test_work_runs_to_its_end_when_its_caller_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        locks, done, go = PartitionLocks(1), [], asyncio.Event()

        async def work() -> None:
            await go.wait()
            done.append(True)
            msg = "too late to tell"
            raise ValueError(msg)

        waiting = asyncio.create_task(locks.run_to_end(work()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not done
        go.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert done
        with pytest.raises(ValueError, match="in time"):
            await locks.run_to_end(fails("in time"))

    asyncio.run(story())
    assert "too late to tell" in caplog.text


async def fails(msg: str) -> None:
    raise ValueError(msg)


def test_a_task_that_takes_long_goes_on_while_the_others_end_and_its_error_is_raised_later() -> None:
    async def story() -> None:
        locks, go = PartitionLocks(2), threading.Event()

        async def slow() -> None:
            await locks.run_blocking(lambda: go.wait(30) and None)
            await fails("slow")

        async def quick() -> None:
            async with locks.hold(1):
                await locks.run_blocking(lambda: None)

        locks.start_task(0, slow())
        locks.start_task(1, quick())
        await locks.wait_tasks(within_s=0.1)
        assert not locks.is_free(0)
        assert locks.is_free(1)
        go.set()
        with pytest.raises(ValueError, match="slow"):
            await locks.wait_tasks(within_s=30)
        assert locks.is_free(0)
        await locks.wait_tasks(within_s=30)

    asyncio.run(story())
