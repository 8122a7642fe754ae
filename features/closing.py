"""What was folded into a closing window, and each SKU's running statistics, which it moves on by one window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.cadence import RING, SCALE, Cadence
from features.open_windows import BLANK, NO_PRICE_CHANGE_MS, OpenWindow
from features.outliers import cap_clicks, cap_squarable, cap_units
from features.season import Context
from features.table import Column, Slots

Rows = dict[str, NDArray[Any]]
Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

SCALE_FLOOR = 0.02  # units per window: one unit in fifty windows

COLUMNS = (
    Column("first_number", "<i8", fill=1 << 62),  # window of its first event
    Column("last_number", "<i8", fill=-(1 << 62)),  # newest closed window with an event of it
    Column("age", "<i4"),  # windows closed since then
    Column("opens", "<i4"),  # of those, while the shop was open
    Column("ring", "<f4", (RING,), fill=np.nan),  # units by window number modulo RING; NaN: not live yet, or closed
    Column("ew", "<f4", (4,)),  # exponentially weighted mean units, by Cadence.memories, not yet corrected for age
    Column("ew_square", "<f4"),
    Column("ew_sold", "<f4"),  # share of windows with a sale
    Column("ew_views", "<f4"),
    Column("unsold", "<i4"),  # open windows since the last sale
    Column("nu", "<f4", fill=1.0),  # scale: typical units per open window
    Column("price", "<f8", fill=np.nan),  # last known
    # of the newest price change taken; NO_PRICE_CHANGE_MS: none, price is what was paid
    Column("price_ms", "<i8", fill=NO_PRICE_CHANGE_MS),
    Column("log_price_usual", "<f4", fill=np.nan),
    Column("fractional", "|u1"),
)
NAMES = tuple(c.name for c in COLUMNS)


@dataclass(frozen=True)
class WindowFacts:
    """What happened to n SKUs in one window; arrays (n,).

    price_before, price: at its start and end, NaN if unknown. listed_before, listed: whether a price change had set
    these; else they are what a customer happened to pay.
    """

    order_lines: NDArray[np.int64]
    units: Float64
    revenue: Float64
    returned_units: Float64
    free_units: Float64
    views: NDArray[np.int64]
    carts: NDArray[np.int64]
    price_before: Float64
    price: Float64
    listed_before: NDArray[np.bool_]
    listed: NDArray[np.bool_]


def facts(window: OpenWindow, slots: Slots, rows: Rows) -> WindowFacts:
    """Read a closing window for some SKUs and move their price on (in `rows`)."""
    at = window.row_of(slots)
    folded = np.broadcast_to(BLANK, len(slots)).copy() if window.count == 0 else window.folded[at]
    folded[at < 0] = BLANK[0]
    return facts_of(folded, rows)


def facts_of(folded: NDArray[Any], rows: Rows) -> WindowFacts:
    """Read what was folded, `FOLDED` (n,), and move the price on (in `rows`)."""
    before = rows["price"].copy()
    newer = folded["price_ms"] >= rows["price_ms"]
    newer &= folded["price_ms"] != NO_PRICE_CHANGE_MS
    paid = np.divide(folded["revenue"], folded["units"], out=before.copy(), where=folded["units"] > 0)
    listed_before = rows["price_ms"] != NO_PRICE_CHANGE_MS
    rows["price"] = np.where(newer, folded["price"], np.where(listed_before, before, paid))
    rows["price_ms"] = np.where(newer, folded["price_ms"], rows["price_ms"])
    rows["fractional"] = rows["fractional"] | (folded["fractional"] != 0)
    return WindowFacts(
        order_lines=folded["order_lines"],
        units=np.round(folded["units"], 6),
        revenue=np.round(folded["revenue"], 6),
        returned_units=np.round(folded["returned_units"], 6),
        free_units=np.round(folded["free_units"], 6),
        views=folded["views"],
        carts=folded["carts"],
        price_before=before,
        price=rows["price"],
        listed_before=listed_before,
        listed=newer | listed_before,
    )


def gains(cadence: Cadence) -> Float32:
    """Share of the newest window in each of the four running means, float32 (4,)."""
    return (1 / np.array(cadence.memories)).astype(np.float32)


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
    cadence = context.cadence
    scale_gain = gains(cadence)[SCALE]
    rows["ring"][:, context.number % RING] = units if context.is_open else np.nan
    # what is typical is asked now, not when a SKU's first record happened to come in
    rows["nu"] = np.where(rows["age"] == 0, np.float32(max(prior_nu, SCALE_FLOOR)), rows["nu"])
    rows["age"] += 1
    if context.is_open:
        rows["opens"] += 1
        bounded = cap_squarable(cap_units(units, rows["nu"]))
        rows["ew"] += gains(cadence) * (bounded[:, None] - rows["ew"])
        rows["ew_square"] += scale_gain * (bounded * bounded - rows["ew_square"])
        rows["ew_sold"] += scale_gain * ((units > 0) - rows["ew_sold"])
        rows["unsold"] = np.where(units > 0, 0, rows["unsold"] + 1).astype(np.int32)
        rows["nu"] = scale(rows, cadence, prior_nu=prior_nu)
    rows["ew_views"] += np.float32(1 / cadence.views_memory) * (
        cap_clicks(happened.views).astype(np.float32) - rows["ew_views"]
    )
    priced = happened.price > 0
    log_price = np.log(np.where(priced, happened.price, 1.0)).astype(np.float32)
    usual = rows["log_price_usual"]
    moved = np.where(np.isnan(usual), log_price, usual + np.float32(1 / cadence.price_memory) * (log_price - usual))
    rows["log_price_usual"] = np.where(priced, moved, usual).astype(np.float32)


def scale(rows: Rows, cadence: Cadence, *, prior_nu: float) -> Float32:
    """Give the typical units per open window, float32 (n,), those of young SKUs drawn towards `prior_nu`."""
    prior = np.float32(cadence.prior_windows)
    own = corrected(rows["ew"][:, SCALE], rows["opens"], float(gains(cadence)[SCALE]))
    n = np.minimum(rows["opens"], RING).astype(np.float32)
    found: Float32 = np.maximum(SCALE_FLOOR, (n * own + prior * prior_nu) / (n + prior)).astype(np.float32)
    return found


def usual_views(rows: Rows, cadence: Cadence) -> Float32:
    """Give the views per window over the last ones, float32 (n,); 0 where a SKU has never been viewed."""
    return corrected(rows["ew_views"], rows["age"], 1 / cadence.views_memory)


def was_open(ring: Float32, number: int) -> bool:
    """Tell whether the shop was open in a window that the ring, (n, RING), still has."""
    return bool(np.isfinite(ring[:, number % RING]).any())


def last_windows(rows: Rows, number: int, count: int) -> Float32:
    """Return units of the `count` windows up to `number`, oldest first, float32 (n, count); NaN: not live or closed."""
    at = np.arange(number - count + 1, number + 1) % RING
    units: Float32 = rows["ring"][:, at]
    return units
