"""The recurrent state of every SKU, rebuilt from its ring of windows where the stored one belongs to another model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features import closing
from features.cadence import RING
from features.encoding import encode
from features.season import context as window_context
from features.sku_state import SkuState
from inference.session import Session

_SKUS = 4_096  # at a time


def warm_up(sku_state: SkuState, session: Session) -> None:
    """Rebuild `h` and `c` of every SKU and take back the forecasts of the other model.

    Approximate: prices and clicks of the ring are not kept, and the statistics start where the ring does.
    """
    end = sku_state.windows.first_open
    if end is None:
        return
    table = sku_state.table
    ring = table["ring"][: len(table)]
    # by window of the ring, oldest first; that a SKU sold nothing may be because the shop was closed, or not yet there
    opened = [bool(np.isfinite(ring[:, number % RING]).any()) for number in range(end - RING, end)]
    for low in range(0, len(table), _SKUS):
        some = slice(low, min(low + _SKUS, len(table)))
        x = replay_inputs(sku_state, some, end, opened)
        zero = np.zeros_like(table["h"][some])
        table["h"][some], table["c"][some] = session.run_replay(
            x, zero, zero, lengths=np.minimum(table["age"][some], RING)
        )
        for name in ("next_net", "next_mean"):
            table[name][some] = np.nan


def replay_inputs(sku_state: SkuState, some: slice, end: int, opened: Sequence[bool]) -> NDArray[np.float32]:
    """Encode the RING windows before window `end` of some SKUs anew: float32 (RING, n, F).

    opened: whether the shop was open, by window. What a SKU is shown of the time before its first window has no
    meaning.
    """
    table = sku_state.table
    kept = {name: table[name][some].copy() for name in closing.NAMES}
    n = len(kept["nu"])
    scratch = {c.name: np.full((n, *c.shape), c.fill, c.dtype) for c in closing.COLUMNS}
    for name in ("price", "price_ms", "log_price_usual", "fractional", "nu"):
        scratch[name] = kept[name]
    inputs = []
    for number, is_open in zip(range(end - RING, end), opened, strict=True):
        units = np.nan_to_num(kept["ring"][:, number % RING].astype(np.float64))
        context = window_context(sku_state.grid, sku_state.season, number, is_open=is_open)
        live = np.flatnonzero(end - kept["age"] <= number)
        moved = {name: column[live] for name, column in scratch.items()}
        closing.advance(moved, _nothing_but(units[live], kept["price"][live]), context, prior_nu=sku_state.prior_nu)
        for name, column in moved.items():
            scratch[name][live] = column
        inputs.append(encode(scratch, _nothing_but(units, kept["price"]), context))
    return np.stack(inputs)


def _nothing_but(units: NDArray[np.float64], price: NDArray[np.float64]) -> closing.WindowFacts:
    """Give the facts of a window of which only the units sold, (n,), and the price are known."""
    n = len(units)
    nothing, whole, unlisted = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    return closing.WindowFacts(
        order_lines=whole,
        units=units,
        revenue=nothing,
        returned_units=nothing,
        free_units=nothing,
        views=whole,
        carts=whole,
        price_before=price,
        price=price,
        listed_before=unlisted,
        listed=unlisted,
    )
