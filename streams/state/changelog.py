"""The copy of a partition's state that survives the machine: a compacted topic, partition by partition.

Its records are those of the store (streams/state/store.py has the keys); a record without a value says that its key is gone.
All rows of a flush and its meta record are written in one transaction, so that a reader of committed records who has
reached the end has whole flushes only, however much has been compacted away before.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from features.rows import Meta
from schemas.errors import StateMismatch
from streams.kafka.partition_reader import Reader
from streams.state.store import META, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from confluent_kafka import Message

    from streams.kafka.output_producer import OutputProducer

log = logging.getLogger(__name__)

AT_ONCE: Final = 4_096  # rows handed to the producer at a time
SPILL_BYTES: Final = 64 << 20  # of rows read, kept in memory before they go to the store
TOLD_EVERY_S: Final = 2.0


class Changelog:
    """The write side: rows of a flush on their way into the current transaction of a producer."""

    def __init__(self, producer: OutputProducer, topic: str, partition: int) -> None:
        """producer: a transactional one, claimed."""
        self.producer, self.topic, self.partition = producer, topic, partition
        self._meta = b""
        self._keys: list[bytes] = []
        self._values: list[bytes | None] = []

    def put(self, key: bytes, value: bytes | None) -> None:
        """Add a row; None: it is gone. The meta record is kept for `finish`, whatever its place."""
        if key == META:
            self._meta = value or b""
            return
        self._keys.append(key)
        self._values.append(value)
        if len(self._keys) >= AT_ONCE:
            self._hand_over()

    def finish(self, gone: Iterable[bytes]) -> None:
        """Add what is gone, and the meta record as the last one; then the producer can be settled."""
        for key in gone:
            self.put(key, None)
        self._hand_over()
        self.producer.put_marked(self.topic, META, self._meta, self.partition)

    def _hand_over(self) -> None:
        self.producer.put(self.topic, self._keys, self._values, self.partition)
        self._keys, self._values = [], []


@dataclass
class RecoveryProgress:
    """How a recovery goes: offsets read so far and to be read, rows and bytes."""

    partition: int
    read: int = 0
    total: int = 0
    rows: int = 0
    size: int = 0
    started_s: float = 0.0
    is_bare: bool = False  # the changelog holds nothing, but the store does: all of it is to be written

    def __str__(self) -> str:
        """Say it in a sentence."""
        passed_s = time.monotonic() - self.started_s
        left_s = passed_s * (self.total - self.read) / self.read if self.read else 0.0
        return (
            f"partition {self.partition}: {self.read:,} of {self.total:,} changelog offsets read, "
            f"{self.rows / max(passed_s, 1e-3):,.0f} rows/s, {left_s:.0f} s left"
        )


def recover(
    store: Store,
    reader: Reader,
    *,
    topic: str,
    partition: int,
    told: Callable[[RecoveryProgress], None] = lambda _: None,
) -> RecoveryProgress:
    """Bring a store up to the changelog's end; nothing is done where it already is, all is read where it is new.

    To be called after the partition's transactional id has been claimed, so that nobody adds to the changelog any more;
    `reader` is closed.
    `StateMismatch` where the two cannot belong together, `BrokerTrouble` where the changelog cannot be read (for now:
    `Unavailable`).
    """
    try:
        low, high = reader.bounds()
        start = _start(store, topic, partition, low=low, high=high)
        progress = RecoveryProgress(partition, total=high - start, started_s=time.monotonic())
        meta = _apply(store, reader.records(start, high), progress, start=start, told=told)
    finally:
        reader.close()
    local = store.meta()
    progress.is_bare = local is not None and low == high
    if progress.is_bare:
        log.warning("%s[%d] is empty: it will be written anew from %s", topic, partition, store.path)
    if meta is not None:
        _check_order(local, meta, topic, partition, store)
        store.apply({META: meta})
    elif local is not None and start == low < high:
        msg = f"{topic}[{partition}] holds no whole flush, {store.path} does: {_remedy(store, topic)}"
        raise StateMismatch(msg)
    if store.position() != high:
        store.set_position(high)
    return progress


def unread(config: Mapping[str, Any], *, topic: str, partition: int, position: int) -> int | None:
    """Count the records from `position` on; None where the changelog ends before it."""
    reader = Reader(config, topic, partition, what="the changelog")
    try:
        low, high = reader.bounds()
        if position > high:
            return None
        # what lies at the end is the mark of a commit, which is no record
        return sum(map(len, reader.records(max(low, position), high)))
    finally:
        reader.close()


def _start(store: Store, topic: str, partition: int, *, low: int, high: int) -> int:
    """Offset to read from."""
    position = store.position()
    if position is None or low == high:
        return low
    if position > high:
        msg = (
            f"{topic}[{partition}] ends at offset {high}, but {store.path} contains it up to {position}: the topic was "
            f"made again; {_remedy(store, topic)}"
        )
        raise StateMismatch(msg)
    return max(position, low)


def _check_order(local: Meta | None, raw: bytes, topic: str, partition: int, store: Store) -> None:
    newest = msgspec.msgpack.decode(raw, type=Meta)
    if local is not None and local.sequence > newest.sequence:
        msg = (
            f"{topic}[{partition}] ends with flush {newest.sequence}, {store.path} with {local.sequence}: it is of "
            f"another time; {_remedy(store, topic)}"
        )
        raise StateMismatch(msg)


def _remedy(store: Store, topic: str) -> str:
    return f"delete {store.path} to go on from the changelog, or delete and create {topic} to go on from that directory"


def _apply(
    store: Store,
    batches: Iterable[list[Message]],
    progress: RecoveryProgress,
    *,
    start: int,
    told: Callable[[RecoveryProgress], None],
) -> bytes | None:
    """Apply rows, all but the meta record, which is returned: only with that they count."""
    latest: dict[bytes, bytes | None] = {}
    told_s, spilled = progress.started_s, 0
    for messages in batches:
        for message in messages:
            value = message.value()
            latest[message.key()] = value
            progress.size += len(value or b"")
        progress.rows += len(messages)
        if messages:
            progress.read = messages[-1].offset() + 1 - start
        if progress.size - spilled >= SPILL_BYTES:
            spilled = progress.size
            meta = latest.pop(META, None)
            store.apply(latest)
            latest = {} if meta is None else {META: meta}
        if time.monotonic() - told_s > TOLD_EVERY_S:
            told(progress)
            told_s = time.monotonic()
    meta = latest.pop(META, None)
    store.apply(latest)
    progress.read = progress.total
    return meta
