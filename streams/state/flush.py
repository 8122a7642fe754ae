"""A flush of one partition on its way to Kafka and to the disk: both producers, tombstones, one deadline.

The outputs of a partition go through one producer, its state through another or the same one (then all of a flush is
one transaction). Whoever flushes sees one channel, with one deadline for all of it: made when the flush begins, and
passed to whatever part of it waits for the brokers.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from streams.kafka.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.kafka.output_producer import OutputProducer
    from streams.state.changelog import Changelog
    from streams.state.flush_record import Flush
    from streams.state.store import Store

LEAST_S: Final = 0.1  # of a flush that begins late: brokers that answer at once have answered


class FlushChannel:
    """The way out of one partition: `begin`, `commit`, `end`, in this order, for each flush.

    Nothing else may be put meanwhile. After a failure (`Fenced`, `FlushFailed`) it is of no more use than to be closed.
    """

    def __init__(self, store: Store, producer: OutputProducer, changelog: Changelog | None) -> None:
        """Open the way out. producer: takes the outputs. changelog: None keeps state in `store` alone; may share it."""
        self._store, self._producer, self._changelog = store, producer, changelog
        self._producers = [producer]
        if changelog is not None and changelog.producer is not producer:
            self._producers.append(changelog.producer)
        # by family: the window before which the store has nothing, since the last flush
        self._gone_before: dict[tuple[bytes, ...], int] = {}
        self._by_s = math.inf
        self._deadline: Deadline | None = None
        self._record: Flush | None = None
        self._finish: Callable[[], None] = lambda: None

    def has_room(self) -> bool:
        """Whether outputs can be put without waiting; `FlushFailed` as `OutputProducer.has_room` raises it."""
        return self._producer.has_room(by_s=self._by_s)

    def begin(self, record: Flush, *, within_s: float) -> None:
        """Give a flush to the producers. within_s: how long all of it may take, unless `shorten_deadline` says less."""
        self._record = record
        self._deadline = Deadline(within_s)  # before `_by_s` is read: whatever is set meanwhile holds
        self._deadline.shorten_deadline(max(self._by_s, time.monotonic() + LEAST_S))
        for producer in self._producers:
            producer.begin(self._deadline)
        log = self._changelog
        self._finish = self._store.stage(record, also=None if log is None else log.put)
        if log is not None:
            log.finish(self._gone(record))

    def _gone(self, record: Flush) -> Iterator[bytes]:
        """Give the keys that the changelog has and that are gone with a flush: the store has them still, as it has."""
        for families, stop in record.gone_before():
            start = self._gone_before.get(families, 0)
            yield from self._store.scan.closed_keys(start, max(stop, start), families=families)
        yield from record.retired_keys()
        if record.drops_models:
            yield from self._store.scan.model_keys_beside(*record.meta.models)

    def commit(self) -> None:
        """Wait until the brokers have all of it: all waiting, no work, so that it can be left to a thread.

        Outputs come first: where they are no part of the transaction, a crash in between repeats them and loses none.
        """
        for producer in self._producers:
            producer.commit()

    def end(self) -> None:
        """Write to the store what the brokers have now."""
        record, log = self._record, self._changelog
        self._finish()
        if record is not None and log is not None and log.producer.marked_offset is not None:
            self._store.set_position(log.producer.marked_offset + 1)
            self._gone_before |= dict(record.gone_before())
        self._record = self._deadline = None
        self._finish = lambda: None

    def shorten_deadline(self, by_s: float) -> None:
        """Let the flush that goes on, and those that begin later, end by then (time.monotonic).

        math.inf: those that begin later have their time again. Called while another thread may be in `begin` or
        `commit`.
        """
        self._by_s = by_s
        if self._deadline is not None:
            self._deadline.shorten_deadline(by_s)
