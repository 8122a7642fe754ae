"""One worker: the partitions it owns, and what happens to them when the group, the clock or the process moves on.

The agents hand batches in; everything that touches a partition runs in the one event loop, without an await between
looking at a partition and changing it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from features.ledger import INPUT_NAMES
from inference.session import Session
from schemas.errors import Broken, BrokerTrouble, StateMismatch
from streams.batch import RecordBatch
from streams.letters import DEFAULT_LIMIT_BYTES
from streams.metrics import Metrics
from streams.outbox import Outbox
from streams.partition import Geometry, Partition
from streams.settings import Settings
from streams.store import Store

log = logging.getLogger(__name__)
_LOCK_PATIENCE_S = 10.0
_LOCK_RETRY_S = 0.25


class Consumer(Protocol):
    """What the worker asks of the transport's consumer (streams.transport.BatchConsumer)."""

    def is_current(self, batch: RecordBatch) -> bool:
        """Whether the batch was fetched in the present generation and since the last seek."""

    def highwater(self, tp: Any) -> int | None:  # noqa: ANN401 - faust's TP
        """Offset after the partition's last record, None while unknown."""

    def pause(self, tps: Iterable[Any]) -> None:
        """Stop fetching, losing nothing."""

    def resume(self, tps: Iterable[Any]) -> None:
        """Fetch again."""

    async def seek_wait(self, offsets: Mapping[Any, int]) -> None:
        """Read on from these offsets."""


def now_ms() -> int:
    """Read the clock: the one place that does, for everything that asks for the time of day."""
    return time.time_ns() // 1_000_000


@dataclass
class Progress:
    """When a partition's input last moved, to tell idle from stuck."""

    offset: int = -1
    moved_ms: int = 0


@dataclass
class Worker:
    """Partitions by number, and the rules of their common life.

    partition_count: of the inputs. tp: makes a transport's topic-partition of a topic and a number. clock: epoch ms.
    letter_limit_bytes: see `topics.letter_limit_bytes`.
    """

    settings: Settings
    session: Session | None
    partition_count: int
    tp: Callable[[str, int], Any]
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], int] = now_ms
    letter_limit_bytes: int = DEFAULT_LIMIT_BYTES
    partitions: dict[int, Partition] = field(default_factory=dict)
    paused: set[Any] = field(default_factory=set)
    assigned: bool = False
    failure: Broken | None = None
    _progress: dict[tuple[int, int], Progress] = field(default_factory=dict)
    _lags: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Say which model serves."""
        if self.session is not None:
            self.metrics.provider.labels(self.session.model, self.session.provider).set(1)
        self.topics = tuple(self.settings.topic(name) for name in INPUT_NAMES)

    # ------------------------------------------------------------------ batches
    async def take(self, source: int, batch: RecordBatch, consumer: Consumer) -> None:
        """Fold a batch into its partition and close what is due; a batch that is not the next one is asked for anew."""
        partition = self.partitions.get(batch.partition)
        if partition is None or not consumer.is_current(batch):
            return
        expected = partition.next_offset(batch.topic)
        if batch.start != expected and not (batch.start > expected == 0):
            log.warning(
                "%s[%d] gave offset %d, expected %d: seeking", batch.topic, batch.partition, batch.start, expected
            )
            await consumer.seek_wait({self.tp(batch.topic, batch.partition): expected})
            return
        if len(batch) or batch.next != expected:
            partition.absorb(source, batch, now_ms=self.clock())
        await self.close_due(partition)
        self._flush_due(partition)

    async def close_due(self, partition: Partition) -> None:
        """Close all due windows, giving way between them."""
        partition.advance_watermark(now_ms=self.clock())
        while self.partitions.get(partition.number) is partition and partition.close_due(now_ms=self.clock()):
            self._flush_due(partition)
            await asyncio.sleep(0)

    def _flush_due(self, partition: Partition) -> None:
        if partition.flush_due(now_ms=self.clock()):
            partition.flush(now_ms=self.clock())

    # ------------------------------------------------------------------ the clock
    async def tick(self, consumer: Consumer) -> None:
        """Do what must happen without events: idle inputs, quiet closes, flushes, source alignment."""
        for partition in list(self.partitions.values()):
            self._look_at_inputs(partition, consumer)
            await self.close_due(partition)
            if self.partitions.get(partition.number) is partition:
                self._align(partition, consumer)
                self._flush_due(partition)

    def _look_at_inputs(self, partition: Partition, consumer: Consumer) -> None:
        now = self.clock()
        for source, topic in enumerate(self.topics):
            tp = self.tp(topic, partition.number)
            offset, end = partition.next_offset(topic), consumer.highwater(tp)
            caught_up = end is not None and end <= offset
            partition.watermark.quiet(source, now_ms=now, could_speak=caught_up and tp not in self.paused)
            lag = max(0, end - offset) if end is not None else 0
            self.metrics.lag.labels(topic, str(partition.number)).set(lag)
            self._lags[partition.number, source] = lag
            progress = self._progress.setdefault((partition.number, source), Progress(offset, now))
            if progress.offset != offset or lag == 0 or tp in self.paused:
                progress.offset, progress.moved_ms = offset, now

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
    def assign(self, numbers: Iterable[int]) -> None:
        """Own exactly these partition numbers: keep, give up, restore."""
        wanted = set(numbers)
        for number in set(self.partitions) - wanted:
            self.drop(number)
        for number in sorted(wanted - set(self.partitions)):
            self.partitions[number] = self._open(number)
        self.paused.clear()
        self._progress.clear()
        self._lags.clear()
        self.assigned = bool(wanted)
        log.info("partitions %s", sorted(self.partitions) or "none")

    def _open(self, number: int) -> Partition:
        settings = self.settings
        store = _open_store(Path(settings.state_dir) / settings.group / f"partition-{number}")
        outbox = Outbox(settings.client, on_error=lambda what: log.warning("%s", what))
        geometry = Geometry(number, self.partition_count, self.letter_limit_bytes)
        try:
            return Partition(geometry, settings, store=store, outbox=outbox, session=self.session, metrics=self.metrics)
        except Broken:
            outbox.close()
            store.close()
            raise

    def drop(self, number: int) -> None:
        """Forget a partition that is no longer ours; what was not flushed is for its new owner to fold."""
        self.partitions.pop(number).close()

    def flush(self) -> None:
        """Flush every partition now: the group or the process is about to change."""
        for partition in self.partitions.values():
            partition.flush(now_ms=self.clock())

    def close(self) -> None:
        """Flush and give everything up."""
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
        return (
            (True, f"partitions {sorted(self.partitions)}") if self.assigned else (False, "no partitions assigned yet")
        )


def _open_store(path: Path) -> Store:
    """Open a partition's RocksDB; one that its previous owner is still closing is waited for."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            return Store(path)
        except StateMismatch:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_RETRY_S)


def input_partitions(counts: Mapping[str, int]) -> int:
    """Give the one partition count of the inputs; different ones are a `BrokerTrouble`."""
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{topic}: {count}" for topic, count in sorted(counts.items()))
        msg = f"the input topics must have the same number of partitions, found {found}; see `skutrend topics check`"
        raise BrokerTrouble(msg)
    return next(iter(counts.values()))
