from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.clicks import Click
from schemas.errors import BadInput
from schemas.inputs import BY_NAME, INPUT_NAMES, InputName
from schemas.orders import OrderLine
from schemas.price_changes import PriceChange
from streams.events.files import event_times, read, read_in_order, schema, survey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

T0 = 1_291_190_400_000
SUFFIXES = (".parquet", ".csv", ".jsonl")

# text that a careless reader turns into nulls, numbers, booleans or two fields
AWKWARD = (
    "NA",
    "null",
    "nan",
    "00123",
    "true",
    "1e5",
    'a "quoted", one',
    "two\nlines",
    "Größe 7½ \N{OK HAND SIGN}",
    " x ",
)

ROWS: Mapping[InputName, list[dict[str, Any]]] = {
    "orders": [
        {
            "event_id": f"e-{n}",
            "order_id": f"o-{n // 2}",
            "sku": sku,
            "quantity": n - 3 + 0.25,
            "unit_price": 0.1 * n,
            "currency": "GBP",
            "event_time_ms": T0 + n // 2,
            "customer_id": None if n % 2 else f"c{n}",
            "channel": None if n % 3 else "web",
            "category": None,
        }
        for n, sku in enumerate(AWKWARD)
    ],
    "clicks": [
        {
            "event_id": f"e-{n}",
            "session_id": "s",
            "sku": sku,
            "kind": ("view", "cart", "purchase")[n % 3],
            "event_time_ms": T0,
        }
        for n, sku in enumerate(AWKWARD)
    ],
    "price-changes": [
        {
            "event_id": f"e-{n}",
            "sku": sku,
            "price": 1e-3 + n,
            "previous_price": None if n == 1 else 3.75,
            "currency": "GBP",
            "kind": ("list", "promotion", "markdown")[n % 3],
            "event_time_ms": T0 + n,
        }
        for n, sku in enumerate(AWKWARD)
    ],
}
ORDER = ROWS["orders"][0]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path: Path, kind: InputName, **options: int) -> list[dict[str, Any]]:
    return [row for batch in read(path, kind, **options) for row in batch.to_pylist()]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", INPUT_NAMES)
def test_what_is_written_in_any_format_is_read_back_exactly(tmp_path: Path, kind: InputName, suffix: str) -> None:
    path = write(tmp_path / f"events{suffix}", ROWS[kind])
    assert rows_of(path, kind) == ROWS[kind]
    assert rows_of(path, kind, batch_rows=3) == ROWS[kind]
    assert [batch.num_rows for batch in read(path, kind, batch_rows=4)] == [4, 4, 2]
    assert all(batch.schema == schema(kind) for batch in read(path, kind))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_may_come_in_any_order_with_strangers_among_them_and_nullable_ones_left_out(
    tmp_path: Path, suffix: str
) -> None:
    bare = [{name: row[name] for name in reversed(row) if row[name] is not None} for row in ROWS["orders"][:1]]
    for row in bare:
        del row["customer_id"], row["channel"]
    path = write(tmp_path / f"events{suffix}", [{"colour": "red"} | row for row in bare])
    assert rows_of(path, "orders") == [ORDER | {"customer_id": None, "channel": None, "category": None}]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_numbers_stand_for_fractions(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"events{suffix}", [ORDER | {"quantity": 6, "unit_price": 2}])
    (row,) = rows_of(path, "orders")
    assert (row["quantity"], row["unit_price"]) == (6.0, 2.0)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("missing", ["event_id", "sku", "quantity", "event_time_ms"])
def test_a_missing_column_is_named_with_the_file_and_what_it_should_hold(
    tmp_path: Path, suffix: str, missing: str
) -> None:
    path = write(tmp_path / f"events{suffix}", [{name: ORDER[name] for name in ORDER if name != missing}])
    with pytest.raises(BadInput, match=missing) as caught:
        rows_of(path, "orders")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("quantity", "six", "quantity"),
        ("event_time_ms", "2010-12-01 08:26", "event_time_ms"),
        ("quantity", float("nan"), "quantity|malformed|invalid"),
        ("unit_price", float("inf"), "unit_price|malformed|invalid"),
        ("unit_price", None, "unit_price"),
    ],
)
def test_a_value_that_does_not_fit_is_reported_with_the_file(
    tmp_path: Path, suffix: str, column: str, value: object, told: str
) -> None:
    path = write(tmp_path / f"events{suffix}", [ORDER | {column: value}])
    with pytest.raises(BadInput, match=told) as caught:
        rows_of(path, "orders")
    assert str(path) in str(caught.value)


