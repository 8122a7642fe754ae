"""What a network for unknown shops learns from, beside one real shop: remixes of that shop, and synthetic ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from features.currency import ShopCurrency
from features.sku_state import SkuState
from inference.training import synthetic
from inference.training.fit import OtherShop
from inference.training.history import collect
from schemas.columns import OrderColumns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from features.admission import Columns
    from features.grid import WindowGrid

REMIXES: Final = 3
SYNTHETIC_SHOPS: Final = 20
KINDS_IN_TURN: Final[tuple[synthetic.Kind, ...]] = ("restless", "regular", "restless", "regular", "weighed")
REMIXED_SHARE: Final = 0.15
SYNTHETIC_SHARE: Final = 0.6
"""Of the batches; the rest are of the shop itself. Tuned on three shops that are in none of them (README)."""


def others(
    events: Mapping[int, Columns],
    grid: WindowGrid,
    *,
    seed: int,
    until_ms: int | None,
    progress: Callable[[int], None] | None = None,
) -> list[OtherShop]:
    """Replay remixes of the orders in `events`, before `until_ms`, and synthetic shops through the serving code.

    progress: gets the number of shops made so far, of REMIXES + SYNTHETIC_SHOPS.
    """
    made: list[OtherShop] = []
    orders = events[synthetic.ORDERS]
    assert isinstance(orders, OrderColumns)  # noqa: S101 - by its place
    for at in range(REMIXES):
        lines = synthetic.remixed(orders, seed * 1_000 + at)
        history = collect(SkuState(grid, money=_any_money(lines)), {synthetic.ORDERS: lines}, until_ms=until_ms)
        made.append(OtherShop(history.arrays, REMIXED_SHARE / REMIXES))
        if progress:
            progress(len(made))
    for at in range(SYNTHETIC_SHOPS):
        shop = synthetic.shop(seed * 1_000 + at, kind=KINDS_IN_TURN[at % len(KINDS_IN_TURN)])
        history = collect(SkuState(shop.grid, money=ShopCurrency(synthetic.CURRENCY)), shop.events)
        made.append(OtherShop(history.arrays, SYNTHETIC_SHARE / SYNTHETIC_SHOPS))
        if progress:
            progress(len(made))
    return made


def _any_money(lines: OrderColumns) -> ShopCurrency:
    return ShopCurrency(lines.currency[0]) if lines.currency else ShopCurrency()
