from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.admission import Columns
from schemas.decoding import decode_clicks, decode_orders, decode_price_changes
from schemas.errors import BadInput
from schemas.inputs import CLICKS, ORDERS, PRICES, InputName
from streams.events import tables as event_tables
from streams.events.files import read, sample_paths, schema
from streams.events.replay import encode_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

T0 = 1_700_000_000_000
DECODE: Mapping[int, Any] = {ORDERS: decode_orders, CLICKS: decode_clicks, PRICES: decode_price_changes}
SOURCE: Mapping[InputName, int] = {"orders": ORDERS, "clicks": CLICKS, "price-changes": PRICES}
GOOD: Mapping[InputName, dict[str, Any]] = {
    "orders": {"order_id": "o", "quantity": 2.5, "unit_price": 1.25, "currency": "GBP"},
    "clicks": {"session_id": "s", "kind": "cart"},
    "price-changes": {"price": 2.0, "previous_price": 3.0, "currency": "EUR", "kind": "list"},
}


def written(folder: Path, kind: InputName, *changes: dict[str, Any]) -> Path:
    """Write a file of as many rows, each good but for the change."""
    rows = [
        {"event_id": f"e{n}", "sku": f"sku{n}", "event_time_ms": T0 + n, **GOOD[kind], **change}
        for n, change in enumerate(changes)
    ]
    path = folder / f"{kind}.parquet"
    filled = [{name: row.get(name) for name in schema(kind).names} for row in rows]
    pq.write_table(pa.Table.from_pylist(filled, schema=schema(kind)), path)
    return path


def as_the_worker_decodes(path: Path, kind: InputName) -> Columns:
    values = [value for batch in read(path, kind) for value in encode_rows(kind, batch)[1]]
    columns: Columns = DECODE[SOURCE[kind]](values)[0]
    return columns


def assert_same(found: Columns, expected: Columns) -> None:
    assert type(found) is type(expected)
    for name in expected.__dataclass_fields__:
        left, right = getattr(found, name), getattr(expected, name)
        if isinstance(right, np.ndarray):
            np.testing.assert_array_equal(left, right, err_msg=name)
            assert left.dtype == right.dtype, name
        else:
            assert left == right, name


@pytest.mark.parametrize("kind", ["orders", "clicks", "price-changes"])
def test_good_rows_come_as_the_columns_that_the_worker_makes_of_their_messages(tmp_path: Path, kind: InputName) -> None:
    path = written(tmp_path, kind, {}, {"sku": "Größe 7"}, {"event_id": "other"})
    assert_same(event_tables.load({kind: path})[SOURCE[kind]], as_the_worker_decodes(path, kind))


def test_the_sample_comes_as_the_worker_would_see_it() -> None:
    paths = sample_paths()
    tables = event_tables.load({"price-changes": paths["price-changes"]})
    assert tables.keys() == {PRICES}
    assert_same(tables[PRICES], as_the_worker_decodes(paths["price-changes"], "price-changes"))


BAD = [
    ("orders", {"sku": ""}),
    ("orders", {"sku": " \t"}),
    ("orders", {"unit_price": -0.01}),
    ("orders", {"sku": "a\x1bb"}),
    ("clicks", {"sku": ""}),
    ("clicks", {"sku": "a\u2028b"}),
    ("price-changes", {"sku": "a\x85b"}),
    ("price-changes", {"sku": "\n"}),
    ("price-changes", {"price": -1.0}),
]
LEFT_IN = [
    ("orders", {"sku": "s" * 513}),
    ("orders", {"event_id": ""}),
    ("orders", {"currency": "pounds"}),
    ("orders", {"quantity": 2e18}),
    ("orders", {"unit_price": 2e12}),
    ("clicks", {"sku": "ü" * 300}),
    ("price-changes", {"price": 1e13}),
]


@pytest.mark.parametrize(
    ("kind", "change"),
    [*BAD, *LEFT_IN],
    ids=lambda each: str(each)[:24],
)
def test_a_row_that_the_worker_would_refuse_is_left_out(
    tmp_path: Path, kind: InputName, change: dict[str, Any]
) -> None:
    path = written(tmp_path, kind, {}, change, {})
    found, expected = event_tables.load({kind: path})[SOURCE[kind]], as_the_worker_decodes(path, kind)
    assert expected.sku == ["sku0", "sku2"], "the worker refuses it"
    assert found.sku == expected.sku
    assert found.event_time_ms.tolist() == [T0, T0 + 2]
    assert found.row.tolist() == [0, 2]


@pytest.mark.parametrize("change", [{"quantity": -3.0}, {"unit_price": 0.0}, {"event_time_ms": 1}])
def test_returns_free_units_and_times_of_any_age_are_kept_for_the_state_to_judge(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = written(tmp_path, "orders", {}, change)
    assert_same(event_tables.load({"orders": path})[ORDERS], as_the_worker_decodes(path, "orders"))


def test_a_file_without_a_usable_row_is_reported_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"orders\.parquet holds no usable orders"):
        event_tables.load({"orders": written(tmp_path, "orders", {"sku": ""}, {"unit_price": -1.0})})
    with pytest.raises(BadInput, match=r"clicks\.parquet holds no usable clicks"):
        event_tables.load({"clicks": written(tmp_path, "clicks")})


def test_a_number_that_is_none_is_reported_rather_than_left_out(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a finite number"):
        event_tables.load({"orders": written(tmp_path, "orders", {}, {"quantity": float("nan")})})


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        event_tables.load({"orders": tmp_path / "nowhere.parquet"})


def test_what_is_left_out_is_told_with_its_reasons_and_rows(tmp_path: Path) -> None:
    """Half of a file was left out without a word."""
    path = written(tmp_path, "orders", *[{}, {"sku": ""}, {"currency": "pounds"}, {"unit_price": -1.0}] * 5)
    said: list[str] = []
    assert len(event_tables.load({"orders": path}, say=said.append)[ORDERS].row) == 5
    assert said == [
        f"{path}: 5 of 20 orders used; left out: 10 out_of_range (first in row 3: `currency` must be a currency code "
        "of 3 letters, found \"pounds\"); 5 missing_sku (first in row 2: `sku` must not be blank, found '')"
    ]
    said.clear()
    event_tables.load({"orders": written(tmp_path, "orders", {}, {})}, say=said.append)
    assert said == []


def test_ids_that_are_not_those_of_events_are_refused_and_a_few_are_told(tmp_path: Path) -> None:
    """The number of an order as event_id of its three lines: two thirds of the demand were taken for duplicates."""
    path = written(tmp_path, "orders", *({"event_id": f"#{n // 3}"} for n in range(30)))
    with pytest.raises(BadInput, match=r"20 of 30 orders have an event_id .*\(first '#0' in row 2\).*unique"):
        event_tables.load({"orders": path})
    few = written(tmp_path, "orders", *({"event_id": f"#{n % 49}"} for n in range(50)))
    said: list[str] = []
    assert len(event_tables.load({"orders": few}, say=said.append)[ORDERS].row) == 50, "what a worker makes of it"
    assert len(said) == 1
    assert "1 orders have an event_id that was there with other contents" in said[0]


def test_events_that_are_there_twice_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_tables, "read", lambda path, kind: read(path, kind, batch_rows=3))
    same = {"event_id": "e", "sku": "a", "event_time_ms": T0}
    path = written(tmp_path, "orders", *[same] * 8)
    said: list[str] = []
    event_tables.load({"orders": path}, say=said.append)
    assert said == [f"{path}: 7 orders are there twice and count once"]