def test_the_sentence_says_what_was_found_and_what_was_expected(tmp_path: Path) -> None:
    path = write(tmp_path / "events.parquet", [ORDER | {"sku": 21_730}])
    with pytest.raises(BadInput) as caught:
        read(path, "orders")
    assert str(caught.value) == f"{path}: column sku is int64, expected text"

    path = write(tmp_path / "stamps.parquet", [ORDER | {"event_time_ms": pd.Timestamp("2010-12-01")}])
    with pytest.raises(BadInput, match=r"event_time_ms is timestamp\[.*expected a whole number \(epoch milliseconds\)"):
        read(path, "orders")

    path = write(tmp_path / "events.csv", [ORDER, ORDER | {"quantity": "six"}])
    with pytest.raises(BadInput, match=r", line 3: column quantity is 'six', expected a number$"):
        rows_of(path, "orders")

    path = write(tmp_path / "events.jsonl", [ORDER, ORDER | {"quantity": "six"}])
    with pytest.raises(BadInput, match=r"line 2: Expected `float`, got `str` - at `\$.*quantity`"):
        rows_of(path, "orders")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_null_where_none_may_be_is_reported_with_its_row(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"events{suffix}", [*[ORDER] * 10, ORDER | {"unit_price": None}])
    with pytest.raises(BadInput, match=r"row 11|line 11"):
        list(read(path, "orders", batch_rows=4))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_kind_nobody_knows_is_reported_with_its_row_and_the_known_ones(tmp_path: Path, suffix: str) -> None:
    rows = [*ROWS["clicks"], ROWS["clicks"][0] | {"kind": "stare"}]
    path = write(tmp_path / f"events{suffix}", rows)
    with pytest.raises(BadInput, match="kind is 'stare' in row 11, expected one of view, cart, purchase"):
        list(read(path, "clicks", batch_rows=4))


def test_a_file_written_by_pandas_is_read_with_its_categories_and_nans(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS["price-changes"]).astype({"sku": "category", "price": "float32"})
    assert frame["previous_price"].isna().any()
    frame.to_parquet(tmp_path / "pandas.parquet")
    pq.write_table(
        pa.table({name: pa.array(frame[name], from_pandas=False) for name in frame.columns}), tmp_path / "nan.parquet"
    )
    for name in ("pandas.parquet", "nan.parquet"):
        rows = rows_of(tmp_path / name, "price-changes")
        assert [row["sku"] for row in rows] == list(AWKWARD)
        assert [row["previous_price"] for row in rows] == [row["previous_price"] for row in ROWS["price-changes"]]


def test_a_time_beyond_64_bits_is_reported_with_its_column(tmp_path: Path) -> None:
    beyond = [ORDER | {"event_time_ms": 2**63}]
    columns = {name: pa.array([value]) for name, value in ORDER.items() if name != "event_time_ms"}
    pq.write_table(pa.table(columns | {"event_time_ms": pa.array([2**63], pa.uint64())}), tmp_path / "events.parquet")
    for path in (
        tmp_path / "events.parquet",
        write(tmp_path / "events.csv", beyond),
        write(tmp_path / "events.jsonl", beyond),
    ):
        with pytest.raises(BadInput, match="event_time_ms"):
            rows_of(path, "orders")


def test_infinity_is_refused_even_where_null_is_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "events.parquet", [ROWS["price-changes"][0] | {"previous_price": float("inf")}])
    with pytest.raises(BadInput, match="previous_price is inf in row 1, expected a finite number"):
        rows_of(path, "price-changes")


def test_a_blank_sku_is_no_matter_of_the_file(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = write(tmp_path / f"events{suffix}", [ORDER | {"sku": ""}])
        assert rows_of(path, "orders")[0]["sku"] == ""


def test_files_that_cannot_be_opened_are_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"events\.xlsx is of no known format: expected a name ending in \.parquet"):
        read(tmp_path / "events.xlsx", "orders")
    for suffix in SUFFIXES:
        with pytest.raises(BadInput, match=rf"nowhere\{suffix} does not exist"):
            read(tmp_path / f"nowhere{suffix}", "orders")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(BadInput, match=r"broken\.parquet cannot be read"):
        read(tmp_path / "broken.parquet", "orders")
    (tmp_path / "latin.csv").write_bytes("größe,sku\n".encode("latin-1"))
    with pytest.raises(BadInput, match=r"latin\.csv cannot be read"):
        read(tmp_path / "latin.csv", "orders")
    (tmp_path / "broken.jsonl").write_bytes(b'{"event_id": "a"\n')
    with pytest.raises(BadInput, match=r"broken\.jsonl, line 1: "):
        rows_of(tmp_path / "broken.jsonl", "orders")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(BadInput, match="lacks the column event_id"):
        read(tmp_path / "empty.csv", "orders")


def test_a_file_without_rows_is_read_as_no_batches_and_has_no_event_times(tmp_path: Path) -> None:
    pq.write_table(schema("orders").empty_table(), tmp_path / "none.parquet")
    (tmp_path / "none.csv").write_text(",".join(schema("orders").names) + "\n")
    (tmp_path / "none.jsonl").touch()
    for suffix in SUFFIXES:
        path = tmp_path / f"none{suffix}"
        assert rows_of(path, "orders") == []
        assert survey(path, "orders") == (0, None, None, True)


