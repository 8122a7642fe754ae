"""Inputs that a network should not learn from: what one history says of them is no rule for what it will serve."""

from __future__ import annotations

from typing import Final

from features.cadence import DAY_MS, HORIZON
from features.encoding import FEATURES, YEAR, calendar_names
from inference.training.network import SEES_ALL, Blind

A_YEAR_MS: Final = 360 * DAY_MS

_TRENDS: Final = tuple(FEATURES.index(name) for name in ("shop_trend", "shop_slow_trend"))
_CLICKS: Final = tuple(FEATURES.index(name) for name in ("views", "carts"))


def unheeded(*, span_ms: int, any_shop: bool, horizon: int = HORIZON) -> Blind:
    """Name them for a history of so much event time, of a network for `any_shop` or for the shop itself.

    Of little history: what has not come round yet cannot come again, and one rise and one fall of a shop are no rule.
    For any shop: a shop's year is its own affair, and the clicks of one say nothing of how they tell in another, where
    they may be a hundred times as many.
    """
    if not any_shop and span_ms >= A_YEAR_MS:
        return SEES_ALL
    names = calendar_names(horizon)
    year = tuple(names.index(name) for name in YEAR)
    return Blind(features=(*_TRENDS, *_CLICKS) if any_shop else _TRENDS, calendar=year)
