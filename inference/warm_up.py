"""The recurrent state of every SKU, rebuilt from its ring of windows where the stored one belongs to another model."""

from __future__ import annotations

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
    last = sku_state.windows.first_open
    if last is None:
        return
    table = sku_state.table
    for low in range(0, len(table), _SKUS):
        some = slice(low, min(low + _SKUS, len(table)))
        x = replay_inputs(sku_state, some, last)
        zero = np.zeros_like(table["h"][some])
        table["h"][some], table["c"][some] = session.run_replay(
            x, zero, zero, lengths=np.minimum(table["age"][some], RING)
        )
        for name in ("next_net", "next_mean"):
            table[name][some] = np.nan


def replay_inputs(sku_state: SkuState, some: slice, end: int) -> NDArray[np.float32]:
    """Encode the RING windows before window `end` of some SKUs anew: float32 (RING, n, F)."""
    table = sku_state.table
    n = some.stop - some.start
    kept = {name: table[name][some].copy() for name in closing.NAMES}
    scratch = {c.name: np.full((n, *c.shape), c.fill, c.dtype) for c in closing.COLUMNS}
    for name in ("price", "price_ms", "log_price_usual", "fractional", "nu"):
        scratch[name] = kept[name]
    nothing, whole, unlisted = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    inputs = []
    for number in range(end - RING, end):
        units = kept["ring"][:, number % RING].astype(np.float64)
        context = window_context(sku_state.grid, sku_state.season, number, is_open=bool(np.isfinite(units).any()))
        happened = closing.WindowFacts(
            order_lines=whole,
            units=np.nan_to_num(units),
            revenue=nothing,
            returned_units=nothing,
            free_units=nothing,
            views=whole,
            carts=whole,
            price_before=kept["price"],
            price=kept["price"],
            listed_before=unlisted,
            listed=unlisted,
        )
        closing.advance(scratch, happened, context, prior_nu=sku_state.prior_nu)
        inputs.append(encode(scratch, happened, context))
    return np.stack(inputs)
