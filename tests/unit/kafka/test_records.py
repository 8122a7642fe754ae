"""Fetch responses, laid out by aiokafka's own writer, as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka import decompression, records
from streams.kafka.batch import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TP = TopicPartition("orders", 3)
LIMIT = 1 << 20
HEADER = 61  # bytes of a record batch before its records
CODECS = pytest.mark.parametrize("compression", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def written(rows: Sequence[Row], *, base: int = 0, compression: int = 0) -> bytes:
    """One record batch as a broker stores it; the offset of a row counts from `base`."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    for offset, key, value, headers in rows:
        assert builder.append(offset, timestamp=1_000 + offset, key=key, value=value, headers=headers) is not None
    raw = bytearray(builder.build())
    raw[0:8] = base.to_bytes(8, "big")  # the base offset is not covered by the checksum
    return bytes(raw)


def unpack(parts: Sequence[bytes], *, offset: int = 0, mark: records.Columns | None = None) -> list[Any]:
    """What one fetch gives of a response that holds these record batches."""
    made = records.ColumnRecords(
        TP, MemoryRecords(b"".join(parts)), [], offset, mark or records.Columns(), None, True, fetcher.READ_COMMITTED
    )
    return list(made._records_iterator)  # noqa: SLF001 - as the fetcher reads it


def fetch_all(parts: Sequence[bytes], *, limit_bytes: int = LIMIT) -> list[RecordBatch]:
    """Fetch until the end, as a broker answers: from the record batch on that holds the asked offset."""
    mark, found, at = records.Columns(limit_bytes), list[RecordBatch](), 0
    ends = [int.from_bytes(part[:8], "big") + int.from_bytes(part[23:27], "big") + 1 for part in parts]
    for _ in range(3 * len(parts) + 3):
        answered = [part for part, end in zip(parts, ends, strict=True) if end > at]
        if not answered:
            return found
        for batch in unpack(answered, offset=at, mark=mark):
            assert batch.start == at
            assert batch.next > at
            at = batch.next
            found.append(batch)
    raise AssertionError(f"no end: stands at {at} of {ends[-1]}")  # noqa: EM102


def damaged(raw: bytes, at: int, *to: int) -> bytes:
    """Change bytes behind the header, and sign for it."""
    changed = bytearray(raw)
    changed[at : at + len(to)] = bytes(to)
    changed[17:21] = calc_crc32c(changed[21:]).to_bytes(4, "big")
    return bytes(changed)


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
        expected += [(base + n, *row) for n, row in enumerate(rows)]
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
        (batch.offsets[n], batch.keys[n], batch.values[n], batch.headers.get(n, []))
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
    assert type(fetcher.PartitionRecords(*arguments, records.Columns(), *rest)) is records.ColumnRecords
    plain = fetcher.PartitionRecords(*arguments, None, *rest)
    assert type(plain) is PartitionRecords
    (record,) = list(plain._records_iterator)  # noqa: SLF001 - as the fetcher reads it
    assert (record.key, record.value, record.offset) == (b"k", b"v", 0)


# ---------------------------------------------------------------------- record batches that cannot be decoded
@pytest.fixture
def limited() -> Iterator[None]:
    decompression.install(LIMIT)
    yield
    decompression.install()


def some(count: int, value: bytes = b"v") -> list[Row]:
    return [(n, b"k", value, []) for n in range(count)]


