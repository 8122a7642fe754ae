"""The seasonal naive forecast with tracked residual quantiles: what is served when the net is not to be trusted.

The value of a future window is that of the same window one season (`m` windows) earlier; its spread is that of the
one-step seasonal difference `r = actual - value`, kept per SKU as one tracked quantile per level:

    theta += eta * s * (tau - 1{r <= theta})        s = EW mean of |r|

which is stochastic gradient descent on the pinball loss with a step in units of the SKU's own spread, so the tracker
is indifferent to scale. Nothing but `COLUMNS` is remembered; the last season comes from the caller's ring of units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.cadence import HORIZON, LEVELS, spans_of
from features.outliers import cap_units
from inference.arrays import Rows

MIN_STEP: Final = 0.05
"""Step of the tracker, in spreads, once it is warmed up."""

SEED_WINDOWS: Final = 4
"""So many residuals are too few to track quantiles: until then theta is that of a Laplace law of the same spread."""

SPREAD_WEIGHT: Final = 1.0 / 28.0

COLUMNS: Final[tuple[tuple[str, str, tuple[int, ...], float], ...]] = (
    ("naive_theta", "<f4", (len(LEVELS),), 0.0),  # tracked quantiles of the seasonal difference, units
    ("naive_spread", "<f4", (), 0.0),  # EW mean of its absolute value, units
    ("naive_n", "<i4", (), 0),  # differences seen
)

_TAU: Final = np.asarray(LEVELS, np.float32)
# quantiles of the Laplace law whose mean absolute value is one
_LAPLACE: Final = (-np.sign(_TAU - 0.5) * np.log(1.0 - np.abs(2.0 * _TAU - 1.0))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class NaiveForecast:
    """`quantiles` float32 (n, K, Q), `mean` float32 (n, K), `sums` float32 (n, S, Q), as `features.cadence` says."""

    quantiles: NDArray[np.float32]
    mean: NDArray[np.float32]
    sums: NDArray[np.float32]


def repeatable(units: NDArray[np.floating[Any]], usual: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Make windows fit to be repeated: unknown ones are the usual, outliers are capped by `cap_units`; float32.

    units: (n, m) or (n,), NaN = not live, not observed, or shop closed. usual: (n,), typical units per open window.

    >>> repeatable(np.array([[np.nan, 3.0, 90000.0]]), np.array([4.0]))
    array([[ 4.,  3., 80.]], dtype=float32)
    """
    typical = usual.reshape(-1, *[1] * (units.ndim - 1))
    return cap_units(np.where(np.isnan(units), typical, units), usual).astype(np.float32)


def values(last_season: NDArray[np.float32], steps: int = HORIZON) -> NDArray[np.float32]:
    """Point forecasts of the next `steps` windows were the shop open in all of them, float32 (n, steps), units.

    last_season: float32 (n, m), the last m windows, oldest first; NaN = not live, not observed, or shop closed then.
    Such a window is replaced by the mean of those there are, and by zero when there is none.

    >>> values(np.array([[3.0, np.nan, 5.0]], np.float32), 4)
    array([[3., 4., 5., 3.]], dtype=float32)
    """
    known = np.isfinite(last_season)
    full = last_season
    if not known.all():
        total = np.where(known, last_season, np.float32(0)).sum(axis=1)
        mean = total / np.maximum(known.sum(axis=1), 1).astype(np.float32)
        full = np.where(known, last_season, mean[:, None].astype(np.float32))
    columns = np.arange(steps) % full.shape[1]
    return np.ascontiguousarray(np.maximum(full[:, columns], np.float32(0)))


def one_step(rows: Rows, last_season: NDArray[np.float32], *, integer_units: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Quantiles of the next window given that the shop is open in it, float32 (n, Q), units, ascending, >= 0.

    last_season: as in `values`. integer_units: bool (n,), rows sold in whole units: theirs are rounded.
    """
    value = values(last_season, 1)
    return _finish(value + np.sort(rows["naive_theta"], axis=1), integer_units)


def forecast(
    rows: Rows, last_season: NDArray[np.float32], open_next: NDArray[np.float32], *, integer_units: NDArray[np.bool_]
) -> NaiveForecast:
    """All steps and spans. A window with `open_next` == 0 is closed: its quantiles and mean are zero.

    open_next: float32 (K,), the shop's season index of the coming windows, of which only zero or not matters here.
    Quantiles of a span are the sum of its values plus theta times the square root of the number of its open windows,
    as if the differences of single windows were independent.
    """
    theta = np.sort(rows["naive_theta"], axis=1)
    opened = (open_next > 0).astype(np.float32)
    mean = values(last_season, len(open_next)) * opened
    quantiles = _finish(mean[:, :, None] + theta[:, None, :], integer_units)
    quantiles *= opened[None, :, None]
    spans = spans_of(len(open_next))
    sums = np.empty((len(theta), len(spans), len(LEVELS)), np.float32)
    for at, span in enumerate(spans):
        root = np.float32(np.sqrt(opened[:span].sum()))
        sums[:, at, :] = _finish(mean[:, :span].sum(axis=1)[:, None] + root * theta, integer_units)
    return NaiveForecast(quantiles=quantiles, mean=mean, sums=sums)


def update(
    rows: Rows, actual: NDArray[np.floating[Any]], last_season: NDArray[np.float32], *, active: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """Learn from the window that closed; returns the new columns, `rows` stay as they are.

    actual: (n,) units. last_season: as in `values`, the m windows *before* the one that closed. active: bool (n,),
    false where nothing is to be learnt (shop closed, not observed). A row whose season is all NaN learns nothing
    either.
    """
    learns = active & np.isfinite(last_season).any(axis=1)
    seen = rows["naive_n"]
    residual = (np.asarray(actual, np.float32) - values(last_season, 1)[:, 0])[:, None]
    weight = np.maximum(SPREAD_WEIGHT, 1.0 / (seen + 1.0)).astype(np.float32)
    spread = rows["naive_spread"]
    spread = spread + weight * (np.abs(residual[:, 0]) - spread)
    theta = rows["naive_theta"]
    step = (np.maximum(MIN_STEP, 2.0 / (seen + 2.0)).astype(np.float32) * spread)[:, None]
    tracked = theta + step * (_TAU - (residual <= theta))
    tracked = np.where((seen < SEED_WINDOWS)[:, None], spread[:, None] * _LAPLACE, tracked)
    return {
        "naive_theta": np.where(learns[:, None], tracked, theta),
        "naive_spread": np.where(learns, spread, rows["naive_spread"]),
        "naive_n": (seen + learns).astype(np.int32),
    }


def _finish(quantiles: NDArray[np.float32], integer_units: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Clip at zero, in place, and round whole-unit rows; both keep an ascending last axis ascending."""
    np.maximum(quantiles, np.float32(0), out=quantiles)
    if integer_units.all():
        return np.rint(quantiles, out=quantiles)
    if integer_units.any():
        quantiles[integer_units] = np.rint(quantiles[integer_units])
    return quantiles
