"""Lag, idleness, alignment and back-pressure of each input of each partition.

An input that is ahead of the others in event time is paused until they have caught up. One whose partition waits for
its brokers is put off: it is paused, and later read from the partition's next offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from streams.observe.shared_dict import SharedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.kafka.batch import RecordBatch
    from streams.partition.partition import Partition
    from streams.worker.environment import Environment

_SILENT_MS = 5_000  # of a broker: an answer comes every 250 ms, or somewhat later under load
_LEAST_SILENT_MS = 1_000


class Consumer(Protocol):
    """What the worker asks of the transport's consumer (streams.kafka.transport.BatchConsumer)."""

    def is_current(self, batch: RecordBatch) -> bool:
        """Whether the batch was fetched in the present generation and since the last seek."""

    def highwater(self, tp: Any) -> int | None:  # noqa: ANN401 - faust's TP
        """Offset after the partition's last record, None while unknown."""

    def answered_ms(self, tp: Any) -> int | None:  # noqa: ANN401 - faust's TP
        """When a broker last answered a fetch of the partition, monotonic ms; None if never."""

    def pause(self, tps: Iterable[Any]) -> None:
        """Stop fetching, losing nothing."""

    def resume(self, tps: Iterable[Any]) -> None:
        """Fetch again."""

    async def seek_wait(self, offsets: Mapping[Any, int]) -> None:
        """Read on from these offsets."""

    async def bounds(self, tps: Iterable[Any]) -> dict[Any, tuple[int, int]]:
        """First kept offset and the one after the last, as the broker says now."""


@dataclass(frozen=True)
class InputProgress:
    """When a partition's input last moved, to tell idle from stuck."""

    offset: int = -1
    moved_ms: int = 0


class Inputs:
    """What is known of every input of every partition, as of the last look; times are monotonic ms.

    paused: topic-partitions that are paused here. Only the event loop calls this, but for `stuck`, which probes call.
    """

    def __init__(self, environment: Environment) -> None:
        """Nothing is known yet."""
        self.topics, self.paused = environment.topics, set[Any]()
        self._environment = environment
        self._put_off = set[Any]()
        self._progress: SharedDict[tuple[int, int], InputProgress] = SharedDict()  # by partition and input
        self._lags: dict[tuple[int, int], int] = {}

    def forget(self) -> None:
        """Forget everything: an assignment has moved partitions and ended all pauses."""
        self.paused.clear()
        self._put_off.clear()
        self._progress.clear()
        self._lags.clear()

    def look(self, partition: Partition, consumer: Consumer) -> None:
        """Note how far each input of a partition is, and which of them are silent."""
        now = self._environment.monotonic()
        for source, topic in enumerate(self.topics):
            tp = self._environment.tp(topic, partition.number)
            offset, end = partition.next_offset(topic), consumer.highwater(tp)
            can_deliver = end is not None and tp not in self.paused and self._is_answered(tp, consumer)
            lag = max(0, end - offset) if end is not None else 0
            partition.watermark.quiet(source, monotonic_ms=now, can_deliver=can_deliver, lags=lag > 0)
            self._environment.metrics.lag.labels(topic, str(partition.number)).set(lag)
            self._lags[partition.number, source] = lag
            progress = self._progress.get((partition.number, source))
            if progress is None or progress.offset != offset or lag == 0 or tp in self.paused:
                self._progress[partition.number, source] = InputProgress(offset, now)

    def _is_answered(self, tp: Any, consumer: Consumer) -> bool:  # noqa: ANN401 - faust's TP
        """Whether a broker answers fetches of a partition: without answers nobody knows whether the input is idle."""
        answered_ms, environment = consumer.answered_ms(tp), self._environment
        silent_ms = max(_LEAST_SILENT_MS, min(_SILENT_MS, environment.settings.idle_timeout_ms // 2))
        return answered_ms is not None and environment.monotonic() - answered_ms <= silent_ms

    def align(self, partition: Partition, consumer: Consumer) -> None:
        """Pause an input that runs far ahead of the others in event time, resume it when they have caught up."""
        now, limit_ms = self._environment.monotonic(), self._environment.settings.alignment_ms
        for source, topic in enumerate(self.topics):
            tp = self._environment.tp(topic, partition.number)
            lead_ms = partition.watermark.lead_ms(source, monotonic_ms=now)
            if lead_ms > limit_ms and tp not in self.paused and self._others_lag(partition.number, source):
                self._pause(tp, consumer)
            elif tp in self.paused and (lead_ms <= limit_ms // 2 or not self._others_lag(partition.number, source)):
                self.paused.discard(tp)
                consumer.resume([tp])
            self._environment.metrics.paused.labels(topic, str(partition.number)).set(tp in self.paused)

    def _others_lag(self, number: int, source: int) -> bool:
        """Whether another input still has records to read: waiting for one that has none would never end."""
        return any(self._lags.get((number, other), 0) > 0 for other in range(len(self.topics)) if other != source)

    def _pause(self, tp: Any, consumer: Consumer) -> None:  # noqa: ANN401 - faust's TP
        if tp not in self.paused:
            self.paused.add(tp)
            consumer.pause([tp])

    def put_off(self, batch: RecordBatch, consumer: Consumer) -> None:
        """Drop a batch whose partition waits for its brokers, and all that follow it; `read_on` reads them again."""
        tp = self._environment.tp(batch.topic, batch.partition)
        self._put_off.add(tp)
        self._pause(tp, consumer)

    def is_put_off(self, batch: RecordBatch) -> bool:
        """Whether an earlier batch of the same input was put off, so that this one must be dropped too."""
        return self._environment.tp(batch.topic, batch.partition) in self._put_off

    async def read_on(self, partition: Partition, consumer: Consumer) -> None:
        """Seek the inputs that were put off to the partition's next offsets; `align` resumes them."""
        behind = {tp: offset for tp, offset in self._offsets(partition).items() if tp in self._put_off}
        if behind:
            self._put_off -= behind.keys()
            await consumer.seek_wait(behind)

    async def read_anew(self, partition: Partition, consumer: Consumer) -> None:
        """Seek all inputs of a partition that was opened anew to its next offsets."""
        offsets = self._offsets(partition)
        self._put_off -= offsets.keys()
        await consumer.seek_wait(offsets)

    def _offsets(self, partition: Partition) -> dict[Any, int]:
        return {self._environment.tp(topic, partition.number): partition.next_offset(topic) for topic in self.topics}

    def stuck(self) -> str:
        """Say which input has lag and has not moved for `stalled_after_ms`; empty where all make progress."""
        now = self._environment.monotonic()
        for (number, source), progress in self._progress.items():
            still_ms = now - progress.moved_ms
            if still_ms > self._environment.settings.stalled_after_ms:
                return f"{self.topics[source]}[{number}] stands at offset {progress.offset} since {still_ms // 1000} s"
        return ""
