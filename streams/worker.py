"""One worker: the partitions it owns, and what happens to them when the group, the clock or the process moves on.

The agents hand batches in; everything that touches a partition runs in the one event loop, without an await between
looking at a partition and changing it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from features.ledger import INPUT_NAMES, Absorbed
from features.partitioning import Placement
from inference.session import Session
from schemas.errors import Broken, BrokerTrouble, Fenced, FlushFailed, Unavailable, WrongPartitioner
from streams.batch import RecordBatch
from streams.letters import DEFAULT_LIMIT_BYTES
from streams.metrics import Metrics
from streams.opening import Opener
from streams.partition import Partition
from streams.settings import Settings

log = logging.getLogger(__name__)
_REOPEN_MS = 500
_REOPEN_MOST_MS = 30_000
_DEAF_MS = 5_000  # an answer comes every 250 ms


class Consumer(Protocol):
    """What the worker asks of the transport's consumer (streams.transport.BatchConsumer)."""

    def is_current(self, batch: RecordBatch) -> bool:
        """Whether the batch was fetched in the present generation and since the last seek."""

    def highwater(self, tp: Any) -> int | None:  # noqa: ANN401 - faust's TP
        """Offset after the partition's last record, None while unknown."""

    def heard_ms(self, tp: Any) -> int | None:  # noqa: ANN401 - faust's TP
        """When a broker last answered what there is of the partition, epoch ms; None if never."""

    def pause(self, tps: Iterable[Any]) -> None:
        """Stop fetching, losing nothing."""

    def resume(self, tps: Iterable[Any]) -> None:
        """Fetch again."""

    async def seek_wait(self, offsets: Mapping[Any, int]) -> None:
        """Read on from these offsets."""

    async def bounds(self, tps: Iterable[Any]) -> dict[Any, tuple[int, int]]:
        """First kept offset and the one after the last, as the broker says now."""


def now_ms() -> int:
    """Read the clock: the one place that does, for everything that asks for the time of day."""
    return time.time_ns() // 1_000_000


@dataclass
class Progress:
    """When a partition's input last moved, to tell idle from stuck."""

    offset: int = -1
    moved_ms: int = 0


@dataclass
class Reopening:
    """A partition that is ours but not open: when it was lost, and when the next try is due; epoch ms."""

    lost_ms: int
    due_ms: int
    wait_ms: int


