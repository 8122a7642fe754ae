"""Folding a fetched batch into its partition, and what is done where it is not the one that comes next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from schemas.errors import BrokerTrouble, WrongPartitioner
from streams.observe.shared_dict import SharedDict
from streams.worker.recent_share import RecentShare

if TYPE_CHECKING:
    from features.admission import Absorbed
    from streams.kafka.batch import RecordBatch
    from streams.partition.partition import Partition
    from streams.worker.closing import Closing
    from streams.worker.environment import Environment
    from streams.worker.inputs import Consumer, Inputs
    from streams.worker.open_partitions import OpenPartitions
    from streams.worker.reopening import Reopener

log = logging.getLogger(__name__)
MOST_REFUSED: Final = 0.99  # share of an input's latest records beyond which a worker is not ready
MOST_REUSED: Final = 0.25  # the same of those whose id another event has
LOCK_WAIT_S: Final = 2.0  # of a batch whose partition is being flushed
_CLOSE_MS: Final = 250  # of windows that a batch makes due; the partition's periodic task closes the rest


class Batches:
    """Takes batches, one after the other of each partition."""

    def __init__(
        self,
        environment: Environment,
        opened: OpenPartitions,
        *,
        inputs: Inputs,
        closing: Closing,
        reopener: Reopener,
    ) -> None:
        """No record has been seen yet."""
        self._environment, self._opened = environment, opened
        self._inputs, self._closing, self._reopener = inputs, closing, reopener
        self._misplaced = tuple(RecentShare() for _ in environment.topics)
        self._refused = tuple(RecentShare() for _ in environment.topics)
        self._reused = tuple(RecentShare() for _ in environment.topics)
        self.unusable: SharedDict[int, str] = SharedDict()  # by input, why nothing of it can be used at present

    async def take(self, source: int, batch: RecordBatch, consumer: Consumer) -> None:
        """Fold a batch and close what it makes due; also when the caller is cancelled meanwhile.

        A batch that does not start at the partition's next offset is dropped, and the consumer seeks.
        """
        if batch.partition in self._opened.by_number and not self._inputs.is_put_off(batch):
            await self._opened.locks.run_to_end(self._take(source, batch, consumer))

    async def _take(self, source: int, batch: RecordBatch, consumer: Consumer) -> None:
        async with self._opened.locks.hold(batch.partition, within_s=LOCK_WAIT_S) as is_held:
            if not is_held:
                self._inputs.put_off(batch, consumer)
                return
            partition = self._opened.by_number.get(batch.partition)
            if partition is None or self._opened.failure is not None or not consumer.is_current(batch):
                return
            expected = partition.next_offset(batch.topic)
            if batch.start != expected and not (batch.start > expected == 0):
                await self._seek(partition, batch, consumer)
                return
            with self._reopener.closing_on_failure(partition):
                await self._closing.room(partition)
                if len(batch) or batch.next != expected:
                    outcome = partition.absorb(source, batch, now_ms=self._environment.clock())
                    self._check_placement(source, outcome)
                    self._watch_refusals(source, outcome)
                await self._closing.close_due(partition, within_ms=_CLOSE_MS)
                await self._closing.flush_due(partition)

    def _check_placement(self, source: int, outcome: Absorbed) -> None:
        """Stop before a whole topic goes to the dead letters: nothing of this batch is flushed, it comes again."""
        recent, wrong = self._misplaced[source], outcome.misplaced
        recent.note(seen=outcome.placed + wrong, counted=wrong)
        if recent.is_beyond(self._environment.settings.misplaced_share):
            msg = (
                f"{recent.counted:,} of the latest {recent.seen:,} records of topic "
                f"{self._environment.topics[source]} lie on partitions where their SKU does not belong: let its "
                "producer partition by murmur2 of the SKU (librdkafka: partitioner=murmur2_random); then let the topic "
                "be written anew, or set SKUTREND_MISPLACED_SHARE=1 once and send the dead letters again with "
                "`skutrend dead-letters replay`"
            )
            raise WrongPartitioner(msg)

    def _watch_refusals(self, source: int, outcome: Absorbed) -> None:
        """Tell, in the log and by `/readyz`, when an input holds something else, or ids that are none of events."""
        refused, reused, seen = len(outcome.refused), outcome.reused, outcome.placed + len(outcome.refused)
        self._refused[source].note(seen=seen, counted=refused)
        self._reused[source].note(seen=seen, counted=reused)
        why = self._unusable(source, outcome)
        if why and source not in self.unusable:
            self.unusable[source] = why
            log.error("%s", why)
        elif not why and self.unusable.pop(source, None) is not None:
            log.warning("records of topic %s can be used again", self._environment.topics[source])

    def _unusable(self, source: int, outcome: Absorbed) -> str:
        """Say why an input cannot be used at present; "" where it can."""
        topic, refused, reused = self._environment.topics[source], self._refused[source], self._reused[source]
        if reused.is_beyond(MOST_REUSED):
            return (
                f"{reused.counted:,} of the latest {reused.seen:,} records of topic {topic} have the event_id of "
                "another event and are dead letters: let its producer make one for each event, such as order and line, "
                "or let `skutrend ingest` do it; then send them with `skutrend dead-letters replay`, mended"
            )
        if outcome.refused and refused.is_beyond(MOST_REFUSED):
            last = outcome.refused[-1]
            return (
                f"{refused.counted:,} of the latest {refused.seen:,} records of topic {topic} cannot be used and are "
                f"dead letters, lately because of {last.code}: {last.error}"
            )
        return ""

    async def _seek(self, partition: Partition, batch: RecordBatch, consumer: Consumer) -> None:
        """Read on from the partition's next offset; where that is no longer kept, do as the settings say."""
        topic, tp = batch.topic, self._environment.tp(batch.topic, batch.partition)
        first, end = (await consumer.bounds([tp]))[tp]
        expected = partition.next_offset(topic)
        log.warning("%s[%d] gave offset %d, expected %d: seeking", topic, batch.partition, batch.start, expected)
        if not first <= expected <= end:
            partition.skip(topic, self._substitute(f"{topic}[{batch.partition}]", expected, first, end))
        await consumer.seek_wait({tp: partition.next_offset(topic)})

    def _substitute(self, where: str, expected: int, first: int, end: int) -> int:
        """Choose the offset to go on from when our own is not kept (`BrokerTrouble` where the settings forbid it)."""
        lost_offsets = self._environment.settings.lost_offsets
        if expected > end:
            msg = (
                f"{where} ends at offset {end}, the state has absorbed it up to {expected}: the topic was made again; "
                "start with a new SKUTREND_GROUP, or give the topic its records back"
            )
            raise BrokerTrouble(msg)
        if lost_offsets == "fail":
            msg = (
                f"{where} begins at offset {first}, {first - expected} records after {expected} were deleted unread; "
                "raise retention.ms, and set SKUTREND_LOST_OFFSETS=earliest (or latest) to go on without them"
            )
            raise BrokerTrouble(msg)
        there = first if lost_offsets == "earliest" else end
        log.error(
            "%s: %d records deleted unread, going on at %d (SKUTREND_LOST_OFFSETS)", where, first - expected, there
        )
        return there
