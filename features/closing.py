"""A window closes: what was folded becomes facts, and the facts move each SKU's running statistics on by one window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.open_windows import BLANK, OpenWindow
from features.season import Context
from features.table import Column, Slots

Rows = dict[str, NDArray[Any]]
Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

RING = 56  # windows kept as they were: eight weeks of days
GAINS = np.array([1 / 2.5, 1 / 7, 1 / 28, 1 / 90], np.float32)  # fast, weekly, scale, slow
FAST, WEEKLY, SCALE, SLOW = range(4)
_SCALE_GAIN = 1 / 28
_PRIOR_WINDOWS = 5.0  # weight of the partition's typical scale against a new SKU's own windows
SCALE_FLOOR = 0.02  # units per window: one unit in fifty windows
_MOST_UNITS = np.float32(1e15)  # of a window, as the averages see it: its square must stay a float32
_VIEWS_GAIN = 1 / 14
_PRICE_GAIN = 1 / 28

COLUMNS = (
    Column("first_number", "<i8", fill=1 << 62),  # window of its first event
    Column("last_number", "<i8", fill=-(1 << 62)),  # window of its newest event
    Column("age", "<i4"),  # windows closed since then
    Column("opens", "<i4"),  # of those, while the shop was open
    Column("ring", "<f4", (RING,), fill=np.nan),  # units by window number modulo RING; NaN: not live yet, or closed
    Column("ew", "<f4", (4,)),  # exponentially weighted mean units, by GAINS, not yet corrected for age
    Column("ew_square", "<f4"),
    Column("ew_sold", "<f4"),  # share of windows with a sale
    Column("ew_views", "<f4"),
    Column("unsold", "<i4"),  # open windows since the last sale
    Column("nu", "<f4", fill=1.0),  # scale: typical units per open window
    Column("price", "<f8", fill=np.nan),  # last known
    Column(
        "price_ms", "<i8", fill=-(1 << 62)
    ),  # of the newest price change taken; that value: none, price is what was paid
    Column("log_price_usual", "<f4", fill=np.nan),
    Column("fractional", "|u1"),
)
NAMES = tuple(c.name for c in COLUMNS)
_NO_CHANGE_MS = -(1 << 62)


@dataclass(frozen=True)
class WindowFacts:
    """What happened to n SKUs in one window; arrays (n,). price_before, price: at its start and end, NaN if unknown."""

    order_lines: NDArray[np.int64]
    units: Float64
    revenue: Float64
    returned_units: Float64
    free_units: Float64
    views: NDArray[np.int64]
    carts: NDArray[np.int64]
    price_before: Float64
    price: Float64
    price_changed: NDArray[np.bool_]  # by a price change, not by what a customer happened to pay


def facts(window: OpenWindow, slots: Slots, rows: Rows) -> WindowFacts:
    """Read a closing window for some SKUs and move their price on (in `rows`)."""
    at = window.row_of(slots)
    folded = np.broadcast_to(BLANK, len(slots)).copy() if window.count == 0 else window.folded[at]
    folded[at < 0] = BLANK[0]
    before = rows["price"].copy()
    newer = folded["price_ms"] >= rows["price_ms"]
    newer &= folded["price_ms"] != _NO_CHANGE_MS
    paid = np.divide(folded["revenue"], folded["units"], out=before.copy(), where=folded["units"] > 0)
    by_change = rows["price_ms"] != _NO_CHANGE_MS
    rows["price"] = np.where(newer, folded["price"], np.where(by_change, before, paid))
    rows["price_ms"] = np.where(newer, folded["price_ms"], rows["price_ms"])
    rows["fractional"] = rows["fractional"] | folded["fractional"]
    return WindowFacts(
        order_lines=folded["order_lines"],
        units=np.round(folded["units"], 6),
        revenue=np.round(folded["revenue"], 6),
        returned_units=np.round(folded["returned_units"], 6),
        free_units=np.round(folded["free_units"], 6),
        views=folded["views"].astype(np.int64),
        carts=folded["carts"].astype(np.int64),
        price_before=before,
        price=rows["price"],
        price_changed=newer & by_change,
    )


def corrected(mean: Float32, counts: NDArray[np.int32], gain: float) -> Float32:
    """Exponentially weighted mean without the bias of its zero start, after `counts` (n,) updates; 0 before the first.

    >>> corrected(np.array([0.5], np.float32), np.array([1], np.int32), 0.5)
    array([1.], dtype=float32)
    """
    weight = 1 - np.power(np.float32(1 - gain), counts, dtype=np.float32)
    unbiased: Float32 = np.divide(mean, weight, out=np.zeros_like(mean), where=counts > 0)
    return unbiased


def advance(rows: Rows, happened: WindowFacts, context: Context, *, prior_nu: float) -> None:
    """Move the statistics of n SKUs on by one closed window, in `rows` (columns of this module).

    A window in which the shop was closed counts as age, but says nothing about demand. prior_nu: typical scale of the
    partition's SKUs, towards which young ones are shrunk.
    """
    units = happened.units.astype(np.float32)
    rows["ring"][:, context.number % RING] = units if context.is_open else np.nan
    # what is typical is asked now, not when a SKU's first record happened to come in
    rows["nu"] = np.where(rows["age"] == 0, np.float32(max(prior_nu, SCALE_FLOOR)), rows["nu"])
    rows["age"] += 1
    if context.is_open:
        rows["opens"] += 1
        # an absurd order must not set the scale for a month: what the averages see is bounded by what they know
        bounded = np.minimum(units, np.minimum(20 * np.maximum(rows["nu"], 1.0), _MOST_UNITS))
        rows["ew"] += GAINS * (bounded[:, None] - rows["ew"])
        rows["ew_square"] += _SCALE_GAIN * (bounded * bounded - rows["ew_square"])
        rows["ew_sold"] += _SCALE_GAIN * ((units > 0) - rows["ew_sold"])
        rows["unsold"] = np.where(units > 0, 0, rows["unsold"] + 1).astype(np.int32)
        own = corrected(rows["ew"][:, SCALE], rows["opens"], _SCALE_GAIN)
        n = np.minimum(rows["opens"], 56).astype(np.float32)
        rows["nu"] = np.maximum(SCALE_FLOOR, (n * own + _PRIOR_WINDOWS * prior_nu) / (n + _PRIOR_WINDOWS)).astype(
            np.float32
        )
    rows["ew_views"] += np.float32(_VIEWS_GAIN) * (
        np.minimum(happened.views, 1e9).astype(np.float32) - rows["ew_views"]
    )
    priced = happened.price > 0
    log_price = np.log(np.where(priced, happened.price, 1.0)).astype(np.float32)
    usual = rows["log_price_usual"]
    moved = np.where(np.isnan(usual), log_price, usual + np.float32(_PRICE_GAIN) * (log_price - usual))
    rows["log_price_usual"] = np.where(priced, moved, usual).astype(np.float32)


def last_windows(rows: Rows, number: int, count: int) -> Float32:
    """Return units of the `count` windows up to `number`, oldest first, float32 (n, count); NaN: not live or closed."""
    at = np.arange(number - count + 1, number + 1) % RING
    units: Float32 = rows["ring"][:, at]
    return units
