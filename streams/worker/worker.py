"""One worker: batches, the clock, the group and the end of the process, each brought to the partitions it concerns.

Everything runs in one event loop, but for calls that block on the brokers, which threads run. Whoever changes a
partition holds its lock (partition_locks.py). The parts, along the way of the data:

* batches.py     folds a batch and seeks where it is not the next one
* closing.py     closes due windows, flushes
* reopening.py   closes partitions whose writes failed, opens them again
* inputs.py      lag, silence, alignment of the inputs
* assignment.py  what the group gives and takes
* leaving.py     the flush before partitions are taken away, by one deadline
* models.py      takes a new bundle over
* probes.py      liveness and readiness
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from streams.worker.assignment import Assignment
from streams.worker.batches import Batches
from streams.worker.closing import Closing
from streams.worker.inputs import Inputs
from streams.worker.leaving import LEAST_S, Leaving
from streams.worker.models import Models, Watched
from streams.worker.open_partitions import OpenPartitions
from streams.worker.opening import Opener
from streams.worker.partition_locks import PartitionLocks, RunBlocking
from streams.worker.probes import Probes
from streams.worker.reopening import Reopener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from schemas.errors import Broken
    from streams.kafka.batch import RecordBatch
    from streams.partition.partition import Partition
    from streams.worker.environment import Environment
    from streams.worker.inputs import Consumer

TICK_WAIT_S: Final = 1.0


class Worker:
    """The partitions of one member of the group.

    environment: what never changes. partitions: those that are open, by number. Its parts are public where a test or
    the simulation looks at them.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        opener: Callable[[Environment], Opener] = Opener,
        run_blocking: RunBlocking | None = None,
        watched: Watched | None = None,
    ) -> None:
        """Own nothing yet. opener: makes what opens partitions. run_blocking: see `PartitionLocks`.

        watched: see `Models`.
        """
        self.environment = environment
        self.locks = PartitionLocks(environment.partition_count, run_blocking)
        self.opener = opener(environment)
        self.inputs = Inputs(environment)
        self.opened = OpenPartitions(environment.metrics, self.locks)
        self.partitions = self.opened.by_number
        self.models = Models(environment, self.opened, watched)
        self.closing = Closing(environment, self.opened, self.models)
        self.reopener = Reopener(environment, self.opened, self.opener, self.inputs)
        self.leaving = Leaving(self.opened, self.closing, self.reopener)
        self.assignment = Assignment(
            environment,
            self.opened,
            opener=self.opener,
            reopener=self.reopener,
            leaving=self.leaving,
            inputs=self.inputs,
        )
        self._batches = Batches(
            environment, self.opened, inputs=self.inputs, closing=self.closing, reopener=self.reopener
        )
        self._probes = Probes(
            self.opened,
            assignment=self.assignment,
            opener=self.opener,
            reopener=self.reopener,
            inputs=self.inputs,
            unusable=self._batches.unusable,
        )
        session = environment.serving.session
        environment.metrics.set_build(provider="none" if session is None else session.provider)

    @property
    def failure(self) -> Broken | None:
        """What ends this worker; None while all is well."""
        return self.opened.failure

    # ------------------------------------------------------------------ batches and the clock
    async def take(self, source: int, batch: RecordBatch, consumer: Consumer) -> None:
        """Fold a batch into its partition, see `Batches.take`."""
        await self._batches.take(source, batch, consumer)

    async def tick(self, consumer: Consumer) -> None:
        """Do what must happen without events: idle inputs, quiet closes, flushes, alignment of inputs, reopening.

        Each partition has a task of its own; one that takes long, because its brokers do not answer, does not delay
        the others.
        """
        if self.failure is not None:
            return
        self.locks.collect_tasks()
        for number in self.reopener.due(self.assignment.owned):
            if self.locks.is_free(number):
                reopening = self.reopener.reopen(number, self.assignment.as_of_now(), consumer)
                self.locks.start_task(number, reopening)
        for number, partition in self.partitions.items():
            if self.locks.is_free(number):
                self.locks.start_task(number, self._tend(partition, consumer))
        await self.locks.wait_tasks(within_s=TICK_WAIT_S)

    async def _tend(self, partition: Partition, consumer: Consumer) -> None:
        async with self.locks.hold(partition.number):
            if not self.opened.is_open(partition):
                return
            with self.reopener.closing_on_failure(partition):
                await self.inputs.read_on(partition, consumer)
                self.inputs.look(partition, consumer)
                await self.closing.close_due(partition)
                self.inputs.align(partition, consumer)
                await self.closing.flush_due(partition)

    def missed(self, for_ms: int) -> None:
        """Take note of the time since the last tick, which may be this worker's own pause and not an input's."""
        for partition in self.partitions.values():
            partition.watermark.missed(for_ms)

    # ------------------------------------------------------------------ the group and the process
    async def assign(self, numbers: Iterable[int], generation: Callable[[], int]) -> None:
        """Own exactly these partition numbers, see `Assignment.assign`."""
        await self.assignment.assign(numbers, generation)

    def shorten_deadline(self) -> float:
        """Let flushes end soon, see `Leaving.shorten_deadline`."""
        return self.leaving.shorten_deadline()

    async def flush(self) -> None:
        """Flush every partition now, see `Leaving.flush`."""
        await self.leaving.flush()

    async def close(self) -> None:
        """Flush and close everything, and end the recoveries that are running."""
        self.opener.is_over = True
        await self.flush()
        await self.opened.close_each(list(self.partitions), within_s=LEAST_S)

    def fail(self, error: Broken) -> None:
        """Fold and flush nothing more: the worker is to end with this error, or an earlier one."""
        self.opener.is_over = True
        self.opened.fail(error)

    def end(self) -> None:
        """Close threads, stores and producers, after the event loop: nothing outlives the interpreter."""
        self.opened.end()

    # ------------------------------------------------------------------ offsets and topics
    def offsets(self, tps: Iterable[Any]) -> dict[Any, int]:
        """Give the offset to resume from for each topic-partition, from our own state: never the group's."""
        return {
            tp: self.partitions[tp.partition].next_offset(tp.topic) for tp in tps if tp.partition in self.partitions
        }

    def flushed_offsets(self) -> dict[Any, int]:
        """Give the offsets of the last flushes, for the group's lag tools; nothing depends on them."""
        return {
            self.environment.tp(topic, number): offset
            for number, partition in self.partitions.items()
            for topic, offset in partition.flushed_offsets.items()
        }

    async def check_topics(self) -> None:
        """See whether the topics are those that our offsets are of (`StateMismatch` where one was made again)."""
        ids = await asyncio.to_thread(self.opener.topic_ids)
        for partition in list(self.partitions.values()):
            # ids that are learnt belong to the next flush, not half to this; whoever is busy is checked the next time
            async with self.locks.hold(partition.number, within_s=TICK_WAIT_S) as is_held:
                if is_held and self.opened.is_open(partition):
                    partition.check_topics(ids)

    # ------------------------------------------------------------------ probes
    def live(self) -> tuple[bool, str]:
        """Whether it makes progress, see `Probes.live`."""
        return self._probes.live()

    def ready(self) -> tuple[bool, str]:
        """Whether it owns partitions and has restored them, see `Probes.ready`."""
        return self._probes.ready()
