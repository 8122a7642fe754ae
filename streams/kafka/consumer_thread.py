"""The thread in which Faust runs its aiokafka consumer: how that is made, started, stopped, read from and sought.

See streams/kafka/transport.py for what this is for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import IllegalStateError, KafkaConnectionError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.services import Service

from schemas.errors import BrokerTrouble
from streams.kafka import records, refusals
from streams.kafka.assignor import CoAssignor
from streams.observe.shared_dict import SharedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schemas.errors import Broken
    from streams.kafka.batch import RecordBatch

log = logging.getLogger(__name__)

FETCH_MAX_WAIT_MS: Final = 250  # Faust fixes 1500, by which the last records of a burst would wait
CONNECT_S: Final = 60.0
RETRY_S: Final = 1.0
LEAVE_S: Final = 5.0
WATCH_S: Final = 0.5  # how soon a refusal of the group's coordinator is noticed


class BatchThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust's types are not read
    """The thread that owns the aiokafka consumer; all but `highwater`, `answered_ms` and `is_current` runs in it.

    seeks: by topic-partition, how often it was sought; the event loop reads it.
    """

    def __post_init__(self) -> None:
        """Count seeks from zero."""
        super().__post_init__()
        self.seeks: SharedDict[TP, int] = SharedDict()
        self._answers: dict[TopicPartition, tuple[int, int]] = {}  # the last ones: aiokafka's time, and ours
        self._is_refused = False

    def _create_worker_consumer(self, transport: Any) -> Any:  # noqa: ANN401  # Faust has no types
        consumer = super()._create_worker_consumer(transport)
        records.install(transport.max_batch_bytes)
        consumer._key_deserializer = records.Columns(transport.max_batch_bytes)  # noqa: SLF001  # Faust lets nobody set these
        consumer._group_instance_id = transport.instance  # noqa: SLF001
        assignor = CoAssignor(lambda read: self.refuse(refusals.other_topics(read, group=self.app.conf.id)))
        consumer._partition_assignment_strategy = (assignor,)  # noqa: SLF001
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # noqa: SLF001
        consumer._isolation_level = "read_committed"  # noqa: SLF001  # an aborted order was never placed
        # of each request, apart from the time that Faust gives whole undertakings
        consumer._client._request_timeout_ms = transport.answer_ms  # noqa: SLF001
        return consumer

    def refuse(self, reason: Broken) -> None:
        """End the app, in this consumer's thread: it can never go on as it is. Only the first reason counts."""
        if self._is_refused:
            return
        self._is_refused = True
        if self.transport.refused is not None:
            self.transport.refused(reason)
        else:
            asyncio.run_coroutine_threadsafe(self.app.crash(reason), self.app.loop)

    async def on_start(self) -> None:
        """Connect; waits for brokers that have gone away since the start of this process, up to `CONNECT_S`."""
        deadline_s = time.monotonic() + CONNECT_S
        while not self.should_stop:
            try:
                await super().on_start()
            except KafkaConnectionError as error:
                await self._consumer.stop()
                if time.monotonic() > deadline_s:
                    msg = (
                        f"the worker's consumer did not reach the brokers within {CONNECT_S:g} s ({error}); see "
                        "`skutrend topics check`, SKUTREND_BROKERS and the security settings (SKUTREND_KAFKA_...)"
                    )
                    raise BrokerTrouble(msg) from error
                log.warning("%s; trying again", error)
                await asyncio.sleep(RETRY_S)
            else:
                self._consumer._coordinator.refused = self.refuse  # noqa: SLF001  # aiokafka makes it
                return

    async def on_thread_stop(self) -> None:
        """Leave the group; where brokers do not answer, the session timeout ends the membership."""
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._stop_consumer()
        except TimeoutError:
            log.warning("the brokers do not answer: this member stays in the group until its session times out")

    async def _stop_consumer(self) -> None:
        """Stop aiokafka's consumer; an error raised here would end this thread unseen, and its waiters would hang."""
        try:
            await super().on_thread_stop()
        except KafkaError as error:
            log.warning("this member stays in the group until its session times out: %s", error)
        except asyncio.CancelledError:
            # aiokafka cancels the fetches that wait for a broker which is gone, and then awaits them
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            await _end_fetches(self._consumer)

    @Service.task  # type: ignore[untyped-decorator]  # mode has no types
    async def _watch(self) -> None:
        """Ask aiokafka for what the brokers refuse: Faust does not make the calls in which aiokafka would raise it."""
        while not self.should_stop:
            await self.sleep(WATCH_S)
            reason = None if self._consumer is None else refusals.of_consumer(self._consumer)
            if reason is not None:
                self.refuse(reason)
                return

    async def _fetch_records(
        self,
        consumer: Any,  # noqa: ANN401
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[RecordBatch]]:
        try:
            # no max_records: it would count batches
            fetched = await super()._fetch_records(consumer, active_partitions, timeout=timeout, max_records=None)
        except KafkaError as error:
            reason = refusals.of_error(error, group=consumer._group_id)  # noqa: SLF001
            if reason is None:
                raise
            self.refuse(reason)
            raise reason from error
        generation = self.app.consumer_generation_id
        for tp, batches in fetched.items():
            for batch in batches:
                batch.generation, batch.seeks = generation, self.seeks.get(TP(*tp), 0)
        return fetched  # type: ignore[no-any-return]

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:  # noqa: ANN401
        for tp, offset in partitions.items():
            self._seek_one(consumer, tp, offset)
            self.seeks[tp] = self.seeks.get(tp, 0) + 1

    def _seek_one(self, consumer: Any, tp: TP, offset: int) -> None:  # noqa: ANN401
        try:
            consumer.seek(TopicPartition(*tp), offset)
        except IllegalStateError:
            log.debug("%s is no longer ours, not sought", tp)

    def highwater(self, tp: TP) -> int | None:
        """Return the offset this consumer can read up to, by the latest fetch: short of transactions still open."""
        state = self._state(tp)
        if state is None:
            return None
        stable: int | None = state.lso
        end: int | None = state.highwater
        return end if stable is None or stable < 0 else stable

    def answered_ms(self, tp: TP) -> int | None:
        """See `BatchConsumer.answered_ms`.

        aiokafka notes the time of day of an answer, which may be put back or forward. It only identifies the answer,
        whose time on the monotonic clock is when it is first seen here.
        """
        state = self._state(tp)
        at_ms: int | None = None if state is None else state.timestamp
        if at_ms is None:
            return None
        if tp not in self._answers or self._answers[tp][0] != at_ms:
            self._answers[tp] = at_ms, time.monotonic_ns() // 1_000_000
        return self._answers[tp][1]

    def _state(self, tp: TP) -> Any:  # noqa: ANN401
        """Return aiokafka's state of a partition; None where it is not assigned or there is no consumer.

        Each attribute is read once: the consumer's thread may revoke a partition at any moment. aiokafka's own methods
        would then raise the same error as a programming mistake, such as an AttributeError.
        """
        consumer = self._consumer
        subscription = None if consumer is None else consumer._subscription.subscription  # noqa: SLF001
        assignment = None if subscription is None else subscription.assignment
        return None if assignment is None else assignment.state_value(TopicPartition(*tp))

    async def put_back(self, batches: Iterable[RecordBatch]) -> None:
        """Read these batches again later, unless a seek or a rebalance has come meanwhile."""
        await self.call_thread(self._put_back, self._ensure_consumer(), list(batches))

    async def _put_back(self, consumer: Any, batches: list[RecordBatch]) -> None:  # noqa: ANN401
        for batch in batches:
            if self.is_current(batch):
                self._seek_one(consumer, TP(batch.topic, batch.partition), batch.start)

    def is_current(self, batch: RecordBatch) -> bool:
        """Whether neither a rebalance nor a seek has come since the batch was fetched."""
        seeks = self.seeks.get(TP(batch.topic, batch.partition), 0)
        return batch.generation == self.app.consumer_generation_id and batch.seeks == seeks

    async def resume_committed(self, tps: set[TP]) -> dict[TP, int | None]:
        """Go to the group's committed offsets, or to the beginning where there are none (None in the answer)."""
        found: dict[TP, int | None] = await self.call_thread(self._resume_committed, self._ensure_consumer(), tps)
        return found

    async def _resume_committed(self, consumer: Any, tps: set[TP]) -> dict[TP, int | None]:  # noqa: ANN401
        found: dict[TP, int | None] = {tp: await consumer.committed(TopicPartition(*tp)) for tp in tps}
        await self._seek_wait(consumer, {tp: offset for tp, offset in found.items() if offset is not None})
        unknown = [tp for tp, offset in found.items() if offset is None]
        if unknown:
            await consumer.seek_to_beginning(*(TopicPartition(*tp) for tp in unknown))
            for tp in unknown:
                self.seeks[tp] = self.seeks.get(tp, 0) + 1
        return found

    async def commit_own(self, offsets: Mapping[TP, int]) -> bool:
        """See `BatchConsumer.commit_own`."""
        done: bool = await self.call_thread(self._commit_own, self._ensure_consumer(), offsets)
        return done

    async def _commit_own(self, consumer: Any, offsets: Mapping[TP, int]) -> bool:  # noqa: ANN401
        held = consumer.assignment()
        wanted = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items() if tp in held}
        try:
            if wanted:
                await consumer.commit(wanted)
        except KafkaError as error:
            log.warning("the group's committed offsets stay behind for now: %r", error)
            return False
        return True


async def _end_fetches(consumer: Any) -> None:  # noqa: ANN401
    """Do the rest of what aiokafka does when it is stopped."""
    fetches = list(consumer._fetcher._pending_tasks)  # noqa: SLF001  # aiokafka has no other way
    for fetch in fetches:
        fetch.cancel()
    await asyncio.gather(*fetches, return_exceptions=True)
    await consumer._client.close()  # noqa: SLF001
