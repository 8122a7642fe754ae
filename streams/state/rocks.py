"""A RocksDB as partitions use it: opened, written in batches or whole table files, gone through in order, closed.

Whatever RocksDB says is translated here (store_errors.py). One process at a time: a second one is refused by its lock.
"""

from __future__ import annotations

import errno
import logging
import shutil
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

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

from schemas.errors import FlushFailed, StateCorrupt, StateInaccessible, StateMismatch
from streams.state.store_errors import RAISED, trouble, trouble_opening

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)
_BLOCK_CACHE_BYTES: Final = 16 << 20
_BLOCK_BYTES: Final = 32 << 10  # all is read in order, once: with RocksDB's own 4 KB that took twice as long
_WRITE_BUFFER_BYTES: Final = 32 << 20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
Record = tuple[bytes, bytes]


class RocksDb:
    """One open RocksDB, and the table file beside it that is being laid out."""

    def __init__(self, path: Path) -> None:
        """Open or create. A directory that another process holds, or that RocksDB cannot read, is a `StateMismatch`.

        What may pass, such as a full disk, is a `FlushFailed`; what will not, `StateInaccessible`.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise trouble(path, f"IO error: {error.strerror}") from error
            msg = f"cannot make the directory {path} ({error.strerror}); set SKUTREND_STATE_DIR to one that can be"
            raise StateMismatch(msg) from error
        try:
            self._db = Rdict(str(path), _options())
        except Exception as error:
            if type(error) not in RAISED:
                raise
            raise trouble_opening(path, str(error)) from error
        options = WriteOptions()
        options.sync = False  # the process may die at any time; for the machine there are the topics
        self._db.set_write_options(options)
        self._file = path.parent / f".{path.name}.sst"
        try:
            self._discard_file()
        except FlushFailed as error:
            self._db.close()
            raise StateMismatch(str(error)) from error

    def get(self, key: bytes) -> bytes | None:
        """Read the value of a key."""
        with self._translated():
            value: bytes | None = self._db.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Write the value of a key."""
        with self._translated():
            self._db.put(key, value)

    def write(self, batch: WriteBatch) -> None:
        """Write a batch: all of it or nothing."""
        with self._translated():
            self._db.write(batch)

    def lay_out(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Write ascending records to a table file, None being a key that is gone; `ingest` takes it in."""
        self._discard_file()
        writer = SstFileWriter(_options())
        with self._translated():
            writer.open(str(self._file))
            for key, value in records:
                if value is None:
                    del writer[key]
                else:
                    writer[key] = value
            writer.finish()

    def ingest(self) -> None:
        """Take the table file in: all of it or nothing."""
        how = IngestExternalFileOptions()
        how.set_move_files(True)
        with self._translated():
            self._db.ingest_external_file([str(self._file)], how)

    def parts(self, prefix: bytes, at_a_time: int) -> Iterator[list[Record]]:
        """Go through the records whose key begins with `prefix`, whose last byte is below 255; see `between`."""
        return self.between(prefix, prefix[:-1] + bytes([prefix[-1] + 1]), at_a_time)

    def between(self, start: bytes, stop: bytes, at_a_time: int) -> Iterator[list[Record]]:
        """Go through the records from `start` on and before `stop`, ascending, so many at a time.

        In parts because what is done for each record costs most here.
        """
        items, last = self._db.items(from_key=start), start
        while part := list(islice(items, at_a_time)):
            is_over = part[-1][0] >= stop
            if is_over:
                part = [item for item in part if item[0] < stop]
            if part:
                last = part[-1][0]
                yield part
            if is_over:
                return
        self._check_end(last)

    def first(self, start: bytes, stop: bytes) -> bytes | None:
        """Find the first key from `start` on and before `stop`."""
        for key, _ in islice(self._db.items(from_key=start), 1):
            return key if key < stop else None
        self._check_end(start)
        return None

    def _check_end(self, last: bytes) -> None:
        """Raise what a scan ended for, where that is because what follows cannot be read: `items` does not say."""
        ending = self._db.iter()
        ending.seek(last + b"\0")
        with self._translated():
            ending.status()

    def estimate(self) -> int:
        """Guess how many records there are, from what RocksDB knows without looking."""
        return int(self._db.property_int_value("rocksdb.estimate-num-keys") or 0)

    def checkpoint(self, folder: Path) -> None:
        """Freeze all of it as it is in a new directory on the same disk: hard links, and what memtables hold."""
        shutil.rmtree(folder, ignore_errors=True)
        with self._translated():
            Checkpoint(self._db).create_checkpoint(str(folder))

    def compact(self) -> None:
        """Write memtables out and compact."""
        with self._translated():
            self._db.flush()
            self._db.compact_range(None, None)

    def close(self) -> None:
        """Close; the lock is free afterwards, also where the disk does not take what RocksDB still holds in memory.

        All of that is in its log or in the changelog.
        """
        try:
            with self._translated():
                self._db.close()
        except (FlushFailed, StateCorrupt, StateInaccessible) as error:
            log.warning("%s", error)
            del self._db  # the last reference: RocksDB lets go without writing

    def _discard_file(self) -> None:
        """Remove what a flush that broke off has left of its table file."""
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            msg = (
                f"{self._file} cannot be removed: {error.strerror} (errno {error.errno}); give the worker the right "
                "to, or remove it yourself"
            )
            raise FlushFailed(msg) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what RocksDB says into ours; what it does not say, such as a mistake in what it is given, stays."""
        try:
            yield
        except Exception as error:
            if type(error) not in RAISED:
                raise
            raise trouble(self.path, str(error)) from error


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
