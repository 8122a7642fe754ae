"""Open windows against a pandas group-by of the same records, however they are ordered and cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from features import folds
from features.open_windows import BLANK, FOLDED, OpenWindows
from tests.support.examples import examples
from tests.support.sku_states import cut


class Line(NamedTuple):
    window: int
    slot: int
    quantity: float
    price: float


class Click(NamedTuple):
    window: int
    slot: int
    kind: int


class Change(NamedTuple):
    window: int
    slot: int
    price: float
    time_ms: int


Record = Line | Click | Change

windows = st.integers(100, 103)
slots = st.integers(0, 5) | st.sampled_from([63, 64, 200, 3000])
# exact in binary, so that sums do not depend on the order
tame = st.integers(-40, 40).map(lambda n: n / 4)
wild = st.sampled_from([1e18, -1e18, 0.001, -1 / 3, 1e-9, 12345.678])
prices = st.sampled_from([0.0, 0.25, 1.0, 2.5, 1000.0])
lines = st.builds(Line, windows, slots, tame, prices)
wild_lines = st.builds(Line, windows, slots, tame | wild, prices | st.sampled_from([1e12, 0.01, 1e-300]))
clicks = st.builds(Click, windows, slots, st.integers(0, 2))
changes = st.builds(Change, windows, slots, st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.integers(-5, 5))
places = st.lists(st.integers(0, 60), max_size=6)


def fold(into: OpenWindows, batch: Sequence[Any]) -> None:
    """Fold records of one kind as one batch."""
    if not batch:
        return
    number = np.array([r.window for r in batch], np.int64)
    slot = np.array([r.slot for r in batch], np.int32)
    if isinstance(batch[0], Line):
        quantity, price = (np.array(v, np.float64) for v in zip(*[(r.quantity, r.price) for r in batch], strict=True))
        folds.fold_orders(into, number, slot, quantity, price)
    elif isinstance(batch[0], Click):
        folds.fold_clicks(into, number, slot, np.array([r.kind for r in batch], np.int8))
    else:
        price = np.array([r.price for r in batch], np.float64)
        folds.fold_prices(into, number, slot, price, np.array([r.time_ms for r in batch], np.int64))


def folded(*batches: Sequence[Record]) -> dict[tuple[int, int], np.void]:
    """Every row of every open window, by (window, slot)."""
    into = OpenWindows()
    for batch in batches:
        fold(into, batch)
    found = {}
    for number in into:
        window = into.get(number)
        for slot, row in zip(window.slots[: window.count].tolist(), window.folded[: window.count], strict=True):
            assert (number, slot) not in found
            assert window.row_of(np.array([slot], np.int32)).tolist() == [len([k for k in found if k[0] == number])]
            found[number, slot] = row
    return found


def as_bytes(rows: dict[tuple[int, int], np.void]) -> dict[tuple[int, int], bytes]:
    return {key: row.tobytes() for key, row in rows.items()}


@examples(120)
@given(st.lists(wild_lines, max_size=40))
def test_order_lines_are_summed_as_a_group_by_would(records: list[Line]) -> None:
    frame = pd.DataFrame(records, columns=list(Line._fields))
    sold = frame[(frame.quantity > 0) & (frame.price > 0)]
    sold = sold.assign(revenue=sold.quantity * sold.price).groupby(["window", "slot"])
    returned = -frame[frame.quantity < 0].groupby(["window", "slot"])["quantity"].sum()
    free = frame[(frame.quantity > 0) & (frame.price == 0)].groupby(["window", "slot"])["quantity"].sum()
    broken = frame[frame.quantity % 1 != 0].groupby(["window", "slot"]).size()
    expected = {
        "order_lines": sold.size(),
        "units": sold["quantity"].sum(),
        "revenue": sold["revenue"].sum(),
        "returned_units": returned,
        "free_units": free,
    }
    found = folded(records)
    assert set(found) == {(r.window, r.slot) for r in records}
    for key, row in found.items():
        for name, by_key in expected.items():
            assert math.isclose(row[name], by_key.get(key, 0), rel_tol=1e-12), (key, name)
        assert row["fractional"] == (key in broken.index)
        assert (row["views"], row["carts"]) == (0, 0)
        assert math.isnan(row["price"])
        assert row["price_ms"] == BLANK["price_ms"][0]


@examples(60)
@given(st.lists(clicks, max_size=40))
def test_clicks_are_counted_as_a_group_by_would(records: list[Click]) -> None:
    frame = pd.DataFrame(records, columns=list(Click._fields))
    counts = frame.groupby(["window", "slot", "kind"]).size()
    found = folded(records)
    assert set(found) == {(r.window, r.slot) for r in records}  # also those with purchases only
    for key, row in found.items():
        assert (row["views"], row["carts"]) == (counts.get((*key, 0), 0), counts.get((*key, 1), 0))
        assert row["order_lines"] == row["units"] == 0


@examples(100)
@given(st.lists(changes, max_size=40), places)
def test_the_newest_price_stays_and_on_a_tie_the_later_record(records: list[Change], at: list[int]) -> None:
    frame = pd.DataFrame(records, columns=list(Change._fields))
    newest = frame.sort_values("time_ms", kind="stable").groupby(["window", "slot"]).last()
    found = folded(*cut(records, at))
    assert set(found) == {(r.window, r.slot) for r in records}
    for key, row in found.items():
        assert (row["price"], row["price_ms"]) == (newest.loc[key, "price"], newest.loc[key, "time_ms"])


@examples(60)
@given(st.lists(lines, max_size=40), st.lists(clicks, max_size=20), st.randoms(use_true_random=False), places)
def test_neither_order_nor_cuts_matter_to_sums(
    records: list[Line], seen: list[Click], random: Random, at: list[int]
) -> None:
    whole = as_bytes(folded(records, seen))
    assert as_bytes(folded(*cut(records, at), *cut(seen, at))) == whole
    random.shuffle(records)
    random.shuffle(seen)
    assert as_bytes(folded(*cut(seen, at), *cut(records, at))) == whole


@examples(60)
@given(st.lists(wild_lines, max_size=40), st.lists(changes, max_size=40), places)
def test_cuts_do_not_matter_even_to_the_last_bit_of_wild_sums(
    records: list[Line], moved: list[Change], at: list[int]
) -> None:
    assert as_bytes(folded(*cut(records, at), *cut(moved, at))) == as_bytes(folded(records, moved))


@examples(60)
@given(st.lists(st.integers(-3, 3), max_size=30))
def test_rows_split_by_window_keep_their_order_and_are_all_there(numbers: list[int]) -> None:
    parts = folds.by_window(np.array(numbers, np.int64))
    rows = np.arange(len(numbers))
    assert [number for number, _ in parts] == sorted(set(numbers))
    for number, at in parts:
        assert rows[at].tolist() == [row for row, n in enumerate(numbers) if n == number]


def test_a_row_of_an_open_window_starts_blank() -> None:
    assert FOLDED.itemsize == 8 + 4 * 8 + 2 * 8 + 8 + 8 + 8
    window = OpenWindows().get(1)
    rows = window.rows(np.arange(200, dtype=np.int32))
    assert all(row.tobytes() == BLANK[0].tobytes() for row in window.folded[rows])
