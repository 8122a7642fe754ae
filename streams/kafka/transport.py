"""Faust's transport for `kbatch://`: one Faust event per fetched partition batch instead of one per record.

Group membership, rebalancing, flow control and acks stay Faust's, reading stays aiokafka's. What differs:

* records come as `RecordBatch` (streams/kafka/records.py), stamped with the generation they were fetched in;
* partitions are given out by `CoAssignor`, so that partition p of every topic is with one worker;
* a worker resumes from offsets of its own (`BatchTransport.resume_offsets`), and then also says itself which offsets
  the group should see as committed (`BatchConsumer.commit_own`); acks commit nothing;
* a partition can be paused without losing what had been fetched already (`pause`, `resume`);
* Faust's rule that drops whatever lies below the highest offset it has seen is off: after a seek backwards, and for a
  topic that was deleted and made again, it drops silently. The range of a batch tells duplicate records from new ones.

Three rules are left to the code that folds the batches:

1. Fold a batch only if `consumer.is_current(batch)` and `batch.start` is the partition's own next offset, with no await
   between this check and the end of the fold. A batch that is not current is dropped: what it held will come again.
2. A current batch that starts elsewhere means that records are missing or come twice: drop it and
   `await consumer.seek_wait({tp: expected})`. If `expected` lies outside `await consumer.bounds([tp])`, retention has
   passed it or the topic was made again, and seeking would go round in circles: stop.
3. Whatever takes long in `on_rebalance_complete` must compare `app.consumer_generation_id` again before it acquires
   anything exclusive, and stop when it has moved.

What can never be mended by trying again ends the app through one hook, `BatchTransport.refused`: a right that is
missing, a member that its group refuses, a group that reads other topics (streams/kafka/refusals.py).

Names private to Faust and aiokafka that this uses are checked by tests/unit/kafka/test_transport.py.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka.structs import TopicPartition
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.kafka import clients, decompression, membership, records
from streams.kafka.consumer_thread import BatchThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from schemas.errors import Broken
    from streams.kafka.batch import RecordBatch

    ResumeOffsets = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]

SCHEME: Final = "kbatch"
# while a partition is paused or its agent's queue is full: Faust waits a whole second for the others' records before it
# looks whether the partition may be read again, by when the queue has long been empty
WITHHELD_S: Final = 0.05


class _NoReadOffsets(dict[TP, "int | None"]):
    """Replaces Faust's record of the offsets it has read: it stays empty, so Faust drops nothing."""

    def __missing__(self, _tp: TP) -> None:
        return None

    def __setitem__(self, _tp: TP, _offset: int | None) -> None:
        """Ignore it."""

    def update(self, *_offsets: Any, **_more: Any) -> None:  # noqa: ANN401  # dict's own signature
        """Ignore them."""


class BatchConsumer(driver.Consumer):  # type: ignore[misc]  # Faust's types are not read
    """Faust's consumer over batches; its methods are called in the app's event loop."""

    _thread: BatchThread
    transport: BatchTransport

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # passed on
        """Start with nothing paused."""
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
            timestamp=0.0,  # nobody asks when a record was written; events have a time of their own
            timestamp_type=0,
            headers=None,
            key=None,
            value=record,
            checksum=None,
            tp=tp,
            generation_id=record.generation,
        )

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield what one fetch returned; batches of partitions that were paused meanwhile are fetched again later."""
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
        """Wait for the agents to finish their current batches, with a shortened deadline: partitions are taken away."""
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
        """Commit these next offsets to the group, for lag tools, once they are flushed.

        False when the broker refused it; nothing depends on it.
        """
        return await self._thread.commit_own(offsets)

    def highwater(self, tp: TP) -> int | None:
        """Offset up to which a partition can be read, as of its latest fetch; None if unknown or not ours."""
        return self._thread.highwater(tp)

    def answered_ms(self, tp: TP) -> int | None:
        """When a broker last answered a fetch of a partition, monotonic ms; None if never or not ours."""
        return self._thread.answered_ms(tp)

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
    may take to answer a request before it is taken for lost. shorten_deadline: called before the agents are waited for,
    because partitions are taken away. max_batch_bytes: see `Settings`. refused: called at most once, in the consumer's
    thread, with the reason why this worker can never go on as it is; None ends the app with it.
    """

    Consumer = BatchConsumer
    resume_offsets: ResumeOffsets | None = None
    instance: str | None = None
    answer_ms: int = clients.ANSWER_MS
    max_batch_bytes: int = decompression.DEFAULT_LIMIT_BYTES
    shorten_deadline: Callable[[], None] | None = None
    refused: Callable[[Broken], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # passed on
        """Install our records and group member in aiokafka; the entry point leads here without `register`."""
        records.install()
        membership.install()
        super().__init__(*args, **kwargs)


def register() -> None:
    """Make `kbatch://` known to Faust, also where the package's entry points are not installed."""
    TRANSPORTS.aliases[SCHEME] = f"{__name__}:{BatchTransport.__name__}"