@pytest.mark.usefixtures("limited")
@CODECS
def test_a_batch_beyond_the_limit_is_passed_over_by_its_offsets_and_the_others_are_read(compression: int) -> None:
    bomb = written(some(3, bytes(LIMIT // 2)), base=5, compression=compression)
    assert len(bomb) < LIMIT // 10
    found = fetch_all(
        [written(some(5), compression=compression), bomb, written(some(2), base=8, compression=compression)]
    )
    assert [offset for batch in found for offset in batch.offsets] == [0, 1, 2, 3, 4, 8, 9]
    ((skipped,),) = [batch.skipped for batch in found if batch.skipped]
    assert (skipped.first, skipped.last, len(skipped), skipped.code) == (5, 7, 3, "too_large")
    assert skipped.error.startswith("orders[3]@5 to @7: 3 records were not read, since ")
    assert "decompress to more than 1,048,576; let its producer send smaller batches" in skipped.error


@pytest.mark.usefixtures("limited")
def test_a_batch_that_is_passed_over_belongs_to_the_batch_over_its_offsets() -> None:
    bomb = written(some(1, bytes(LIMIT)), base=2, compression=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_ROWS", 2)
        found = fetch_all([written(some(2)), bomb, written(some(3), base=3)])
    assert [(batch.start, batch.next, batch.offsets, len(batch.skipped)) for batch in found] == [
        (0, 2, [0, 1], 0),
        (2, 5, [3, 4], 1),
        (5, 6, [5], 0),
    ]


@pytest.mark.usefixtures("limited")
def test_it_is_fetched_once_more_before_and_then_each_time_anew() -> None:
    """The connection may have damaged what the broker holds unharmed."""
    mark = records.Columns(LIMIT)
    good, bad = written(some(1), compression=2), damaged(written(some(1), base=1, compression=2), HEADER, *b"garbage")
    (first,) = unpack([good, bad], mark=mark)
    assert (first.next, first.skipped) == (1, [])
    (healed,) = unpack([written(some(1), base=1)], offset=1, mark=mark)
    assert healed.offsets == [1]
    mark = records.Columns(LIMIT)
    assert unpack([bad], offset=1, mark=mark) == []
    (passed,) = unpack([bad, written(some(1), base=2)], offset=1, mark=mark)
    assert ([(each.first, each.last) for each in passed.skipped], passed.offsets) == ([(1, 1)], [2])
    assert unpack([bad], offset=1, mark=mark) == [], "the suspicion is used up"


@pytest.mark.usefixtures("limited")
@CODECS
def test_a_batch_that_cannot_be_decompressed_is_passed_over(compression: int) -> None:
    bad = damaged(written(some(4), base=1, compression=compression), HEADER, *b"garbage")
    ((skipped,),) = [b.skipped for b in fetch_all([written(some(1)), bad, written(some(1), base=5)]) if b.skipped]
    assert (skipped.first, skipped.last, skipped.code) == (1, 4, "undecodable_batch")
    assert "4 records were not read, since their batch cannot be decoded (" in skipped.error


def test_of_a_batch_that_breaks_off_the_records_before_are_read() -> None:
    raw = written([(0, b"k", b"a", []), (1, b"k", b"b", [("name", b"x")]), (2, b"k", b"c", [])])
    not_utf8 = damaged(raw, raw.index(b"name"), 0xFF)
    too_long = damaged(raw, raw.index(b"b") - 1, 0x7E)
    for bad, why in ((not_utf8, "codec can't decode byte 0xff"), (too_long, "Can't read 63 bytes")):
        found = fetch_all([bad, written(some(1), base=3)])
        assert [offset for batch in found for offset in batch.offsets] == [0, 3]
        ((skipped,),) = [batch.skipped for batch in found if batch.skipped]
        assert (skipped.first, skipped.last) == (1, 2)
        assert why in skipped.error


def test_a_codec_that_kafka_does_not_have_is_passed_over() -> None:
    bad = damaged(written(some(2)), 21, 0, 6)
    ((skipped,),) = [batch.skipped for batch in fetch_all([bad, written(some(1), base=2)]) if batch.skipped]
    assert (skipped.first, skipped.last, skipped.code) == (0, 1, "undecodable_batch")


def test_bytes_behind_the_last_record_lose_nothing() -> None:
    raw = written(some(2))
    fewer = damaged(raw, 57, 0, 0, 0, 1)  # the header counts one record
    (batch, *_) = fetch_all([fewer, written(some(1), base=2)])
    assert batch.offsets == [0]
    both = bytearray(damaged(raw + b"\0", 57, 0, 0, 0, 2))
    both[8:12] = (len(both) - 12).to_bytes(4, "big")
    found = fetch_all([bytes(both), written(some(1), base=2)])
    assert [offset for batch in found for offset in batch.offsets] == [0, 1, 2]
    assert not any(batch.skipped for batch in found)


def test_a_checksum_that_does_not_fit_is_an_error_as_ever() -> None:
    raw = bytearray(written(some(1)))
    raw[-1] ^= 1
    for _ in range(2):
        with pytest.raises(CorruptRecordException, match="checksum"):
            unpack([bytes(raw)])


@given(st.integers(0, 4), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_a_batch_holds_the_input_gets_on(compression: int, changes: list[tuple[int, int]]) -> None:
    rows: list[Row] = [(n, b"key%d" % n, b"value" * n, [("h", b"%d" % n)]) for n in range(6)]
    bad = written(rows, base=1, compression=compression)
    for at, to in changes:
        bad = damaged(bad, HEADER + at % (len(bad) - HEADER), to)
    found = fetch_all([written(some(1)), bad, written(some(1), base=7)])
    assert found[-1].next == 8
    assert {0, 7} <= {offset for batch in found for offset in batch.offsets}


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), st.integers(1, 400))
def test_one_fetch_gives_no_more_than_the_limit_and_the_next_goes_on(sizes: list[int], limit_bytes: int) -> None:
    """Many batches each below the limit are as much together as one beyond it."""
    parts = [written([(0, None, bytes(size), [("h", b"1")])], base=n) for n, size in enumerate(sizes)]
    found = unpack(parts, mark=records.Columns(limit_bytes))
    taken = [len(value or b"") + 2 for batch in found for value in batch.values]
    assert sum(taken[:-1]) < limit_bytes
    assert sum(taken) >= limit_bytes or len(taken) == len(sizes)
    everything = fetch_all(parts, limit_bytes=limit_bytes)
    assert [offset for batch in everything for offset in batch.offsets] == list(range(len(sizes)))
