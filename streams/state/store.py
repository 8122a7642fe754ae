"""The durable copy of a partition: one RocksDB per partition, written atomically together with the input offsets.

A small flush is a write batch. One that holds many SKU rows, as every close of a window makes it, is a table file
that RocksDB takes in as a whole: as atomic, but in bounded memory, and not written twice (no log, no memtable). It
holds also what is gone; only ranges of keys that nobody reads any more are removed after it, by a batch.
keys.py has the layout of the keys, scan.py reads.
"""

from __future__ import annotations

import heapq
import shutil
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec
from rocksdict import WriteBatch

from schemas.errors import StateCorrupt, StateMismatch
from schemas.refusals import DECODE_ERRORS
from streams.state import keys
from streams.state.meta import Meta, read_meta
from streams.state.rocks import RocksDb
from streams.state.scan import Scan
from streams.state.store_errors import damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from streams.state.flush_record import Flush


class Store:
    """RocksDB of one partition. One process at a time: a second one is refused by RocksDB's lock.

    db: what it is kept in. scan: reads what is stored.
    """

    def __init__(self, path: Path) -> None:
        """Open or create. A directory that another process holds, or that RocksDB cannot read, is a `StateMismatch`.

        What may pass, such as a full disk, is a `FlushFailed`; what will not, `StateInaccessible`.
        """
        self.path = path
        self.db = RocksDb(path)
        self.scan = Scan(self.db)

    def meta(self) -> Meta | None:
        """Read the meta record; None when nothing was ever flushed.

        One of another format is a `StateMismatch`, an unreadable one is `StateCorrupt`.
        """
        raw = self.db.get(keys.META)
        if raw is None:
            return None
        try:
            return read_meta(raw, where=f"the state in {self.path}")
        except StateCorrupt as error:
            msg = f"{error}; delete that directory to rebuild it"
            raise StateCorrupt(msg) from error

    def position(self) -> int | None:
        """Read the changelog's next offset; None when nothing of a changelog is contained."""
        raw = self.db.get(keys.POSITION)
        if raw is None:
            return None
        try:
            return msgspec.msgpack.decode(raw, type=int)
        except DECODE_ERRORS as error:
            raise damaged(self.path, f"{keys.name_of(keys.POSITION)}: {error}") from error

    def set_position(self, offset: int) -> None:
        """Remember up to which offset, exclusive, the changelog is contained."""
        self.db.put(keys.POSITION, msgspec.msgpack.encode(offset))

    def changelog_id(self) -> str | None:
        """Read the id of the topic that `position` is of; None where it was not known."""
        raw = self.db.get(keys.TOPIC)
        return None if raw is None else raw.decode()

    def set_changelog_id(self, topic_id: str) -> None:
        """Remember which topic `position` is of."""
        self.db.put(keys.TOPIC, topic_id.encode())

    def write(self, flush: Flush) -> None:
        """Write a flush: all of it or, should the process die in between, nothing."""
        self.stage(flush)()

    def stage(self, flush: Flush, also: Callable[[bytes, bytes], None] | None = None) -> Callable[[], None]:
        """Prepare a flush, and return what makes it seen, whole or not at all.

        also: is given every record on the way, so that rows are laid out once for whoever wants them.
        """
        records = flush.records() if also is None else _tee(flush.records(), also)
        batch = WriteBatch(raw_mode=True)
        _remove_ranges(batch, flush)
        if not flush.bulk:
            for key in flush.retired_keys():
                batch.delete(key)
            for key, value in records:
                batch.put(key, value)
            return lambda: self.db.write(batch)
        self.db.lay_out(_with_removals(records, flush.retired_keys()))

        def finish() -> None:
            self.db.ingest()
            self.db.write(batch)  # should the process die in between: what nobody reads stays until the next flush

        return finish

    def apply(self, latest: Mapping[bytes, bytes | None]) -> None:
        """Take records of the changelog in, None being gone; whole only together with a meta record written after."""
        if not latest:
            return
        self.db.lay_out((key, latest[key]) for key in sorted(latest))
        self.db.ingest()

    def estimate(self) -> int:
        """Guess how many records there are, from what RocksDB knows without looking."""
        return self.db.estimate()

    def checkpoint(self, folder: Path) -> None:
        """Freeze the state as it is in a new directory on the same disk: hard links, and what memtables hold."""
        self.db.checkpoint(folder)

    def compact(self) -> None:
        """Write memtables out and compact, so that `size_bytes` is what rests."""
        self.db.compact()

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(f.stat().st_size for f in self.path.rglob("*") if f.is_file())

    def close(self) -> None:
        """Close; see `RocksDb.close`."""
        self.db.close()

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether there is a partition's state in a directory."""
        return (path / "CURRENT").exists()

    @staticmethod
    def destroy(path: Path) -> None:
        """Remove a partition's state; one that cannot be removed is a `StateMismatch`."""
        try:
            shutil.rmtree(path)
        except OSError as error:
            if not path.exists():
                return
            msg = (
                f"the state in {path} cannot be removed: {error.filename or path}: {error.strerror} "
                f"(errno {error.errno}); give the worker the right to, or remove that directory yourself, and start it "
                "again"
            )
            raise StateMismatch(msg) from error


def _remove_ranges(batch: WriteBatch, flush: Flush) -> None:
    """Let a batch remove what is never read after a flush: of windows that have closed, of other models.

    Comes before what the batch puts.
    """
    for families, stop in flush.gone_before():
        for family in families:
            batch.delete_range(family + keys.window_bytes(0), family + keys.window_bytes(max(stop, 0)))
    if flush.drops_models:
        for low, high in keys.beside_models(flush.meta.models):
            batch.delete_range(low, high)


def _with_removals(
    records: Iterable[tuple[bytes, bytes]], removed: Iterable[bytes]
) -> Iterable[tuple[bytes, bytes | None]]:
    """Put keys that are gone among records, ascending; none of them may be the key of a record."""
    gone: list[tuple[bytes, None]] = [(key, None) for key in sorted(removed)]
    return heapq.merge(records, gone, key=itemgetter(0)) if gone else records


def _tee(records: Iterable[tuple[bytes, bytes]], also: Callable[[bytes, bytes], None]) -> Iterator[tuple[bytes, bytes]]:
    for key, value in records:
        also(key, value)
        yield key, value
