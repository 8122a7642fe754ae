"""Inputs that a network should not learn from: what one history says of them is no rule for what it will serve."""

from __future__ import annotations

from typing import Final

from features.cadence import DAY_MS
from features.encoding import CALENDAR, FEATURES, YEAR
from inference.training.network import SEES_ALL, Blind

A_YEAR_MS: Final = 360 * DAY_MS

_TRENDS: Final = tuple(FEATURES.index(name) for name in ("shop_trend", "shop_slow_trend"))
_CLICKS: Final = tuple(FEATURES.index(name) for name in ("views", "carts"))
_YEAR: Final = tuple(CALENDAR.index(name) for name in YEAR)

OF_LITTLE_HISTORY: Final = Blind(features=_TRENDS, calendar=_YEAR)
"""What has not come round yet cannot come again, and one rise and one fall of a shop are no rule."""

OF_ANY_SHOP: Final = Blind(features=(*_TRENDS, *_CLICKS), calendar=_YEAR)
"""A shop's year is its own affair, and the clicks of one say nothing of how they tell in another, where they may be a
hundred times as many."""


def unheeded(*, span_ms: int, any_shop: bool) -> Blind:
    """Name them for a history of so much event time, of a network for `any_shop` or for the shop itself."""
    if any_shop:
        return OF_ANY_SHOP
    return OF_LITTLE_HISTORY if span_ms < A_YEAR_MS else SEES_ALL
