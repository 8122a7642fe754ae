"""How far ahead forecasts look, and which points of each distribution are kept.

Every forecast of every source has these shapes: `quantiles` float32 (n, HORIZON, len(LEVELS)), `mean` float32
(n, HORIZON), `sums` float32 (n, len(SUM_WINDOWS), len(LEVELS)), all in units per window (sums: units per span),
never negative and ascending along the levels. A model bundle made for other numbers is refused.
"""

from __future__ import annotations

from typing import Final

HORIZON: Final = 14
"""Windows forecast at each close; step k (1-based) is the k-th window after the one that closed."""

LEVELS: Final[tuple[float, ...]] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Quantile levels, ascending, symmetric about the median."""

SUM_WINDOWS: Final[tuple[int, ...]] = (7, 14)
"""Spans, in windows from the first forecast one, whose total demand has a distribution of its own: quantiles of
single windows do not add up to quantiles of a sum. Windows in which the shop is closed count towards the span
and add nothing."""
