"""The columnar reading of aiokafka's fetch responses.

aiokafka unpacks a response through the class its fetcher module calls `PartitionRecords`, one `ConsumerRecord` per
record. For consumers that carry the mark `Columns` in the place of a key deserializer, `ColumnRecords` takes that
place and yields one `RecordBatch` per up to `MAX_ROWS` records; every other consumer of the process keeps aiokafka's.
Checksums, aborted transactions, control batches and compression stay aiokafka's in both, but for the decoders, which
have a limit (streams/kafka/decompression.py).

A record batch that cannot be decoded is passed over by the offsets in its header, which the broker wrote, and the
`RecordBatch` says so (`skipped`): an error would be raised at every fetch anew, and the input would be stuck.
It is fetched a second time before that: the connection may have damaged it.

Leans on private names of that class, each held by a test: `_tp`, `next_fetch_offset`, `_records`, `_check_crcs`,
`_unpack_records`, `_consumer_record`, `_key_deserializer`; and on the fetcher looking `PartitionRecords` up in its
module at each response.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

from schemas.errors import TooLarge, Undecodable
from streams.kafka import decompression
from streams.kafka.batch import RecordBatch, Skipped

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)
MAX_ROWS: Final = 20_000  # bounds how long one fold may hold the event loop
UNDECODABLE: Final = (TooLarge, Undecodable, CorruptRecordException, UnsupportedCodecError, UnicodeDecodeError)
"""All that decoding a record batch raises; UnicodeDecodeError is the name of a header."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Marks a consumer whose records are read as columns; takes the place of a key deserializer, but is never called.

    limit_bytes: how much keys, values and headers of one fetch from one partition may take; what is beyond is fetched
    again. suspects: by topic-partition, the offset of a record batch that could not be decoded once.
    """

    limit_bytes: int = decompression.DEFAULT_LIMIT_BYTES
    suspects: dict[Any, int] = field(default_factory=dict)

    def __call__(self, key: bytes) -> bytes:
        """Leave a key as it is."""
        return key


class _Watched:
    """aiokafka's records of a response; knows the batch that is being read, once its checksum is verified."""

    def __init__(self, records: Any, *, check_crcs: bool) -> None:  # noqa: ANN401  # aiokafka has no types
        self._records = records
        self._check_crcs = check_crcs
        self.current: Any = None

    def has_next(self) -> bool:
        has_next: bool = self._records.has_next()
        return has_next

    def next_batch(self) -> Any:  # noqa: ANN401
        self.current = None
        batch = self._records.next_batch()
        if self._check_crcs and not batch.validate_crc():
            msg = "a record batch does not fit its checksum"
            raise CorruptRecordException(msg)
        self.current = batch
        return batch


class ColumnRecords(PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """The records of one fetch response, in batches that chain over every offset of the response."""

    next_fetch_offset: int
    _records: Any
    _check_crcs: bool
    _open: RecordBatch  # not yielded yet
    _size: int  # bytes of keys, values and headers so far

    def _consumer_record(self, _tp: object, record: object) -> object:
        return record

    def _unpack_records(self) -> Iterator[RecordBatch]:
        """Yield batches; the last one reaches to where the next fetch will start, even when no row is left for it."""
        self._records = watched = _Watched(self._records, check_crcs=self._check_crcs)
        self._check_crcs = False
        self._open, self._size = self._empty(), 0
        is_over = False
        while not is_over:
            try:
                yield from self._columns(super()._unpack_records())
                is_over = True
            except UNDECODABLE as error:
                if watched.current is None:  # what the header says cannot be trusted
                    raise
                is_over = not self._pass_over(watched.current, error)
        self._open.next = self.next_fetch_offset
        if self._open.next > self._open.start:
            yield self._open

    def _columns(self, records: Iterator[Any]) -> Iterator[RecordBatch]:
        """Yield batches that are full, and leave the one that is not in `_open`; end where the limit is reached."""
        limit, batch, size = self._key_deserializer.limit_bytes, self._open, self._size
        offsets = batch.offsets
        try:
            for record in records:
                key, value = record.key, record.value
                offsets.append(record.offset)
                batch.keys.append(key)
                batch.values.append(value)
                if key is not None:
                    size += len(key)
                if value is not None:
                    size += len(value)
                if record.headers:
                    batch.headers[len(offsets) - 1] = headers = list(record.headers)
                    size += sum(len(name) + len(each or b"") for name, each in headers)
                if len(offsets) >= MAX_ROWS or size >= limit:
                    batch.next = self.next_fetch_offset
                    yield batch
                    self._open = batch = self._empty()
                    offsets = batch.offsets
                    if size >= limit:
                        return
        finally:
            self._size = size

    def _pass_over(self, broken: Any, error: Exception) -> bool:  # noqa: ANN401
        """Go on behind a record batch that cannot be decoded; False where it is to be fetched once more before."""
        suspects, at = self._key_deserializer.suspects, self.next_fetch_offset
        if suspects.get(self._tp) != at:
            suspects[self._tp] = at
            log.warning("%s[%d]@%d cannot be decoded, to be fetched again: %s", *self._tp, at, error)
            return False
        del suspects[self._tp]
        first, last = max(at, getattr(broken, "base_offset", at)), broken.next_offset - 1
        if first <= last:
            self._open.skipped.append(self._skipped(first, last, error))
        self.next_fetch_offset = broken.next_offset
        return True

    def _skipped(self, first: int, last: int, error: Exception) -> Skipped:
        count = last - first + 1
        where = f"{self._tp.topic}[{self._tp.partition}]@{first} to @{last}"
        if isinstance(error, TooLarge):
            code, why = error.code, str(error)
            remedy = "let its producer send smaller batches, and send these records again"
        else:
            code, why = Undecodable.code, f"their batch cannot be decoded ({error})"
            remedy = "see which producer or broker has damaged it, and send these records again"
        what = "1 record was" if count == 1 else f"{count:,} records were"
        return Skipped(first, last, code, f"{where}: {what} not read, since {why}; {remedy}")

    def _empty(self) -> RecordBatch:
        start = self.next_fetch_offset
        return RecordBatch(self._tp.topic, self._tp.partition, start, start)


def _records_of(tp: Any, records: Any, aborted: Any, offset: int, *rest: Any) -> PartitionRecords:  # noqa: ANN401
    """Replace `PartitionRecords` in the fetcher; `rest` begins with the key deserializer."""
    kind = ColumnRecords if isinstance(rest[0], Columns) else PartitionRecords
    return kind(tp, records, aborted, offset, *rest)


def install(limit_bytes: int = decompression.DEFAULT_LIMIT_BYTES) -> None:
    """Make aiokafka's fetcher read columns, and its decoders limited; may be called more than once."""
    fetcher.PartitionRecords = _records_of
    decompression.install(limit_bytes)
