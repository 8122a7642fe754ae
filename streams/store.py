"""The durable copy of a partition: one RocksDB per partition, written in atomic batches with the input offsets.

Keys (numbers big-endian, so that ranges are windows):

    m                          the meta record (msgpack of features.rows.Meta): what everything else has absorbed
    s <sku>                    row of a SKU, as of the last closed window
    o <window:8> <sku>         what an open window has folded for a SKU
    d <window:8> <input:1> <sequence:8>   event ids admitted into an open window since the previous flush (msgpack)
    t                          a flush larger than one batch is being written; the meta record that ends it removes it
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

from features.rows import Meta
from schemas.errors import StateMismatch

_META, _SKU, _OPEN, _IDS, _TORN = b"m", b"s", b"o", b"d", b"t"
_BATCH_BYTES = 512 << 20  # a flush of some 400,000 SKUs is still atomic
_BLOCK_CACHE_BYTES = 16 << 20
_WRITE_BUFFER_BYTES = 32 << 20

Rows = Iterable[tuple[Sequence[bytes], Sequence[bytes]]]


@dataclass
class Flush:
    """All that one flush writes; consumed once. skus: (keys, rows) parts; folded by window; ids by (window, input)."""

    meta: Meta
    skus: Rows = ()
    folded: dict[int, tuple[Sequence[bytes], Sequence[bytes]]] = field(default_factory=dict)
    ids: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    closed_before: int | None = None


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
        """Open or create. A directory that another process holds, or that RocksDB cannot read, is a `StateMismatch`."""
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Rdict(str(path), _options())
        except Exception as error:
            msg = (
                f"cannot open the state in {path}: {error}; "
                "is another worker using SKUTREND_STATE_DIR? else delete it to rebuild"
            )
            raise StateMismatch(msg) from error
        self._sync = WriteOptions()
        self._sync.sync = False  # the process may die at any time; for the machine there are the topics
        self._db.set_write_options(self._sync)

    def meta(self) -> Meta | None:
        """Read the meta record; None when nothing was ever flushed. A torn flush is a `StateMismatch`."""
        if self._db.get(_TORN) is not None:
            msg = (
                f"the last flush into {self.path} was interrupted half-way; "
                "delete that directory to rebuild it from the input topics"
            )
            raise StateMismatch(msg)
        raw = self._db.get(_META)
        if raw is None:
            return None
        try:
            return msgspec.msgpack.decode(raw, type=Meta)
        except msgspec.MsgspecError as error:
            msg = (
                f"the meta record in {self.path} is unreadable ({error}); "
                "delete that directory to rebuild it from the input topics"
            )
            raise StateMismatch(msg) from error

    def write(self, flush: Flush) -> None:
        """Write a flush: in one atomic batch, or a huge one in several between the torn mark and the meta record."""
        batch = WriteBatch(raw_mode=True)
        if flush.closed_before is not None:
            for kind in (_OPEN, _IDS):
                batch.delete_range(kind + _window(0), kind + _window(flush.closed_before))
        for keys, rows in flush.skus:
            for key, row in zip(keys, rows, strict=True):
                batch.put(_SKU + key, row)
            batch = self._spill(batch)
        for number, (keys, rows) in flush.folded.items():
            prefix = _OPEN + _window(number)
            for key, row in zip(keys, rows, strict=True):
                batch.put(prefix + key, row)
            batch = self._spill(batch)
        for (number, source), ids in flush.ids.items():
            key = _IDS + _window(number) + bytes([source]) + struct.pack(">Q", flush.meta.sequence)
            batch.put(key, msgspec.msgpack.encode(ids))
        batch.put(_META, msgspec.msgpack.encode(flush.meta))
        batch.delete(_TORN)
        self._db.write(batch)

    def _spill(self, batch: WriteBatch) -> WriteBatch:
        """Bound the memory of a flush: a batch that is full is written under the torn mark."""
        if batch.size_in_bytes() < _BATCH_BYTES:
            return batch
        batch.put(_TORN, b"")
        self._db.write(batch)
        return WriteBatch(raw_mode=True)

    def sku_rows(self, *, at_a_time: int = 16_384) -> Iterator[tuple[list[str], list[bytes]]]:
        """Go through the stored SKU rows in key order, in parts."""
        skus: list[str] = []
        rows: list[bytes] = []
        for key, row in self._scan(_SKU):
            skus.append(key.decode())
            rows.append(row)
            if len(skus) == at_a_time:
                yield skus, rows
                skus, rows = [], []
        if skus:
            yield skus, rows

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

    def _scan(self, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._db.items(from_key=kind):
            if key[:1] != kind:
                return
            yield key[1:], value

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(f.stat().st_size for f in self.path.rglob("*") if f.is_file())

    def settle(self) -> None:
        """Write memtables out and compact, so that `size_bytes` is what rests."""
        self._db.flush()
        self._db.compact_range(None, None)

    def close(self) -> None:
        """Close; the lock is free afterwards."""
        self._db.close()

    @staticmethod
    def destroy(path: Path) -> None:
        """Remove a partition's state."""
        shutil.rmtree(path, ignore_errors=True)


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
    options.set_block_based_table_factory(table)
    return options
