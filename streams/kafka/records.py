"""The columnar reading of aiokafka's fetch responses.

aiokafka unpacks a response through the class its fetcher module calls `PartitionRecords`, one `ConsumerRecord` per
record. For consumers that carry the mark `COLUMNS` in the place of a key deserializer, `ColumnRecords` takes that
place and yields one `RecordBatch` per up to `MAX_ROWS` records; every other consumer of the process keeps aiokafka's.
Checksums, aborted transactions, control batches and compression stay aiokafka's in both.

Leans on private names of that class, each held by a test: `_tp`, `next_fetch_offset`, `_unpack_records`,
`_consumer_record`; and on the fetcher looking `PartitionRecords` up in its module at each response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords

from streams.kafka.batch import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ROWS: Final = 20_000  # bounds how long one fold may hold the event loop


def COLUMNS(key: bytes) -> bytes:  # noqa: N802  # a constant that has to look like a key deserializer
    """Mark a consumer as one that wants columns; never called."""
    return key


class ColumnRecords(PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """The records of one fetch response, in batches that chain over every offset of the response."""

    def _consumer_record(self, _tp: object, record: object) -> object:
        return record

    def _unpack_records(self) -> Iterator[RecordBatch]:
        """Yield batches; the last one reaches to where the next fetch will start, even when no row is left for it."""
        batch = self._empty()
        for record in super()._unpack_records():
            batch.offsets.append(record.offset)
            batch.timestamps.append(record.timestamp)
            batch.keys.append(record.key)
            batch.values.append(record.value)
            if record.headers:
                batch.headers[len(batch.offsets) - 1] = list(record.headers)
            if len(batch.offsets) >= MAX_ROWS:
                batch.next = self.next_fetch_offset
                yield batch
                batch = self._empty()
        batch.next = self.next_fetch_offset
        if batch.next > batch.start:
            yield batch

    def _empty(self) -> RecordBatch:
        start = self.next_fetch_offset
        return RecordBatch(self._tp.topic, self._tp.partition, start, start)


def _records_of(tp: Any, records: Any, aborted: Any, offset: int, *rest: Any) -> PartitionRecords:  # noqa: ANN401
    """Stand where the fetcher expects `PartitionRecords`; `rest` begins with the key deserializer."""
    kind = ColumnRecords if rest[0] is COLUMNS else PartitionRecords
    return kind(tp, records, aborted, offset, *rest)


def install() -> None:
    """Teach aiokafka's fetcher about columns; more than once does no harm."""
    fetcher.PartitionRecords = _records_of
