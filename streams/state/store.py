"""The durable copy of a partition: one RocksDB per partition, written atomically together with the input offsets.

A small flush is a write batch. One that holds many SKU rows, as every close of a window makes it, is a table file
that RocksDB takes in as a whole: as atomic, but in bounded memory, and not written twice (no log, no memtable).

Keys (numbers big-endian, so that ranges are windows):

    m                          the meta record (msgpack of features.rows.Meta): what everything else has absorbed
    s <sku>                    row of a SKU, as of the last closed window
    o <window:8> <sku>         what an open window has folded for a SKU
    d <window:8> <input:1> <sequence:8>   event ids admitted into an open window since the previous flush (msgpack)
    p                          how far the changelog is contained in this (next offset, msgpack); never in the changelog

All but the last are also the records of the changelog (streams/state/changelog.py).
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec
from rocksdict import (
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    SstFileWriter,
    WriteBatch,
    WriteOptions,
)

from features.rows import Meta
from schemas.errors import FlushFailed, StateCorrupt, StateMismatch

META, _SKU, _OPEN, _IDS, _POSITION = b"m", b"s", b"o", b"d", b"p"
log = logging.getLogger(__name__)
_BLOCK_CACHE_BYTES = 16 << 20
_BLOCK_BYTES = 32 << 10  # all is read in order, once: with RocksDB's own 4 KB that took twice as long
_WRITE_BUFFER_BYTES = 32 << 20
_AT_ONCE = 1_024  # rows, few enough for the processor's cache
_IDS_AT_ONCE = 8  # records, each of which may hold the event ids of 100,000 lines
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

Rows = Iterable[tuple[Sequence[bytes], Sequence[bytes]]]


@dataclass
class Flush:
    """All that one flush writes; consumed once.

    skus: (keys, rows) parts, ascending by key over all of them; folded: the same of each open window; ids: by (window,
    input). retired: keys of SKUs that are forgotten. closed_before: number of the first window still open. bulk:
    whether there are many SKU rows.
    """

    meta: Meta
    skus: Rows = ()
    folded: dict[int, tuple[Sequence[bytes], Sequence[bytes]]] = field(default_factory=dict)
    ids: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    retired: Sequence[bytes] = ()
    closed_before: int | None = None
    bulk: bool = False

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Give what is to be put, ascending by key."""
        for number, source in sorted(self.ids):
            yield self.ids_key(number, source), msgspec.msgpack.encode(self.ids[number, source])
        yield META, msgspec.msgpack.encode(self.meta)
        for number in sorted(self.folded):
            prefix = _OPEN + _window(number)
            for key, row in zip(*self.folded[number], strict=True):
                yield prefix + key, row
        for keys, rows in self.skus:
            for key, row in zip(keys, rows, strict=True):
                yield _SKU + key, row

    def ids_key(self, number: int, source: int) -> bytes:
        """Key of the event ids of one input in one window."""
        return _IDS + _window(number) + bytes([source]) + struct.pack(">Q", self.meta.sequence)

    @staticmethod
    def sku_key(sku: bytes) -> bytes:
        """Key of a SKU's row."""
        return _SKU + sku

    @staticmethod
    def open_key(number: int, sku: bytes) -> bytes:
        """Key of a SKU's row of an open window."""
        return _OPEN + _window(number) + sku


@dataclass(frozen=True)
class OpenRows:
    """Stored sums of one open window."""

    number: int
    skus: list[str]
    rows: list[bytes]


def _window(number: int) -> bytes:
    return struct.pack(">q", number)


