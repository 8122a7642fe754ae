"""How a partition's store is brought up to the end of its changelog, whatever it holds so far."""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import StateCorrupt, StateMismatch
from streams.kafka.partition_reader import Reader
from streams.state.keys import META
from streams.state.meta import Meta, read_meta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from confluent_kafka import Message

    from streams.state.store import Store

log = logging.getLogger(__name__)

SPILL_BYTES: Final = 64 << 20  # of rows read and of what says that a key is gone, before they go to the store
_ENTRY_BYTES: Final = 150  # of memory a row takes beside its key and value, measured on records without a value
REPORT_EVERY_S: Final = 2.0
TAIL: Final = 1_000  # offsets at the end, where the last meta record nearly always is


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
    topic_id: str = "",
    report: Callable[[RecoveryProgress], None] = lambda _: None,
) -> RecoveryProgress:
    """Bring a store up to the changelog's end; nothing is done where it already is, all is read where it is new.

    To be called after the partition's transactional id has been claimed, so that nobody adds to the changelog any more;
    `reader` is closed. topic_id: of the changelog, where it is known.
    `StateMismatch` where the two cannot belong together, `Refused` where the changelog cannot be read (for now:
    `Unavailable`).
    """
    try:
        local = store.meta()  # before anything is read: what another version wrote stays as it is
        low, high = reader.bounds()
        if low < high:
            _check_id(store, topic, partition, topic_id)
        start = _start(store, topic, partition, low=low, high=high)
        progress = RecoveryProgress(partition, total=high - start, started_s=time.monotonic())
        meta = _newest_meta(reader, start, high, report=lambda: report(progress))
        if meta is not None:
            _check_order(local, meta, topic, partition, store)
        elif local is not None and start == low < high:
            msg = f"{topic}[{partition}] holds no whole flush, {store.path} does: {_remedy(store, topic)}"
            raise StateMismatch(msg)
        meta = _apply(store, reader.records(start, high), progress, start=start, report=report)
    finally:
        reader.close()
    progress.is_bare = local is not None and low == high
    if progress.is_bare:
        log.warning("%s[%d] is empty: it will be written anew from %s", topic, partition, store.path)
    if meta is not None:
        store.apply({META: meta})
    if topic_id:
        store.set_changelog_id(topic_id)
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


def _check_id(store: Store, topic: str, partition: int, topic_id: str) -> None:
    """Refuse a changelog that is another one than that which the store contains (`StateMismatch`)."""
    before = store.changelog_id()
    if topic_id and before is not None and before != topic_id:
        msg = (
            f"{topic}[{partition}] was deleted and made again: {store.path} contains it up to offset "
            f"{store.position()} when its id was {before}, now it is {topic_id}; {_remedy(store, topic)}"
        )
        raise StateMismatch(msg)


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


def _newest_meta(reader: Reader, start: int, high: int, *, report: Callable[[], None]) -> bytes | None:
    """Find the last meta record, reading from further and further before the end; None where there is none.

    It is looked at before a row is applied: rows of another time or format would spoil the store that they are put in.
    """
    reach, reported_s = TAIL, time.monotonic()
    while True:
        begin, found = max(start, high - reach), None
        for messages in reader.records(begin, high):
            found = next((message.value() for message in reversed(messages) if message.key() == META), found)
            if time.monotonic() - reported_s > REPORT_EVERY_S:
                report()
                reported_s = time.monotonic()
        if found is not None or begin == start:
            return found
        reach *= 16


def _check_order(local: Meta | None, raw: bytes, topic: str, partition: int, store: Store) -> None:
    try:
        newest = read_meta(raw, where=f"the changelog {topic}[{partition}]")
    except StateCorrupt as error:  # not the store is damaged, which must not be deleted for it
        msg = f"{error}; {_remedy(store, topic)}"
        raise StateMismatch(msg) from error
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
    report: Callable[[RecoveryProgress], None],
) -> bytes | None:
    """Apply rows, all but the meta record, which is returned: only with that they count."""
    latest: dict[bytes, bytes | None] = {}
    reported_s, held = progress.started_s, 0
    for messages in batches:
        for message in messages:
            key, value = message.key(), message.value()
            if key in latest:
                held -= _held_bytes(key, latest[key])
            held += _held_bytes(key, value)
            latest[key] = value
            progress.size += len(value or b"")
        progress.rows += len(messages)
        if messages:
            progress.read = messages[-1].offset() + 1 - start
        if held >= SPILL_BYTES:
            meta = latest.pop(META, None)
            store.apply(latest)
            latest = {} if meta is None else {META: meta}
            held = sum(itertools.starmap(_held_bytes, latest.items()))
        if time.monotonic() - reported_s > REPORT_EVERY_S:
            report(progress)
            reported_s = time.monotonic()
    meta = latest.pop(META, None)
    store.apply(latest)
    progress.read = progress.total
    return meta


def _held_bytes(key: bytes, value: bytes | None) -> int:
    return _ENTRY_BYTES + len(key) + len(value or b"")