def test_a_row_of_another_length_is_reported_without_whom_it_tells_of(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", ROWS["orders"])
    path.write_text(path.read_text() + "e,o,1,jane.doe@example.com\n")
    with pytest.raises(BadInput, match=r", line \d+: 4 columns, expected 10 as in the header$") as told:
        rows_of(path, "orders")
    assert "jane.doe" not in str(told.value)


@pytest.mark.parametrize(
    ("field", "cell", "said"),
    [
        ("unit_price", "10,50", "column unit_price is '10,50', expected a number with a decimal point"),
        ("quantity", "1,200", "column quantity is '1,200', expected a number without signs for thousands"),
        ("unit_price", "€10.00", "column unit_price is '€10.00', expected a number without a currency sign"),
        ("event_time_ms", "14/11/2023 22:13", "is '14/11/2023 22:13', expected a whole number of epoch milliseconds"),
        ("event_time_ms", "2023-11-14T22:13:20Z", "expected a whole number of epoch milliseconds, UTC"),
        ("event_time_ms", "1.5", "column event_time_ms is '1.5', expected a whole number"),
        ("event_time_ms", "9" * 30, "expected a whole number"),
    ],
)
def test_a_cell_of_a_csv_that_does_not_fit_is_named_with_its_line_and_what_is_wrong(
    tmp_path: Path, field: str, cell: str, said: str
) -> None:
    """Also after line breaks within a cell, and far down the file."""
    rows = [ORDER | {"event_id": "two\nlines"}, *[ORDER] * 40_000, ORDER | {field: cell}, ORDER]
    path = write(tmp_path / "events.csv", rows)
    with pytest.raises(BadInput, match=re.escape(f"{path}, line 40004: ") + ".*" + re.escape(said)):
        survey(path, "orders")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (1 / 1000, "before the year 2000 .*they look like seconds"),
        (1_000, "too far in the future .*they look like microseconds"),
        (1_000_000, "they look like nanoseconds"),
        (1e-9, r"epoch|milliseconds since 1970-01-01T00:00Z$"),
    ],
)
def test_event_times_of_another_unit_are_refused_with_the_unit(
    tmp_path: Path, suffix: str, scale: float, said: str
) -> None:
    rows = [ORDER | {"event_time_ms": int(T0 * scale) + n} for n in range(3)]
    with pytest.raises(BadInput, match=f"all event times lie .*{said}"):
        survey(write(tmp_path / f"events{suffix}", rows), "orders")


def test_one_odd_time_is_a_matter_for_the_dead_letters(tmp_path: Path) -> None:
    rows = [ORDER | {"event_time_ms": 5}, ORDER]
    assert survey(write(tmp_path / "events.parquet", rows), "orders").rows == 2


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", [ORDER])
    header, row = path.read_text().splitlines()
    path.write_text(f"{header},sku\n{row},B-2\n")
    with pytest.raises(BadInput, match="column sku is there twice"):
        survey(path, "orders")


def test_a_csv_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", ROWS["orders"])
    path.write_bytes("\N{ZERO WIDTH NO-BREAK SPACE}".encode() + path.read_bytes())
    assert rows_of(path, "orders") == ROWS["orders"]


def test_blank_lines_between_json_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in ROWS["orders"]))
    assert rows_of(path, "orders") == ROWS["orders"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_survey_finds_the_span_and_the_disorder_and_reading_in_order_mends_it(tmp_path: Path, suffix: str) -> None:
    times = [5, 3, 3, 9, 3]
    rows = [ORDER | {"event_id": f"e-{n}", "event_time_ms": T0 + time} for n, time in enumerate(times)]
    path = write(tmp_path / f"events{suffix}", rows)
    assert survey(path, "orders") == (5, T0 + 3, T0 + 9, False)
    batches = list(read_in_order(path, "orders", batch_rows=2))
    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    assert [row["event_id"] for batch in batches for row in batch.to_pylist()] == ["e-1", "e-2", "e-4", "e-0", "e-3"]
    assert event_times(batches[0]).tolist() == [T0 + 3, T0 + 3]


def test_disorder_between_batches_is_seen(tmp_path: Path) -> None:
    count = 20_000
    rows = [ORDER | {"event_time_ms": T0 + n // 10_000} for n in range(count)]
    path = write(tmp_path / "events.parquet", rows)
    assert survey(path, "orders") == (count, T0, T0 + 1, True)
    rows[16_384]["event_time_ms"] = T0  # the first row of the second batch
    assert not survey(write(path, rows), "orders").in_order


def test_the_files_have_the_fields_of_the_messages() -> None:
    messages: Mapping[InputName, Any] = {"orders": OrderLine, "clicks": Click, "price-changes": PriceChange}
    for kind in INPUT_NAMES:
        assert {column.name for column in BY_NAME[kind].fields} == set(messages[kind].__struct_fields__)
