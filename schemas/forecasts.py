"""What is said on the topic `forecasts`."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

SOURCES: Final = ("lstm", "seasonal_naive", "ewnb", "ewnb_fast", "window_quantiles", "blend")
"""Who made a forecast; the position is its number in `ForecastColumns.source`. New sources are appended."""

DIRECTIONS: Final = ("down", "flat", "up")
"""The position is one more than the number in `ForecastColumns.direction`."""

SHIFTS: Final = ("down", None, "up")
"""The position is one more than the number in `ForecastColumns.shift`."""


class Trend(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the demand of a SKU is heading: the next 7 windows against the last 7.

    `change_pct` is the expected change in percent, null where there is nothing to compare with; `change_units` that in
    units, `change_money` what these are worth at the present price, in the shop's currency, null where no price is
    known and in records of builds that did not give it. `probability`, 0 to 1, is that of an increase.
    `usual_change_units` and `usual_change_money` are the same against what the SKU sells in such 7 windows on its usual
    level, its week taken into account. `shift` says that it has sold on another level for two weeks than in the six
    before, and on which; null where it has not, or has not been there for so long.
    """

    direction: Literal["down", "flat", "up"]
    change_pct: float | None
    probability: float
    change_units: float | None = None
    change_money: float | None = None
    usual_change_units: float | None = None
    usual_change_money: float | None = None
    shift: Literal["down", "up"] | None = None


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The demand of one SKU expected after the closed window [window_start_ms, window_end_ms): the trend update.

    `id` is `sku/window_start_ms/revision`. `quantiles` has one list per step, each with one number of units per level
    of `quantile_levels`, ascending; `mean` has one number of units per step. `step_starts_ms` has the start of the
    window of each step; the first is `window_end_ms`, and the list is empty in records of builds that did not give it.
    `step_ms` is the nominal length of a window only: days of 23 and 25 hours and months make a start computed from it
    wrong. `sums` maps a number of windows, as text, to the quantiles of the demand of all of them together.
    `actual_units` is what the closed window sold. `source` names who made the forecast, `model` the bundle, `provider`
    what the model ran on (CUDA or CPU).
    """

    id: str
    sku: str
    window_start_ms: int
    window_end_ms: int
    revision: int
    actual_units: float
    step_ms: int
    quantile_levels: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]
    sums: dict[str, tuple[float, ...]]
    trend: Trend
    source: str
    model: str
    provider: str
    emitted_ms: int
    step_starts_ms: tuple[int, ...] = ()
