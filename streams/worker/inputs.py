"""How the inputs of a worker's partitions stand: behind, silent, ahead of each other, put off.

An input that is ahead of the others in event time is paused until they have caught up; one whose partition waits for
its brokers is put off, and read on from where the partition then stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from streams.kafka.batch import RecordBatch
    from streams.observe.metrics import Metrics
    from streams.partition.partition import Partition
    from streams.settings import Settings

_DEAF_MS = 5_000  # an answer comes every 250 ms, or somewhat later under load
_LEAST_DEAF_MS = 1_000


class Consumer(Protocol):
    """What the worker asks of the transport's consumer (streams.kafka.transport.BatchConsumer)."""

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


@dataclass
class InputProgress:
    """When a partition's input last moved, to tell idle from stuck."""

    offset: int = -1
    moved_ms: int = 0


@dataclass
class Inputs:
    """What is known of every input of every partition, as of the last look.

    topics: the inputs. tp: makes a transport's topic-partition of a topic and a number. clock: epoch ms.
    """

    settings: Settings
    topics: tuple[str, ...]
    metrics: Metrics
    tp: Callable[[str, int], Any]
    clock: Callable[[], int]
    paused: set[Any] = field(default_factory=set)
    _put_off: set[Any] = field(default_factory=set)
    _progress: dict[tuple[int, int], InputProgress] = field(default_factory=dict)
    _lags: dict[tuple[int, int], int] = field(default_factory=dict)

    def forget(self) -> None:
        """Know nothing any more: the group has given partitions out anew, and with that ended all pauses."""
        self.paused.clear()
        self._put_off.clear()
        self._progress.clear()
        self._lags.clear()

    def look(self, partition: Partition, consumer: Consumer) -> None:
        """Note how far each input of a partition is, and which of them are silent."""
        now = self.clock()
        for source, topic in enumerate(self.topics):
            tp = self.tp(topic, partition.number)
            offset, end = partition.next_offset(topic), consumer.highwater(tp)
            could_speak = end is not None and end <= offset and tp not in self.paused and self._hears(tp, consumer)
            partition.watermark.quiet(source, now_ms=now, could_speak=could_speak)
            lag = max(0, end - offset) if end is not None else 0
            self.metrics.lag.labels(topic, str(partition.number)).set(lag)
            self._lags[partition.number, source] = lag
            progress = self._progress.setdefault((partition.number, source), InputProgress(offset, now))
            if progress.offset != offset or lag == 0 or tp in self.paused:
                progress.offset, progress.moved_ms = offset, now

    def _hears(self, tp: Any, consumer: Consumer) -> bool:  # noqa: ANN401 - faust's TP
        """Whether a broker answers for a partition: else its silence is the broker's, not the input's."""
        heard_ms = consumer.heard_ms(tp)
        deaf_ms = max(_LEAST_DEAF_MS, min(_DEAF_MS, self.settings.idle_timeout_ms // 2))
        return heard_ms is not None and self.clock() - heard_ms <= deaf_ms

    def align(self, partition: Partition, consumer: Consumer) -> None:
        """Pause an input that runs far ahead of the others in event time, resume it when they have caught up."""
        now, limit_ms = self.clock(), self.settings.alignment_ms
        for source, topic in enumerate(self.topics):
            tp = self.tp(topic, partition.number)
            lead_ms = partition.watermark.lead_ms(source, now_ms=now)
            if lead_ms > limit_ms and tp not in self.paused and self._others_lag(partition.number, source):
                self._pause(tp, consumer)
            elif tp in self.paused and (lead_ms <= limit_ms // 2 or not self._others_lag(partition.number, source)):
                self.paused.discard(tp)
                consumer.resume([tp])
            self.metrics.paused.labels(topic, str(partition.number)).set(tp in self.paused)

    def _others_lag(self, number: int, source: int) -> bool:
        """Whether another input still has records to read: waiting for one that has none would be for ever."""
        return any(self._lags.get((number, other), 0) > 0 for other in range(len(self.topics)) if other != source)

    def _pause(self, tp: Any, consumer: Consumer) -> None:  # noqa: ANN401 - faust's TP
        if tp not in self.paused:
            self.paused.add(tp)
            consumer.pause([tp])

    def put_off(self, batch: RecordBatch, consumer: Consumer) -> None:
        """Drop a batch whose partition waits for its brokers, and all that follow it: `read_on` undoes it."""
        tp = self.tp(batch.topic, batch.partition)
        self._put_off.add(tp)
        self._pause(tp, consumer)

    def is_put_off(self, batch: RecordBatch) -> bool:
        """Whether a batch comes too early, because an earlier one was put off."""
        return self.tp(batch.topic, batch.partition) in self._put_off

    async def read_on(self, partition: Partition, consumer: Consumer) -> None:
        """Read what was put off from where the partition stands; alignment resumes it."""
        behind = {tp: offset for tp, offset in self._offsets(partition).items() if tp in self._put_off}
        if behind:
            self._put_off -= behind.keys()
            await consumer.seek_wait(behind)

    async def read_anew(self, partition: Partition, consumer: Consumer) -> None:
        """Read all inputs of a partition that was opened anew from where its state stands."""
        offsets = self._offsets(partition)
        self._put_off -= offsets.keys()
        await consumer.seek_wait(offsets)

    def _offsets(self, partition: Partition) -> dict[Any, int]:
        return {self.tp(topic, partition.number): partition.next_offset(topic) for topic in self.topics}

    def stuck(self) -> str:
        """Say which input has records waiting and has not moved for long; nothing where all get on."""
        now = self.clock()
        for (number, source), progress in list(self._progress.items()):
            still_ms = now - progress.moved_ms
            if still_ms > self.settings.stalled_after_ms:
                return f"{self.topics[source]}[{number}] stands at offset {progress.offset} since {still_ms // 1000} s"
        return ""
