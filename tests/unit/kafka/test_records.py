"""Fetch responses, laid out by aiokafka's own writer, as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka import records
from streams.kafka.batch import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

TP = TopicPartition("orders", 3)
Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def written(rows: Sequence[Row], *, base: int = 0) -> bytes:
    """One record batch as a broker stores it; the offset of a row counts from `base`."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for offset, key, value, headers in rows:
        assert builder.append(offset, timestamp=1_000 + offset, key=key, value=value, headers=headers) is not None
    raw = bytearray(builder.build())
    raw[0:8] = base.to_bytes(8, "big")  # the base offset is not covered by the checksum
    return bytes(raw)


def unpack(parts: Sequence[bytes], *, offset: int = 0, kind: Any = records.ColumnRecords) -> list[Any]:  # noqa: ANN401
    made = kind(TP, MemoryRecords(b"".join(parts)), [], offset, records.COLUMNS, None, True, fetcher.READ_COMMITTED)
    return list(made._records_iterator)  # noqa: SLF001 - as the fetcher reads it


ROWS = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=4),
        st.none() | st.binary(max_size=4),
        st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=2),
    ),
    min_size=1,
    max_size=12,
)


@given(st.lists(ROWS, min_size=1, max_size=3), st.integers(1, 5), st.data())
def test_batches_chain_over_every_offset_and_hold_every_row(
    batches: list[list[Any]], limit: int, data: st.DataObject
) -> None:
    expected, parts, ends, base = [], [], [], 0
    for rows in batches:
        parts.append(written([(n, *row) for n, row in enumerate(rows)], base=base))
        expected += [(base + n, 1_000 + n, *row) for n, row in enumerate(rows)]
        base += len(rows)
        ends.append(base)
    start = data.draw(st.integers(0, base - 1))
    answered = [part for part, end in zip(parts, ends, strict=True) if end > start]  # from the batch that holds it on
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_ROWS", limit)
        found: list[RecordBatch] = unpack(answered, offset=start)
    assert [batch.start for batch in found] == [start, *(batch.next for batch in found[:-1])]
    assert found[-1].next == base
    assert all(1 <= len(batch) <= limit for batch in found)
    rows = [
        (batch.offsets[n], batch.timestamps[n], batch.keys[n], batch.values[n], batch.headers.get(n, []))
        for batch in found
        for n in range(len(batch))
    ]
    assert rows == expected[start:]
    assert all(batch.headers.keys() <= set(range(len(batch))) for batch in found)


def test_offsets_that_hold_no_record_are_spoken_for_all_the_same() -> None:
    """A compacted batch: rows 0 and 4 are left of 0 to 6, then the log goes on at 9."""
    gappy = written([(0, b"k", b"a", []), (4, b"k", b"b", [])], base=10)
    after = written([(0, b"k", b"c", [])], base=19)
    (batch,) = unpack([gappy, after], offset=10)
    assert (batch.start, batch.next) == (10, 20)
    assert batch.offsets == [10, 14, 19]


def control(*, at: int, commit: bool) -> bytes:
    """The marker that ends a transaction: one offset without a record."""
    raw = bytearray(written([(0, b"\0\0\0" + bytes([commit]), b"\0" * 6, [])], base=at))
    raw[21:23] = (0x30).to_bytes(2, "big")  # transactional, control
    raw[17:21] = calc_crc32c(raw[21:]).to_bytes(4, "big")
    return bytes(raw)


def test_the_last_batch_reaches_over_transaction_markers_also_where_nothing_else_is_left() -> None:
    rows = written([(0, b"k", b"v", [])], base=5)
    (batch,) = unpack([rows, control(at=6, commit=True), control(at=7, commit=False)], offset=5)
    assert (batch.offsets, batch.start, batch.next) == ([5], 5, 8)
    (empty,) = unpack([control(at=6, commit=True)], offset=6)
    assert (len(empty), empty.start, empty.next) == (0, 6, 7)


def test_a_response_of_rows_before_the_asked_offset_is_an_empty_batch_or_none() -> None:
    rows: list[Row] = [(n, b"k", b"v", []) for n in range(3)]
    (batch,) = unpack([written(rows)], offset=2)
    assert (batch.offsets, batch.start, batch.next) == ([2], 2, 3)
    assert unpack([]) == []


def test_a_row_says_where_it_came_from() -> None:
    (batch,) = unpack([written([(0, None, b"v", [])], base=7)], offset=7)
    assert batch.source(0) == "orders[3]@7"
    assert len(batch) == 1
    assert (batch.generation, batch.seeks) == (-1, -1)


def test_only_consumers_with_the_mark_get_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "PartitionRecords", PartitionRecords)
    records.install()
    records.install()
    arguments = (TP, MemoryRecords(written([(0, b"k", b"v", [])])), [], 0)
    rest = (None, True, fetcher.READ_COMMITTED)
    assert type(fetcher.PartitionRecords(*arguments, records.COLUMNS, *rest)) is records.ColumnRecords
    plain = fetcher.PartitionRecords(*arguments, None, *rest)
    assert type(plain) is PartitionRecords
    (record,) = list(plain._records_iterator)  # noqa: SLF001 - as the fetcher reads it
    assert (record.key, record.value, record.offset) == (b"k", b"v", 0)
