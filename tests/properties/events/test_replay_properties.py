from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from schemas.inputs import INPUT_NAMES, InputName
from streams.events.files import read, read_in_order, schema
from streams.events.replay import Events, encode_rows, merge

if TYPE_CHECKING:
    from collections.abc import Iterator

TIES: tuple[InputName, ...] = ("price-changes", "clicks", "orders")
FIELDS: dict[InputName, dict[str, Any]] = {
    "orders": {"order_id": "o", "quantity": 1.0, "unit_price": 1.0, "currency": "GBP"},
    "clicks": {"session_id": "s", "kind": "view"},
    "price-changes": {"price": 1.0, "currency": "GBP", "kind": "list"},
}

# few distinct times, so that ties within a batch, across batches and across kinds are common
batches_of_times = st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=6)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


def rows_of(kind: InputName, times: list[int]) -> list[dict[str, Any]]:
    return [
        FIELDS[kind] | {"event_id": f"{kind}-{n}", "sku": f"sku{n % 3}", "event_time_ms": time}
        for n, time in enumerate(times)
    ]


def in_batches(kind: InputName, times: list[int], sizes: list[int]) -> Iterator[pa.RecordBatch]:
    rows = iter(rows_of(kind, times))
    for size in sizes:
        if size:
            yield pa.RecordBatch.from_pylist(list(itertools.islice(rows, size)), schema=schema(kind))


@given(st.fixed_dictionaries(dict.fromkeys(INPUT_NAMES, batches_of_times)))
def test_a_merge_is_the_stable_sort_of_everything(chunks: dict[InputName, list[list[int]]]) -> None:
    times = {kind: sorted(itertools.chain.from_iterable(chunks[kind])) for kind in INPUT_NAMES}
    expected = sorted(
        ((time, rank, f"{kind}-{n}") for rank, kind in enumerate(TIES) for n, time in enumerate(times[kind])),
        key=lambda event: event[:2],
    )
    merged = []
    for events in merge({kind: in_batches(kind, times[kind], [len(c) for c in chunks[kind]]) for kind in INPUT_NAMES}):
        assert len(events), "a merge yields no empty parts"
        for time, rank, key, value in zip(events.times, events.ranks, events.keys, events.values, strict=True):
            fields = json.loads(value)
            assert fields["event_time_ms"] == time
            assert fields["sku"].encode() == key
            merged.append((time, rank, fields["event_id"]))
    assert merged == expected


@given(st.lists(st.integers(-50, 50), min_size=1).map(sorted), st.integers(1, 30), st.integers(1, 5))
def test_slices_keep_everything_cross_no_boundary_and_stay_small(times: list[int], slice_ms: int, rows: int) -> None:
    (batch,) = in_batches("clicks", times, [len(times)])
    keys, values, stamps = encode_rows("clicks", batch)
    events = Events(stamps, np.ones(len(times), np.int64), keys, values)
    slices = list(events.slices(slice_ms=slice_ms, max_rows=rows))
    assert [value for part in slices for value in part.values] == list(events.values)
    assert [time for part in slices for time in part.times.tolist()] == times
    for part in slices:
        assert len(part) <= rows
        assert len({time // slice_ms for time in part.times.tolist()}) == 1
    for one, other in itertools.pairwise(slices):
        same = one.times[0] // slice_ms == other.times[0] // slice_ms
        assert not same or len(one) == rows, "slices are cut where they need not be"


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 7))
def test_reading_in_order_is_a_stable_sort_whatever_the_order(times: list[int], batch_rows: int) -> None:
    rows = rows_of("orders", [1_700_000_000_000 + time for time in times])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "orders.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema("orders")), path)
        found = [row for b in read_in_order(path, "orders", batch_rows=batch_rows) for row in b.to_pylist()]
    assert [row["event_id"] for row in found] == [
        row["event_id"] for row in sorted(rows, key=lambda row: row["event_time_ms"])
    ]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "event_id": texts,
                "sku": texts,
                "price": st.floats(allow_nan=False, allow_infinity=False),
                "previous_price": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "currency": texts,
                "kind": st.sampled_from(["list", "promotion", "markdown"]),
                "event_time_ms": st.integers(-(2**63), 2**63 - 1),
            }
        ),
        min_size=1,
        max_size=10,
    ),
    st.integers(1, 4),
)
def test_json_lines_and_parquet_hold_any_text_and_number(rows: list[dict[str, Any]], batch_rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines, parquet = Path(folder) / "events.jsonl", Path(folder) / "events.parquet"
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(rows), parquet)
        for path in (lines, parquet):
            found = [row for b in read(path, "price-changes", batch_rows=batch_rows) for row in b.to_pylist()]
            assert found == rows