class Store:
    """RocksDB of one partition. One process at a time: a second one is refused by RocksDB's lock."""

    def __init__(self, path: Path) -> None:
        """Open or create. A directory that another process holds, or that RocksDB cannot read, is a `StateMismatch`.

        A full disk, which may pass, is a `FlushFailed`.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _full(path, str(error.strerror)) from error
            msg = f"cannot make the directory {path} ({error.strerror}); set SKUTREND_STATE_DIR to one that can be"
            raise StateMismatch(msg) from error
        try:
            self._db = Rdict(str(path), _options())
        except Exception as error:
            if "Corruption" in str(error):
                raise _damaged(path, str(error)) from error
            if any(os.strerror(number) in str(error) for number in _NO_ROOM):
                raise _full(path, str(error)) from error
            msg = (
                f"cannot open the state in {path}: {error}; "
                "is another worker using SKUTREND_STATE_DIR? else delete it to rebuild"
            )
            raise StateMismatch(msg) from error
        options = WriteOptions()
        options.sync = False  # the process may die at any time; for the machine there are the topics
        self._db.set_write_options(options)
        self._file = path.parent / f".{path.name}.sst"
        self._file.unlink(missing_ok=True)

    def meta(self) -> Meta | None:
        """Read the meta record; None when nothing was ever flushed. An unreadable one is `StateCorrupt`."""
        raw = self._db.get(META)
        if raw is None:
            return None
        try:
            return msgspec.msgpack.decode(raw, type=Meta)
        except msgspec.MsgspecError as error:
            what = f"its meta record is unreadable: {error}"
            raise _damaged(self.path, what) from error

    def position(self) -> int | None:
        """Read the changelog's next offset; None when nothing of a changelog is contained."""
        raw = self._db.get(_POSITION)
        return None if raw is None else msgspec.msgpack.decode(raw, type=int)

    def set_position(self, offset: int) -> None:
        """Remember up to which offset, exclusive, the changelog is contained."""
        with self._writing():
            self._db.put(_POSITION, msgspec.msgpack.encode(offset))

    def write(self, flush: Flush) -> None:
        """Write a flush: all of it or, should the process die in between, nothing."""
        self.stage(flush)()

    def stage(self, flush: Flush, also: Callable[[bytes, bytes], None] | None = None) -> Callable[[], None]:
        """Prepare a flush, and return what makes it seen, whole or not at all.

        also: is given every record on the way, so that rows are laid out once for whoever wants them.
        """
        records = flush.records() if also is None else _tee(flush.records(), also)
        batch = WriteBatch(raw_mode=True)
        if flush.closed_before is not None:
            for kind in (_OPEN, _IDS):
                batch.delete_range(kind + _window(0), kind + _window(flush.closed_before))
        for sku in flush.retired:
            batch.delete(_SKU + sku)
        if flush.bulk:
            self._lay_out(records)
        else:
            for key, value in records:
                batch.put(key, value)

        def finish() -> None:
            if flush.bulk:
                self._ingest()
            with self._writing():
                self._db.write(batch)

        return finish

    def apply(self, latest: Mapping[bytes, bytes | None]) -> None:
        """Take records of the changelog in, None being gone; whole only together with a meta record written after."""
        if not latest:
            return
        self._lay_out((key, latest[key]) for key in sorted(latest))
        self._ingest()

    def _lay_out(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Write ascending records to a table file."""
        self._file.unlink(missing_ok=True)
        writer = SstFileWriter(_options())
        with self._writing():
            writer.open(str(self._file))
            for key, value in records:
                if value is None:
                    del writer[key]
                else:
                    writer[key] = value
            writer.finish()

    def _ingest(self) -> None:
        how = IngestExternalFileOptions()
        how.set_move_files(True)
        with self._writing():
            self._db.ingest_external_file([str(self._file)], how)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if type(error) is not Exception:  # rocksdict raises nothing finer; what is finer is not its own
                raise
            raise _full(self.path, str(error)) from error

    def sku_rows(self, *, at_a_time: int = _AT_ONCE) -> Iterator[tuple[list[str], list[bytes]]]:
        """Go through the stored SKU rows in key order, in parts."""
        for part in self._parts(_SKU, at_a_time):
            yield [key[1:].decode() for key, _ in part], [row for _, row in part]

    def estimate(self) -> int:
        """Guess how many records there are, from what RocksDB knows without looking."""
        return int(self._db.property_int_value("rocksdb.estimate-num-keys") or 0)

    def sku_row(self, sku: str) -> bytes | None:
        """Read the row of one SKU."""
        row: bytes | None = self._db.get(_SKU + sku.encode())
        return row

    def open_rows(self) -> Iterator[OpenRows]:
        """Go through the stored open windows, ascending."""
        current: OpenRows | None = None
        for key, row in self._scan(_OPEN):
            number = struct.unpack(">q", key[:8])[0]
            if current is None or current.number != number:
                if current is not None:
                    yield current
                current = OpenRows(number, [], [])
            current.skus.append(key[8:].decode())
            current.rows.append(row)
        if current is not None:
            yield current

    def ids(self) -> Iterator[tuple[int, int, list[str]]]:
        """Go through the stored event ids: (window, input, ids)."""
        for key, value in self._scan(_IDS):
            yield struct.unpack(">q", key[:8])[0], key[8], msgspec.msgpack.decode(value, type=list[str])

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Go through all that the changelog has too, ascending by key."""
        for kind in (_IDS, META, _OPEN, _SKU):
            for key, value in self._scan(kind):
                yield kind + key, value

    @staticmethod
    def window_of(key: bytes) -> int | None:
        """Give the number of the window at whose close a key goes; None for one that stays."""
        return struct.unpack(">q", key[1:9])[0] if key[:1] in {_IDS, _OPEN} else None

    @staticmethod
    def name_of(key: bytes) -> str:
        """Name a record for a person."""
        if key[:1] == _SKU:
            return f"the row of SKU {key[1:].decode('utf-8', 'backslashreplace')!r}"
        if key[:1] == _OPEN:
            sku = key[9:].decode("utf-8", "backslashreplace")
            return f"the row of SKU {sku!r} in open window {Store.window_of(key)}"
        if key[:1] == _IDS:
            return f"event ids {key[9:].hex()} of window {Store.window_of(key)}"
        return "the meta record"

    def open_keys(self) -> Iterator[tuple[int, bytes]]:
        """Go through the keys of all that goes when its window closes: (window, key as in the changelog)."""
        for kind in (_IDS, _OPEN):
            for key, _ in self._scan(kind):
                yield struct.unpack(">q", key[:8])[0], kind + key

    def _scan(self, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
        for part in self._parts(kind, _IDS_AT_ONCE if kind == _IDS else _AT_ONCE):
            for key, value in part:
                yield key[1:], value

    def _parts(self, kind: bytes, at_a_time: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """Go through the records of a kind, so many at a time: what is done for each of them costs most here."""
        items, last = self._db.items(from_key=kind), kind
        while part := list(islice(items, at_a_time)):
            is_over = part[-1][0][:1] != kind
            if is_over:
                part = [item for item in part if item[0][:1] == kind]
            if part:
                last = part[-1][0]
                yield part
            if is_over:
                return
        self._check_end(last)

    def _check_end(self, last: bytes) -> None:
        """Raise `StateCorrupt` where a scan ended because what follows cannot be read: `items` does not say."""
        ending = self._db.iter()
        ending.seek(last + b"\0")
        try:
            ending.status()
        except Exception as error:
            raise _damaged(self.path, str(error)) from error

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(f.stat().st_size for f in self.path.rglob("*") if f.is_file())

    def checkpoint(self, folder: Path) -> None:
        """Freeze the state as it is in a new directory on the same disk: hard links, and what memtables hold."""
        shutil.rmtree(folder, ignore_errors=True)
        with self._writing():
            Checkpoint(self._db).create_checkpoint(str(folder))

    def compact(self) -> None:
        """Write memtables out and compact, so that `size_bytes` is what rests."""
        self._db.flush()
        self._db.compact_range(None, None)

    def close(self) -> None:
        """Close; the lock is free afterwards, also where the disk does not take what RocksDB still holds in memory.

        All of that is in its log or in the changelog, and whoever was told of a flush can find it there.
        """
        try:
            with self._writing():
                self._db.close()
        except FlushFailed as error:
            log.warning("%s", error)
            del self._db  # the last reference: RocksDB lets go without writing

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether there is a partition's state in a directory."""
        return (path / "CURRENT").exists()

    @staticmethod
    def destroy(path: Path) -> None:
        """Remove a partition's state."""
        shutil.rmtree(path, ignore_errors=True)


def _damaged(path: Path, what: str) -> StateCorrupt:
    return StateCorrupt(f"the state in {path} is damaged ({what}); delete that directory to rebuild it")


def _full(path: Path, what: str) -> FlushFailed:
    return FlushFailed(f"the state in {path} cannot be written: {what}; see whether the disk is full or gone")


def _tee(records: Iterable[tuple[bytes, bytes]], also: Callable[[bytes, bytes], None]) -> Iterator[tuple[bytes, bytes]]:
    for key, value in records:
        also(key, value)
        yield key, value


def _options() -> Options:
    """Small and bounded: the working copy is in memory, RocksDB is only read at start."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(_BLOCK_CACHE_BYTES))
    table.set_block_size(_BLOCK_BYTES)
    options.set_block_based_table_factory(table)
    return options
