"""Faust's transport for `kbatch://`: one Faust event per fetched partition batch instead of one per record.

Group membership, rebalancing, flow control and acks stay Faust's, reading stays aiokafka's. What differs:

* records come as `RecordBatch` (streams/kafka/records.py), stamped with the generation they were fetched in;
* partitions are given out by `CoAssignor`, so that partition p of every topic is with one worker;
* a worker resumes from offsets of its own (`BatchTransport.resume_offsets`), and then also says itself which offsets
  the group should see as committed (`BatchConsumer.commit_own`); acks commit nothing;
* a partition can be paused without losing what had been fetched already (`pause`, `resume`);
* Faust's rule that drops whatever lies below the highest offset it has seen is off: after a seek backwards, and for a
  topic that was deleted and made again, it drops silently. The range of a batch tells a duplicate from news.

Three rules are left to whoever folds the batches:

1. Fold a batch only if `consumer.is_current(batch)` and `batch.start` is the partition's own next offset, with no await
   between this check and the end of the fold. A batch that is not current is dropped: what it held will come again.
2. A current batch that starts elsewhere means that records are missing or come twice: drop it and
   `await consumer.seek_wait({tp: expected})`. If `expected` lies outside `await consumer.bounds([tp])`, retention has
   passed it or the topic was made again, and seeking would go round in circles: stop.
3. Whatever takes long while a rebalance is settled (`on_rebalance_complete`) must look at `app.consumer_generation_id`
   again before it takes hold of anything exclusive, and give up when it has moved.

Names private to Faust and aiokafka that this leans on are held by tests/unit/kafka/test_transport.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import IllegalStateError, KafkaConnectionError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.kafka import clients, records
from streams.kafka.assignor import CoAssignor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from streams.kafka.batch import RecordBatch

    ResumeOffsets = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]

log = logging.getLogger(__name__)

SCHEME: Final = "kbatch"
FETCH_MAX_WAIT_MS: Final = 250  # Faust fixes 1500, by which the last records of a burst would wait
ARRIVE_S: Final = 60.0
RETRY_S: Final = 1.0
LEAVE_S: Final = 5.0
# while a partition is paused or its agent's queue is full: Faust waits a whole second for the others' records before it
# looks whether the partition may be read again, by when the queue has long been empty
WITHHELD_S: Final = 0.05


class _NoReadOffsets(dict[TP, "int | None"]):
    """Stands in for Faust's memory of what it has read: knows nothing, so Faust drops nothing."""

    def __missing__(self, _tp: TP) -> None:
        return None

    def __setitem__(self, _tp: TP, _offset: int | None) -> None:
        """Forget it."""

    def update(self, *_offsets: Any, **_more: Any) -> None:  # noqa: ANN401  # dict's own signature
        """Forget them."""


class BatchThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust's types are not read
    """The thread that owns the aiokafka consumer; all but `highwater` and `heard_ms` runs in it."""

    def __post_init__(self) -> None:
        """Count seeks from zero."""
        super().__post_init__()
        self.seeks: Counter[TP] = Counter()

    def _create_worker_consumer(self, transport: BatchTransport) -> Any:  # noqa: ANN401
        consumer = super()._create_worker_consumer(transport)
        consumer._key_deserializer = records.COLUMNS  # noqa: SLF001  # Faust lets nobody set these
        consumer._group_instance_id = transport.instance  # noqa: SLF001
        consumer._partition_assignment_strategy = (CoAssignor(),)  # noqa: SLF001
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # noqa: SLF001
        consumer._isolation_level = "read_committed"  # noqa: SLF001  # an aborted order was never placed
        # of each request, apart from the time that Faust gives whole undertakings
        consumer._client._request_timeout_ms = transport.answer_ms  # noqa: SLF001
        return consumer

    async def on_start(self) -> None:
        """Connect; brokers that went away a moment ago, for we have just talked to them, are waited for."""
        deadline_s = time.monotonic() + ARRIVE_S
        while not self.should_stop:
            try:
                await super().on_start()
            except KafkaConnectionError as error:
                await self._consumer.stop()
                if time.monotonic() > deadline_s:
                    raise
                log.warning("%s; trying again", error)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def on_thread_stop(self) -> None:
        """Leave the group; brokers that do not answer will notice by the session timeout that we are gone."""
        try:
            async with asyncio.timeout(LEAVE_S):
                await super().on_thread_stop()
        except TimeoutError:
            log.warning("the brokers do not answer: the group was not told that we leave")

    async def _fetch_records(
        self,
        consumer: Any,  # noqa: ANN401
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[RecordBatch]]:
        # no max_records: it would count batches
        fetched = await super()._fetch_records(consumer, active_partitions, timeout=timeout, max_records=None)
        generation = self.app.consumer_generation_id
        for tp, batches in fetched.items():
            for batch in batches:
                batch.generation, batch.seeks = generation, self.seeks[TP(*tp)]
        return fetched  # type: ignore[no-any-return]

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:  # noqa: ANN401
        for tp, offset in partitions.items():
            self._seek_one(consumer, tp, offset)
            self.seeks[tp] += 1

    def _seek_one(self, consumer: Any, tp: TP, offset: int) -> None:  # noqa: ANN401
        try:
            consumer.seek(TopicPartition(*tp), offset)
        except IllegalStateError:
            log.debug("%s is no longer ours, not sought", tp)

    def highwater(self, tp: TP) -> int | None:
        """Return the offset this consumer can read up to, by the latest fetch: short of transactions still open."""
        consumer = self._ensure_consumer()
        stable: int | None = consumer.last_stable_offset(tp)
        end: int | None = consumer.highwater(tp)
        return end if stable is None or stable < 0 else stable

    def heard_ms(self, tp: TP) -> int | None:
        """See `BatchConsumer.heard_ms`."""
        at_ms: int | None = self._ensure_consumer().last_poll_timestamp(tp)
        return at_ms

    async def put_back(self, batches: Iterable[RecordBatch]) -> None:
        """Read these batches again later; unless a seek or a rebalance has overtaken them."""
        await self.call_thread(self._put_back, self._ensure_consumer(), list(batches))

    async def _put_back(self, consumer: Any, batches: list[RecordBatch]) -> None:  # noqa: ANN401
        for batch in batches:
            if self.is_current(batch):
                self._seek_one(consumer, TP(batch.topic, batch.partition), batch.start)

    def is_current(self, batch: RecordBatch) -> bool:
        """Whether neither a rebalance nor a seek has come since the batch was fetched."""
        seeks = self.seeks[TP(batch.topic, batch.partition)]
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
            self.seeks.update(unknown)
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


