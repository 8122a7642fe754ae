"""What depends on how long a window is, and how far forecasts look, in one place.

Every forecast of every source has these shapes: `quantiles` float32 (n, K, Q), `mean` float32 (n, K), `sums` float32
(n, S, Q), with K = `Cadence.horizon`, S = `len(Cadence.spans)` and Q = `len(LEVELS)`; all in units per window (sums:
units per span), never negative and ascending along the levels. A model bundle made for other numbers is refused.

Below, a `Cadence` for windows shorter than a day, of a day, of a week and of a month. All its numbers are windows, so
that no day hides in them. Memories were tuned on day windows, those of the plain forecast on hours, too; the others are
the same until measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
WEEK_MS: Final = 7 * DAY_MS
MONTH_MS: Final = 30 * DAY_MS

HORIZON: Final = 14
"""Windows of a day or longer that are forecast at each close; step k (1-based) is the k-th after the closed one."""

HOURS: Final = 24
"""The same of windows below a day, unless more are asked for."""

MOST_HOURS: Final = 168

LEVELS: Final[tuple[float, ...]] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Quantile levels, ascending, symmetric about the median."""

SUM_WINDOWS: Final[tuple[int, ...]] = (7, 14)
"""Spans, in windows from the first forecast one, whose total demand has a distribution of its own: quantiles of
single windows do not add up to quantiles of a sum. Windows in which the shop is closed count towards the span
and add nothing. Horizons beyond them add spans of 24 and 168 windows."""

RING: Final = 56
"""Windows of a SKU that are kept as they were; part of the layout of stored rows."""


DORMANT_AFTER_MS: Final = 400 * DAY_MS
DORMANT_WINDOWS: Final = 10_000
"""A SKU without an event for the shorter of these is forgotten (the first is SKUTREND_DORMANT_AFTER_MS)."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """What one family of windows needs; every number is a count of windows.

    phases: of one season, a week's days, or one; None: as many as there are windows in a day, up to 48, on each day of
    the week. memories: how far the four running means of a SKU's units look back (fast, weekly, scale, slow); a mean of
    memory m takes 1/m of the newest window in.
    views_memory, price_memory: the same of views and of the usual price; plain_memories, plain_spread_memory: of the
    levels and the spread of the plain forecast, in open windows. prior_windows: weight of the partition's
    typical scale against a young SKU's own windows. mature_after: open windows from which a SKU's scale tells what is
    typical. alert_age: windows a SKU must have lived before more than a giant spike is told of it. calm_windows: in a
    row, after which an alert ends. horizon: windows that are forecast.
    """

    name: Literal["hour", "day", "week", "month"]
    phases: int | None
    memories: tuple[float, float, float, float] = (2.5, 7, 28, 90)
    views_memory: float = 14
    price_memory: float = 28
    plain_memories: tuple[float, float] = (28, 10)
    plain_spread_memory: float = 56
    prior_windows: float = 5
    mature_after: int = 28
    alert_age: int = 28
    calm_windows: int = 3
    horizon: int = HORIZON

    @property
    def spans(self) -> tuple[int, ...]:
        """Give the spans whose sums are forecast: those of `SUM_WINDOWS`, a day and a week of hours in reach."""
        return spans_of(self.horizon)

    @property
    def outputs(self) -> int:
        """Count what is forecast of a SKU, K + S."""
        return self.horizon + len(self.spans)


def spans_of(horizon: int) -> tuple[int, ...]:
    """Give the spans whose sums go with a horizon.

    >>> [spans_of(steps) for steps in (14, 24, 168)]
    [(7, 14), (7, 14, 24), (7, 14, 24, 168)]
    """
    return (*SUM_WINDOWS, *(span for span in (HOURS, MOST_HOURS) if span <= horizon))


FAST, WEEKLY, SCALE, SLOW = range(4)
"""Positions in `Cadence.memories`."""

DAY: Final = Cadence("day", phases=7)
HOUR: Final = replace(DAY, name="hour", phases=None, plain_memories=(200, 40), plain_spread_memory=200, horizon=HOURS)
WEEK: Final = replace(DAY, name="week", phases=1)
MONTH: Final = replace(DAY, name="month", phases=1)


def cadence_of(window_ms: int, horizon: int | None = None) -> Cadence:
    """Find the cadence of windows of a length, ms: below a day all are as hours are. horizon: None: the usual one.

    >>> [cadence_of(length).name for length in (900_000, DAY_MS, WEEK_MS, 28 * DAY_MS)]
    ['hour', 'day', 'week', 'month']
    """
    found = HOUR if window_ms < DAY_MS else {DAY_MS: DAY, WEEK_MS: WEEK}.get(window_ms, MONTH)
    return found if horizon in {None, found.horizon} else replace(found, horizon=horizon)
