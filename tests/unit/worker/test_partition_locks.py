"""One hand at a time on each partition, over every way of waiting for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streams.worker.partition_locks import PartitionLocks


def test_whoever_waits_longer_than_it_may_goes_without_and_leaves_the_hand_to_others() -> None:
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


def test_the_holder_knows_that_it_is_waited_for_and_those_who_wait_come_in_their_order() -> None:
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


def test_work_goes_on_to_its_end_when_whoever_waits_for_it_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_turn_that_takes_long_goes_on_while_the_others_end_and_tells_of_its_trouble_later() -> None:
    async def story() -> None:
        locks, go = PartitionLocks(2), threading.Event()

        async def slow() -> None:
            await locks.run_blocking(lambda: go.wait(30) and None)
            await fails("slow")

        async def quick() -> None:
            async with locks.hold(1):
                await locks.run_blocking(lambda: None)

        locks.begin(0, slow())
        locks.begin(1, quick())
        await locks.wait_turns(within_s=0.1)
        assert not locks.is_free(0)
        assert locks.is_free(1)
        go.set()
        with pytest.raises(ValueError, match="slow"):
            await locks.wait_turns(within_s=30)
        assert locks.is_free(0)
        await locks.wait_turns(within_s=30)

    asyncio.run(story())
