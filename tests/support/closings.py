"""Closing windows of made-up facts, without a SKU state around them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features import closing, encoding
from features.closing import Rows, WindowFacts
from features.grid import WindowGrid
from features.season import Context, SeasonProfile, context

GRID = WindowGrid()
FIRST = GRID.number(1_299_456_000_000)  # Monday 2011-03-07
_QUIET = context(GRID, SeasonProfile(GRID.season_length), FIRST, is_open=True)


def fresh(n: int) -> Rows:
    """Columns of n new SKUs."""
    return {c.name: np.full((n, *c.shape), c.fill, c.dtype) for c in closing.COLUMNS}


def happened(units: ArrayLike, **other: ArrayLike) -> WindowFacts:
    """Facts of as many SKUs as `units` has: sold at 2.50, nothing else, unless told."""
    y = np.atleast_1d(np.asarray(units, np.float64))

    def filled(name: str, default: ArrayLike, dtype: type[np.generic]) -> NDArray[Any]:
        return np.broadcast_to(np.asarray(other.get(name, default)), y.shape).astype(dtype)

    price = filled("price", 2.5, np.float64)
    return WindowFacts(
        order_lines=filled("order_lines", (y > 0).astype(int), np.int64),
        units=y,
        revenue=filled("revenue", y * np.nan_to_num(price), np.float64),
        returned_units=filled("returned_units", 0, np.float64),
        free_units=filled("free_units", 0, np.float64),
        views=filled("views", 0, np.int64),
        carts=filled("carts", 0, np.int64),
        price_before=filled("price_before", price, np.float64),
        price=price,
        listed_before=filled("listed_before", False, np.bool_),
        listed=filled("listed", False, np.bool_),
    )


def window_context(window: int, *, is_open: bool = True, **other: Any) -> Context:  # noqa: ANN401 - fields of Context
    """What the shop is like in the `window`-th window."""
    number = FIRST + window
    phase = GRID.phase(number)
    return dataclasses.replace(_QUIET, number=number, phase=phase, turn=(phase, 7), is_open=is_open, **other)


def step(rows: Rows, facts: WindowFacts, context: Context, *, prior_nu: float = 1.0) -> NDArray[np.float32]:
    """Move on by one window and encode it."""
    closing.advance(rows, facts, context, prior_nu=prior_nu)
    return encoding.encode(rows, facts, context)


def ewma(values: list[float], gain: float) -> float:
    """Exponentially weighted sum of all values, the newest last, from a start of zero: one term per value."""
    return sum(gain * (1 - gain) ** (len(values) - 1 - i) * value for i, value in enumerate(values))


def weighted_mean(values: list[float], gain: float) -> float:
    """Their mean by the same weights; 0 of nothing."""
    weights = [(1 - gain) ** (len(values) - 1 - i) for i in range(len(values))]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights) if values else 0.0
