"""A made-up shop of any size, for the measurements that need more SKUs than the sample has."""

from __future__ import annotations

import numpy as np

from features.cadence import DAY_MS
from features.encoding import fingerprint
from features.grid import WindowGrid
from features.sku_state import SkuState
from inference import bundle
from inference.pipeline import WindowPipeline, columns
from inference.session import Session
from schemas.columns import OrderColumns
from schemas.inputs import ORDERS

FIRST_MS = 1_300_060_800_000  # 2011-03-14, a Monday
LINES_A_DAY = 0.4  # order lines per SKU


def day_of_orders(skus: int, day: int, dice: np.random.Generator) -> OrderColumns:
    """Order lines of one day; on day 0 one for every SKU."""
    which = np.arange(skus) if day == 0 else dice.integers(0, skus, int(skus * LINES_A_DAY))
    n = len(which)
    return OrderColumns(
        row=np.arange(n, dtype=np.int32),
        event_id=[f"{day}-{i}" for i in range(n)],
        sku=[f"SKU-{i:07d}" for i in which.tolist()],
        quantity=1.0 + dice.poisson(2.0, n),
        unit_price=np.round(dice.uniform(1, 20, n), 2),
        event_time_ms=(FIRST_MS + day * DAY_MS + dice.integers(0, DAY_MS, n)).astype(np.int64),
        currency=["GBP"] * n,
    )


def session() -> Session:
    """Open the shipped model on one CPU core."""
    return Session(bundle.load(expected_fingerprint=fingerprint()), provider="cpu")


def sku_state_of(skus: int, model: Session | None, *, days: int) -> tuple[SkuState, WindowPipeline]:
    """Let a shop of so many SKUs live for some days; the day after them is open and holds its orders."""
    dice = np.random.default_rng(5)
    sku_state = SkuState(WindowGrid(), extra_columns=columns(model))
    pipeline = WindowPipeline(sku_state, model)
    for day in range(days + 1):
        sku_state.absorb(ORDERS, day_of_orders(skus, day, dice), now_ms=1 << 61)
        if day < days:
            for _ in pipeline.close(sku_state.grid.number(FIRST_MS + day * DAY_MS), emitted_ms=0):
                pass
    return sku_state, pipeline
