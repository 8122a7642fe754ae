"""One worker: the partitions it owns, and what happens to them when the group, the clock or the process moves on.

The agents hand batches in; whoever changes a partition holds its hand (streams/hands.py). All runs in the one event
loop but the waiting for brokers, which is left to threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from features.ledger import INPUT_NAMES, Absorbed
from features.partitioning import Placement
from inference.session import Session
from schemas.errors import Broken, BrokerTrouble, Fenced, FlushFailed, Unavailable, WrongPartitioner
from streams.batch import RecordBatch
from streams.hands import Apart, Hands
from streams.inputs import Consumer, Inputs
from streams.letters import DEFAULT_LIMIT_BYTES
from streams.metrics import Metrics
from streams.opening import Opener
from streams.outbox import SLICE_S
from streams.partition import Partition
from streams.settings import Settings

log = logging.getLogger(__name__)
RESTORED_AT_ONCE = 4  # partitions: each holds what it has read and fetched, up to some 130 MB
SETTLE_S = 60.0
PATIENCE_S = 2.0  # of a batch whose partition is being flushed
TURN_S = 1.0
LEAVING_S = 8.0  # the group waits for us, or whoever sent SIGTERM does
_LEAST_S = 0.1
_REOPEN_MS = 500
_REOPEN_MOST_MS = 30_000


def now_ms() -> int:
    """Read the clock: the one place that does, for everything that asks for the time of day."""
    return time.time_ns() // 1_000_000


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
    letter_limit_bytes: see `topics.letter_limit_bytes`. opener: makes what opens partitions. apart: see `Hands`.
    """

    settings: Settings
    session: Session | None
    partition_count: int
    tp: Callable[[str, int], Any]
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], int] = now_ms
    letter_limit_bytes: int = DEFAULT_LIMIT_BYTES
    opener: Callable[[Worker], Opener] = Opener
    apart: Apart | None = None
    partitions: dict[int, Partition] = field(default_factory=dict)
    assigned: bool = False
    failure: Broken | None = None
    owned: set[int] = field(default_factory=set)
    generation: int = -1
    reopening: dict[int, Reopening] = field(default_factory=dict)
    _restoring: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(RESTORED_AT_ONCE))
    _recovering: str = ""

    def __post_init__(self) -> None:
        """Say which model serves."""
        if self.session is not None:
            self.metrics.provider.labels(self.session.model, self.session.provider).set(1)
        self.money, self.masker = self.settings.money, self.settings.masker
        self._opener = self.opener(self)
        self._hands = Hands(self.partition_count, self.apart)
        self.topics = tuple(self.settings.topic(name) for name in INPUT_NAMES)
        self.inputs = Inputs(self.settings, self.topics, self.metrics, self.tp, self.clock)
        self._placements = tuple(Placement() for _ in self.topics)

    # ------------------------------------------------------------------ batches
    async def take(self, source: int, batch: RecordBatch, consumer: Consumer) -> None:
        """Fold a batch into its partition and close what is due; a batch that is not the next one is asked for anew."""
        if batch.partition in self.partitions and not self.inputs.is_put_off(batch):
            await self._hands.alone(self._take(source, batch, consumer))

    async def _take(self, source: int, batch: RecordBatch, consumer: Consumer) -> None:
        async with self._hands.hold(batch.partition, within_s=PATIENCE_S) as is_held:
            if not is_held:
                self.inputs.put_off(batch, consumer)
                return
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
                await self._flush_due(partition)

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
        """Close all due windows, giving way between them: to other partitions, and to whoever wants this one."""
        partition.advance_watermark(now_ms=self.clock())
        while partition.close_due(now_ms=self.clock()):
            await self._flush_due(partition)
            await asyncio.sleep(0)
            if self._hands.is_wanted(partition.number):
                return

    async def _flush_due(self, partition: Partition) -> None:
        if partition.flush_due(now_ms=self.clock()):
            await self._flush(partition, within_s=SETTLE_S)

    async def _flush(self, partition: Partition, *, within_s: float) -> None:
        """Flush; a thread waits for the brokers, while the partition's hand is held."""
        began_ms = self.clock()
        flushing = partition.begin_flush()
        if flushing is None:
            return
        await self._hands.apart(partial(partition.settle, within_s))
        partition.end_flush(flushing, now_ms=began_ms)
        partition.watermark.missed(self.clock() - began_ms)

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
        log.warning("partition %d is given up, to be opened anew in %d ms: %s", number, wait_ms, error)
        if self.partitions.get(number) is partition:
            self.drop(number)
        self.reopening[number] = Reopening(now, now + wait_ms, _REOPEN_MS)
        self.metrics.reopened.labels(str(number), type(error).__name__).inc()

    async def _reopen(self, number: int, waiting: Reopening, consumer: Consumer) -> None:
        """Open what was given up and is still ours, and read it on from where its state stands."""
        generation = self.generation
        async with self._hands.hold(number):
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
            await self.inputs.read_anew(partition, consumer)

    # ------------------------------------------------------------------ the clock
    async def tick(self, consumer: Consumer) -> None:
        """Do what must happen without events: idle inputs, quiet closes, flushes, source alignment, reopening.

        Each partition has a turn of its own; one that takes long, because its brokers do not answer, keeps no other
        one waiting.
        """
        if self.failure is not None:
            return
        self._hands.forget_turns()
        for number, waiting in list(self.reopening.items()):
            if number not in self.owned or number in self.partitions:
                self.reopening.pop(number, None)
            elif waiting.due_ms <= self.clock() and self._hands.is_free(number):
                self._hands.begin(number, self._reopen(number, waiting, consumer))
        for number, partition in list(self.partitions.items()):
            if self._hands.is_free(number):
                self._hands.begin(number, self._tend(partition, consumer))
        await self._hands.end_turns(within_s=TURN_S)

    async def _tend(self, partition: Partition, consumer: Consumer) -> None:
        async with self._hands.hold(partition.number):
            if self.partitions.get(partition.number) is not partition:
                return
            with self._losing(partition):
                await self.inputs.read_on(partition, consumer)
                self.inputs.look(partition, consumer)
                await self.close_due(partition)
                self.inputs.align(partition, consumer)
                await self._flush_due(partition)

    def missed(self, for_ms: int) -> None:
        """Hear of the time since the last tick, which may be our own sleep and not the silence of an input."""
        for partition in self.partitions.values():
            partition.watermark.missed(for_ms)

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
        self._hurry(set(self.partitions) - kept, by_s=time.monotonic())
        await self._give_up(set(self.partitions) - kept)
        missing = sorted(wanted - set(self.partitions))
        self._recovering = f"restoring partitions {missing}" if missing else ""
        await asyncio.gather(*(self._restore(number, lambda: generation() == now) for number in missing))
        self._recovering = ""
        if generation() != now:
            log.warning("generation %d is over while partitions were restored", now)
            return
        self.inputs.forget()
        self.assigned = bool(wanted)
        log.info("generation %d, partitions %s", now, sorted(self.partitions) or "none")

    async def _restore(self, number: int, is_ours: Callable[[], bool]) -> None:
        """Open one partition without holding the event loop up; where the brokers do not let us, try again later."""
        try:
            async with self._restoring, self._hands.hold(number):
                if is_ours():
                    self.partitions[number] = await asyncio.to_thread(self._opener.open, number)
        except (Fenced, FlushFailed, Unavailable) as error:
            log.warning("partition %d cannot be opened yet: %s", number, error)
            now = self.clock()
            self.reopening[number] = Reopening(now, now + _REOPEN_MS, _REOPEN_MS)

    async def _give_up(self, numbers: Iterable[int], *, within_s: float | None = None) -> None:
        """Drop partitions, each once its hand is free; one whose hand is held for longer than that is left."""
        for number in numbers:
            async with self._hands.hold(number, within_s=within_s) as is_held:
                if is_held and number in self.partitions:
                    self.drop(number)

    def drop(self, number: int) -> None:
        """Forget a partition that is no longer ours; what was not flushed is for its new owner to fold."""
        self.partitions.pop(number).close()
        self.metrics.forget(number)

    async def flush(self) -> None:
        """Flush every partition now: the group or the process is about to change. Not after a failure.

        Brokers that do not answer get `LEAVING_S`: what is not flushed by then is for whoever opens it next to fold.
        """
        if self.failure is not None:
            return
        by_s = time.monotonic() + LEAVING_S
        self._hurry(self.partitions, by_s=by_s)
        flushes = (self._flush_by(partition, by_s) for partition in list(self.partitions.values()))
        for error in await asyncio.gather(*flushes, return_exceptions=True):
            if error is not None:
                raise error

    async def _flush_by(self, partition: Partition, by_s: float) -> None:
        async with self._hands.hold(partition.number, within_s=_left_s(by_s) + 2 * SLICE_S) as is_held:
            if not is_held:
                log.warning("partition %d stays as it was last flushed: it is not let go of", partition.number)
            elif self.partitions.get(partition.number) is partition:
                with self._losing(partition):
                    await self._flush(partition, within_s=_left_s(by_s))

    def hurry(self) -> None:
        """Let flushes that go on end within `LEAVING_S`: the group or the process is about to change."""
        self._hurry(self.partitions, by_s=time.monotonic() + LEAVING_S)

    def _hurry(self, numbers: Iterable[int], *, by_s: float) -> None:
        for number in numbers:
            self.partitions[number].hurry(by_s)

    async def close(self) -> None:
        """Flush and give everything up, also what is still being opened."""
        self._opener.is_over = True
        await self.flush()
        await self._give_up(list(self.partitions), within_s=_LEAST_S)

    def fail(self, error: Broken) -> None:
        """Fold and flush nothing more: the worker is to end with this error."""
        self.failure = self.failure or error
        self._opener.is_over = True
        self._hurry(self.partitions, by_s=time.monotonic())

    def end(self) -> None:
        """Let go of threads, stores and producers, after the event loop: nothing outlives the interpreter."""
        self._hands.end()
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
        stuck = self.inputs.stuck()
        return not stuck, stuck or "live"

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


def _left_s(by_s: float) -> float:
    return max(_LEAST_S, by_s - time.monotonic())