@dataclass
class Worker:
    """Partitions by number, and the rules of their common life.

    partition_count: of the inputs. tp: makes a transport's topic-partition of a topic and a number. clock: epoch ms.
    letter_limit_bytes: see `topics.letter_limit_bytes`. opener: makes what opens partitions.
    """

    settings: Settings
    session: Session | None
    partition_count: int
    tp: Callable[[str, int], Any]
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], int] = now_ms
    letter_limit_bytes: int = DEFAULT_LIMIT_BYTES
    opener: Callable[[Worker], Opener] = Opener
    partitions: dict[int, Partition] = field(default_factory=dict)
    paused: set[Any] = field(default_factory=set)
    assigned: bool = False
    failure: Broken | None = None
    owned: set[int] = field(default_factory=set)
    generation: int = -1
    reopening: dict[int, Reopening] = field(default_factory=dict)
    # by partition: one opener at a time, or we fence ourselves
    _opening: defaultdict[int, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _recovering: str = ""
    _progress: dict[tuple[int, int], Progress] = field(default_factory=dict)
    _lags: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Say which model serves."""
        if self.session is not None:
            self.metrics.provider.labels(self.session.model, self.session.provider).set(1)
        self._opener = self.opener(self)
        self.topics = tuple(self.settings.topic(name) for name in INPUT_NAMES)
        self._placements = tuple(Placement() for _ in self.topics)

    # ------------------------------------------------------------------ batches
    async def take(self, source: int, batch: RecordBatch, consumer: Consumer) -> None:
        """Fold a batch into its partition and close what is due; a batch that is not the next one is asked for anew."""
        partition = self.partitions.get(batch.partition)
        if partition is None or self.failure is not None or not consumer.is_current(batch):
            return
        expected = partition.next_offset(batch.topic)
        if batch.start != expected and not (batch.start > expected == 0):
            await self._go_back(partition, batch, consumer)
            return
        with self._losing(partition):
            if len(batch) or batch.next != expected:
                self._look_at_placement(source, partition.absorb(source, batch, now_ms=self.clock()))
            await self.close_due(partition)
            if self.partitions.get(partition.number) is partition:  # it may have been taken away in between
                self._flush_due(partition)

    def _look_at_placement(self, source: int, outcome: Absorbed) -> None:
        """Stop before a whole topic is buried: nothing of this batch is flushed, so that it comes again."""
        placement, wrong = self._placements[source], outcome.misplaced
        placement.note(seen=outcome.placed + wrong, misplaced=wrong)
        if placement.is_beyond(self.settings.misplaced_share):
            msg = (
                f"{placement.misplaced:,} of the latest {placement.seen:,} records of topic {self.topics[source]} lie "
                "on partitions where their SKU does not belong: let its producer partition by murmur2 of the SKU "
                "(librdkafka: partitioner=murmur2_random); then let the topic be written anew, or set "
                "SKUTREND_MISPLACED_SHARE=1 once and send the dead letters again with `skutrend dead-letters replay`"
            )
            raise WrongPartitioner(msg)

    async def _go_back(self, partition: Partition, batch: RecordBatch, consumer: Consumer) -> None:
        """Read on where the partition stands; where that is no longer kept, do as the settings say."""
        topic, tp = batch.topic, self.tp(batch.topic, batch.partition)
        first, end = (await consumer.bounds([tp]))[tp]
        expected = partition.next_offset(topic)
        log.warning("%s[%d] gave offset %d, expected %d: seeking", topic, batch.partition, batch.start, expected)
        if not first <= expected <= end:
            partition.skip(topic, self._instead(f"{topic}[{batch.partition}]", expected, first, end))
        await consumer.seek_wait({tp: partition.next_offset(topic)})

    def _instead(self, where: str, expected: int, first: int, end: int) -> int:
        """Where to go on when our own offset is not to be had (`BrokerTrouble` where the settings forbid it)."""
        if expected > end:
            msg = (
                f"{where} ends at offset {end}, the state has absorbed it up to {expected}: the topic was made again; "
                "start with a new SKUTREND_GROUP, or give the topic its records back"
            )
            raise BrokerTrouble(msg)
        if self.settings.lost_offsets == "fail":
            msg = (
                f"{where} begins at offset {first}, {first - expected} records after {expected} were deleted unread; "
                "raise retention.ms, and set SKUTREND_LOST_OFFSETS=earliest (or latest) to go on without them"
            )
            raise BrokerTrouble(msg)
        there = first if self.settings.lost_offsets == "earliest" else end
        log.error(
            "%s: %d records deleted unread, going on at %d (SKUTREND_LOST_OFFSETS)", where, first - expected, there
        )
        return there

    async def close_due(self, partition: Partition) -> None:
        """Close all due windows, giving way between them."""
        partition.advance_watermark(now_ms=self.clock())
        while self.partitions.get(partition.number) is partition and partition.close_due(now_ms=self.clock()):
            self._flush_due(partition)
            await asyncio.sleep(0)

    def _flush_due(self, partition: Partition) -> None:
        if partition.flush_due(now_ms=self.clock()):
            partition.flush(now_ms=self.clock())

    # ------------------------------------------------------------------ trouble
    @contextmanager
    def _losing(self, partition: Partition) -> Iterator[None]:
        """Give a partition up whose writes failed: what they left is settled by opening it anew from the changelog."""
        try:
            yield
        except (Fenced, FlushFailed) as error:
            if partition.changelog is None:
                raise
            self._lose(partition, error)

    def _lose(self, partition: Partition, error: Fenced | FlushFailed) -> None:
        number, now = partition.number, self.clock()
        # a fenced worker waits until it must have heard that it is no longer in the group, or the two would take turns
        wait_ms = self.settings.session_timeout_ms if isinstance(error, Fenced) else _REOPEN_MS
        log.warning("partition %d is given up and opened anew in %d ms: %s", number, wait_ms, error)
        if self.partitions.get(number) is partition:
            self.drop(number)
        self.reopening[number] = Reopening(now, now + wait_ms, _REOPEN_MS)
        self.metrics.reopened.labels(str(number), type(error).__name__).inc()

    async def reopen_due(self, consumer: Consumer) -> None:
        """Open what was given up and is still ours, and read it on from where its state stands."""
        for number, waiting in list(self.reopening.items()):
            if number not in self.owned or number in self.partitions:
                self.reopening.pop(number, None)
            elif waiting.due_ms <= self.clock():
                await self._reopen(number, waiting, consumer)

    async def _reopen(self, number: int, waiting: Reopening, consumer: Consumer) -> None:
        generation = self.generation
        async with self._opening[number]:
            if generation != self.generation:
                return
            try:
                partition = await asyncio.to_thread(self._opener.open, number)
            except (Fenced, FlushFailed, BrokerTrouble) as error:
                waiting.wait_ms = min(2 * waiting.wait_ms, _REOPEN_MOST_MS)
                waiting.due_ms = self.clock() + waiting.wait_ms
                log.warning("partition %d cannot be opened yet, next try in %d ms: %s", number, waiting.wait_ms, error)
                return
            if generation != self.generation:
                partition.close()
                return
            self.partitions[number] = partition
            self.reopening.pop(number, None)
        await consumer.seek_wait({self.tp(topic, number): partition.next_offset(topic) for topic in self.topics})

    # ------------------------------------------------------------------ the clock
    async def tick(self, consumer: Consumer) -> None:
        """Do what must happen without events: idle inputs, quiet closes, flushes, source alignment."""
        if self.failure is not None:
            return
        await self.reopen_due(consumer)
        for partition in list(self.partitions.values()):
            with self._losing(partition):
                self._look_at_inputs(partition, consumer)
                await self.close_due(partition)
                if self.partitions.get(partition.number) is partition:
                    self._align(partition, consumer)
                    self._flush_due(partition)

    def listen_anew(self) -> None:
        """Judge no input silent by what was before: we slept, and nobody listened."""
        for partition in self.partitions.values():
            partition.watermark.listen_anew()

    def _look_at_inputs(self, partition: Partition, consumer: Consumer) -> None:
        now = self.clock()
        for source, topic in enumerate(self.topics):
            tp = self.tp(topic, partition.number)
            offset, end = partition.next_offset(topic), consumer.highwater(tp)
            could_speak = end is not None and end <= offset and tp not in self.paused and self._hears(tp, consumer)
            partition.watermark.quiet(source, now_ms=now, could_speak=could_speak)
            lag = max(0, end - offset) if end is not None else 0
            self.metrics.lag.labels(topic, str(partition.number)).set(lag)
            self._lags[partition.number, source] = lag
            progress = self._progress.setdefault((partition.number, source), Progress(offset, now))
            if progress.offset != offset or lag == 0 or tp in self.paused:
                progress.offset, progress.moved_ms = offset, now

    def _hears(self, tp: Any, consumer: Consumer) -> bool:  # noqa: ANN401 - faust's TP
        """Whether a broker answers for a partition: else its silence is the broker's, not the input's."""
        heard_ms = consumer.heard_ms(tp)
        return heard_ms is not None and self.clock() - heard_ms <= min(_DEAF_MS, self.settings.idle_timeout_ms // 2)

    def _align(self, partition: Partition, consumer: Consumer) -> None:
        """Pause an input that runs far ahead of the others in event time, resume it when they have caught up."""
        now, limit_ms = self.clock(), self.settings.alignment_ms
        for source, topic in enumerate(self.topics):
            tp = self.tp(topic, partition.number)
            lead_ms = partition.watermark.lead_ms(source, now_ms=now)
            if lead_ms > limit_ms and tp not in self.paused and self._others_lag(partition.number, source):
                self.paused.add(tp)
                consumer.pause([tp])
            elif tp in self.paused and (lead_ms <= limit_ms // 2 or not self._others_lag(partition.number, source)):
                self.paused.discard(tp)
                consumer.resume([tp])
            self.metrics.paused.labels(topic, str(partition.number)).set(tp in self.paused)

    def _others_lag(self, number: int, source: int) -> bool:
        """Whether another input still has records to read: waiting for one that has none would be for ever."""
        return any(self._lags.get((number, other), 0) > 0 for other in range(len(self.topics)) if other != source)

    # ------------------------------------------------------------------ the group
    async def assign(self, numbers: Iterable[int], generation: Callable[[], int]) -> None:
        """Own exactly these partition numbers: keep, give up, restore.

        generation: asks for the group's at this moment. When it moves while partitions are restored the rest is left
        undone: another assignment follows. A partition is kept only from one generation to the next: whoever missed
        one may have missed another owner as well.
        """
        wanted, now = set(numbers), generation()
        if max(wanted, default=0) >= self.partition_count:
            msg = (
                f"an input has got partitions beyond the {self.partition_count} it had: keys have moved; make the "
                "others alike, start with a new SKUTREND_GROUP, and let the inputs be read again"
            )
            raise BrokerTrouble(msg)
        kept = wanted if now == self.generation + 1 else set()
        self.owned, self.generation = wanted, now
        self.assigned = False
        self.reopening.clear()
        for number in set(self.partitions) - kept:
            self.drop(number)
        missing = sorted(wanted - set(self.partitions))
        self._recovering = f"restoring partitions {missing}" if missing else ""
        await asyncio.gather(*(self._restore(number, lambda: generation() == now) for number in missing))
        self._recovering = ""
        if generation() != now:
            log.warning("generation %d is over while partitions were restored", now)
            return
        self.paused.clear()
        self._progress.clear()
        self._lags.clear()
        self.assigned = bool(wanted)
        log.info("generation %d, partitions %s", now, sorted(self.partitions) or "none")

    async def _restore(self, number: int, is_ours: Callable[[], bool]) -> None:
        """Open one partition without holding the event loop up; where the brokers do not let us, try again later."""
        try:
            async with self._opening[number]:
                if is_ours():
                    self.partitions[number] = await asyncio.to_thread(self._opener.open, number)
        except (Fenced, FlushFailed, Unavailable) as error:
            log.warning("partition %d cannot be opened yet: %s", number, error)
            now = self.clock()
            self.reopening[number] = Reopening(now, now + _REOPEN_MS, _REOPEN_MS)

    def drop(self, number: int) -> None:
        """Forget a partition that is no longer ours; what was not flushed is for its new owner to fold."""
        self.partitions.pop(number).close()
        self.metrics.forget(number)

    def flush(self) -> None:
        """Flush every partition now: the group or the process is about to change. Not after a failure."""
        if self.failure is not None:
            return
        for partition in list(self.partitions.values()):
            with self._losing(partition):
                partition.flush(now_ms=self.clock())

    def close(self) -> None:
        """Flush and give everything up, also what is still being opened."""
        self._opener.is_over = True
        self.flush()
        for number in list(self.partitions):
            self.drop(number)

    def offsets(self, tps: Iterable[Any]) -> dict[Any, int]:
        """Give the offset to resume from for each topic-partition, from our own state: never the group's."""
        return {
            tp: self.partitions[tp.partition].next_offset(tp.topic) for tp in tps if tp.partition in self.partitions
        }

    def flushed_offsets(self) -> dict[Any, int]:
        """Give the offsets of the last flushes, for the group's lag tools; nothing depends on them."""
        return {
            self.tp(topic, number): offset
            for number, partition in self.partitions.items()
            for topic, offset in partition.flushed_offsets.items()
        }

    # ------------------------------------------------------------------ probes
    def live(self) -> tuple[bool, str]:
        """Whether it gets on: lag without progress for long is stuck, lag zero is idle."""
        now = self.clock()
        for number, waiting in list(self.reopening.items()):
            if now - waiting.lost_ms > self.settings.stalled_after_ms:
                return False, f"partition {number} cannot be opened since {(now - waiting.lost_ms) // 1000} s"
        for (number, source), progress in list(self._progress.items()):
            still_ms = now - progress.moved_ms
            if still_ms > self.settings.stalled_after_ms:
                return (
                    False,
                    f"{self.topics[source]}[{number}] stands at offset {progress.offset} since {still_ms // 1000} s",
                )
        return True, "live"

    def ready(self) -> tuple[bool, str]:
        """Whether it owns partitions and has restored them."""
        if self._recovering:
            return False, "; ".join(map(str, self._opener.progress.values())) or self._recovering
        if self.reopening:
            return False, f"partitions {sorted(self.reopening)} are about to be opened anew"
        if not self.assigned:
            return False, "no partitions assigned yet"
        return True, f"partitions {sorted(self.partitions)}"


def input_partitions(counts: Mapping[str, int]) -> int:
    """Give the one partition count of the inputs; different ones are a `BrokerTrouble`."""
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{topic}: {count}" for topic, count in sorted(counts.items()))
        msg = f"the input topics must have the same number of partitions, found {found}; see `skutrend topics check`"
        raise BrokerTrouble(msg)
    return next(iter(counts.values()))