class BatchConsumer(driver.Consumer):  # type: ignore[misc]  # Faust's types are not read
    """Faust's consumer over batches; its methods are called in the app's event loop."""

    _thread: BatchThread
    transport: BatchTransport

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # handed through
        """Begin with nothing paused."""
        super().__init__(*args, **kwargs)
        self._read_offset = _NoReadOffsets()
        self._held: set[TP] = set()

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: RecordBatch) -> ConsumerMessage:
        return ConsumerMessage(
            topic=record.topic,
            partition=record.partition,
            offset=record.next - 1,
            timestamp=record.timestamps[-1] / 1000 if record.timestamps else 0.0,
            timestamp_type=0,
            headers=None,
            key=None,
            value=record,
            checksum=None,
            tp=tp,
            generation_id=record.generation,
        )

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield what one fetch brought; what belongs to partitions paused meanwhile goes back to be read again."""
        if self._held or self._buffered_partitions:
            timeout = min(timeout, WITHHELD_S)
            if not self._get_active_partitions():
                await asyncio.sleep(timeout)
                return
        fetched, _ = await self._wait_next_records(timeout)
        back: dict[TP, RecordBatch] = {}
        for aiokafka_tp, batches in (fetched or {}).items():
            tp = TP(*aiokafka_tp)
            for batch in batches:
                if self.should_stop or not self.flow_active:
                    return  # a rebalance is on, after which every partition is sought anew
                if tp in back or not self.is_current(batch):
                    continue
                if tp in self._paused_partitions:
                    back[tp] = batch
                else:
                    yield tp, self._to_message(tp, batch)
        if back:
            await self._thread.put_back(back.values())

    async def wait_empty(self) -> None:
        """Wait for the agents to finish the batches they have in hand, which are to hurry: partitions are to go."""
        if self.transport.shorten_deadline is not None:
            self.transport.shorten_deadline()
        await super().wait_empty()

    def is_current(self, batch: RecordBatch) -> bool:
        """Whether a batch may be folded: neither a rebalance nor a seek has come since it was fetched."""
        return self._thread.is_current(batch)

    def pause(self, tps: Iterable[TP]) -> None:
        """Stop delivering from partitions until `resume`, or until a rebalance, which forgets all pauses.

        Batches already in an agent's queue still arrive; nothing is lost. Partitions that are not ours are ignored.
        Pauses set in `on_rebalance_complete` hold.
        """
        wanted = {TP(*tp) for tp in tps} & self.assignment()
        self._held |= wanted
        self.pause_partitions(wanted)

    def resume(self, tps: Iterable[TP]) -> None:
        """Undo `pause`."""
        wanted = {TP(*tp) for tp in tps} & self._held
        self._held -= wanted
        self.resume_partitions(wanted)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume what Faust paused, but nothing that `pause` holds or whose agent has a full queue."""
        wanted = {TP(*tp) for tp in tps} - self._held
        self._paused_partitions.difference_update(wanted)
        self._get_active_partitions().update(wanted - self._buffered_partitions)

    def on_buffer_drop(self, tp: TP) -> None:
        """Read a partition again whose agent has caught up, unless `pause` holds it."""
        if tp in self._held:
            self._buffered_partitions.discard(tp)
        else:
            super().on_buffer_drop(tp)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget pauses and full queues: a rebalance takes every partition away and empties every queue."""
        self._held.clear()
        self._buffered_partitions.clear()
        await super().on_partitions_revoked(revoked)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Deliver these partitions from these offsets on; batches fetched before stop being current.

        Partitions that are no longer ours are left alone.
        """
        await self._thread.seek_wait(partitions)

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        """Go to the worker's own offsets, and to the group's committed ones where it has none. Asked by Faust."""
        tps = {TP(*tp) for tp in self.assignment()}
        hook = self.transport.resume_offsets
        own = {TP(*tp): offset for tp, offset in (await hook(tps)).items() if tp in tps} if hook else {}
        found = await self._thread.resume_committed(tps - own.keys())
        await self.seek_wait(own)
        return {**found, **own}

    async def commit_own(self, offsets: Mapping[TP, int]) -> bool:
        """Tell the group how far this worker has come (next offsets), for lag tools; once they are safely flushed.

        False when the broker would not have it; nothing depends on it.
        """
        return await self._thread.commit_own(offsets)

    def highwater(self, tp: TP) -> int | None:
        """Offset up to which a partition can be read, as of its latest fetch; None if unknown or not ours."""
        return self._of_ours(self._thread.highwater, tp)

    def heard_ms(self, tp: TP) -> int | None:
        """When a broker last answered what there is of a partition, epoch ms; None if never or not ours."""
        return self._of_ours(self._thread.heard_ms, tp)

    def _of_ours(self, asked: Callable[[TopicPartition], int | None], tp: TP) -> int | None:
        try:
            return asked(TopicPartition(*tp))
        except (ConsumerNotStarted, IllegalStateError, AssertionError, AttributeError, KeyError):
            return None  # not ours, or taken away by the other thread while we looked

    async def bounds(self, tps: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        """First kept offset and the one up to which a partition can be read, as the broker says now."""
        wanted = [TopicPartition(*tp) for tp in tps]
        first = await self._thread.earliest_offsets(*wanted)
        end = await self._thread.highwaters(*wanted)
        return {TP(*tp): (first[tp], end[tp]) for tp in wanted}

    def _new_offset(self, tp: TP) -> int | None:
        """Offset to commit by acks: right as long as one agent acks a partition's batches in order."""
        acked = self._acked[tp]
        last = max(acked, default=None)
        acked.clear()
        self._acked_index[tp].clear()
        return None if last is None or self.transport.resume_offsets else last + 1

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do not judge slowness by commits and by paused partitions, as Faust would; the worker's probes do."""


class BatchTransport(driver.Transport):  # type: ignore[misc]  # Faust's types are not read
    """What `kbatch://host:port` names.

    resume_offsets: awaited at the end of every rebalance (within `broker_request_timeout`) with all partitions this
    worker holds; returns the next offset of each for which it has one of its own. Set it before the app starts.
    instance: name of a static member of the group, unique in it; None for a dynamic one. answer_ms: how long a broker
    may take to answer a request before it is taken for lost. hurry: called when partitions are to go and the agents are
    waited for.
    """

    Consumer = BatchConsumer
    resume_offsets: ResumeOffsets | None = None
    instance: str | None = None
    answer_ms: int = clients.ANSWER_MS
    shorten_deadline: Callable[[], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # handed through
        """Teach aiokafka about columns; `kbatch://` may have come through the entry point, without `register`."""
        records.install()
        super().__init__(*args, **kwargs)


def register() -> None:
    """Make `kbatch://` known to Faust, also where the package's entry points are not installed."""
    TRANSPORTS.aliases[SCHEME] = f"{__name__}:{BatchTransport.__name__}"
