"""Columns fold into open windows: grouped sums, whatever the order; of several prices event time decides.

No sum can overflow: schemas/fields.py bounds a quantity by 1e18 and a price by 1e12, and a topic has 2^63 offsets, so
that units stay below 1e37 (a float32 holds 3e38), revenue below 1e49 and counts below 2^63.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.open_windows import OpenWindow, OpenWindows
from features.table import Slots

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
VIEW, CART = 0, 1


def by_window(windows: Int64) -> list[tuple[int, NDArray[np.intp] | slice]]:
    """Split rows by window number: [(number, row indices)], a full slice when there is one window only."""
    if not len(windows):
        return []
    low = int(windows.min())
    if low == int(windows.max()):
        return [(low, slice(None))]
    order = np.argsort(windows, kind="stable")
    ordered = windows[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], len(ordered)]
    return [(int(ordered[a]), order[a:b]) for a, b in zip(starts, ends, strict=True)]


def _add(window: OpenWindow, rows: NDArray[np.int32], **sums: NDArray[np.generic]) -> None:
    """Add values to fields of rows that may repeat."""
    for name, values in sums.items():
        np.add.at(window.folded[name], rows, values)


def fold_orders(windows: OpenWindows, numbers: Int64, slots: Slots, quantity: Float64, unit_price: Float64) -> None:
    """Fold order lines, (n,) each. Sold: quantity, price > 0; free: quantity > 0, price 0; returned: quantity < 0."""
    for number, at in by_window(numbers):
        window = windows.get(number)
        rows = window.rows(slots[at])
        q, p = quantity[at], unit_price[at]
        sold = (q > 0) & (p > 0)
        if sold.all():
            _add(window, rows, order_lines=np.ones(len(rows), np.int64), units=q, revenue=q * p)
        else:
            units = np.where(sold, q, 0.0)
            _add(
                window,
                rows,
                order_lines=sold.astype(np.int64),
                units=units,
                revenue=units * p,
                returned_units=np.where(q < 0, -q, 0.0),
                free_units=np.where((q > 0) & (p == 0), q, 0.0),
            )
        whole = np.floor(q) == q
        if not whole.all():
            window.folded["fractional"][rows[~whole]] = 1


def fold_clicks(windows: OpenWindows, numbers: Int64, slots: Slots, kind: NDArray[np.int8]) -> None:
    """Fold clicks, (n,) each; `purchase` clicks keep a SKU alive but are counted by the orders."""
    for number, at in by_window(numbers):
        window = windows.get(number)
        rows = window.rows(slots[at])
        k = kind[at]
        _add(window, rows, views=(k == VIEW).astype(np.int64), carts=(k == CART).astype(np.int64))


def fold_prices(windows: OpenWindows, numbers: Int64, slots: Slots, price: Float64, times_ms: Int64) -> None:
    """Fold price changes, (n,) each: per SKU and window the newest by event time stays, the later record on a tie."""
    for number, at in by_window(numbers):
        window = windows.get(number)
        rows, when, value = window.rows(slots[at]), times_ms[at], price[at]
        order = np.argsort(when, kind="stable")
        newer = when[order] >= window.folded["price_ms"][rows[order]]
        rows, when, value = rows[order][newer], when[order][newer], value[order][newer]
        window.folded["price"][rows] = value
        window.folded["price_ms"][rows] = when
