"""The plain forecast: a SKU's level by the shop's weekday index, and a negative binomial law about it.

The level is an exponentially weighted mean of units per open window, season taken out; the spread one of squared errors
of that level, in units of the season. Both are corrected for their zero start, and a young SKU's are drawn towards what
is typical of the shop, so that there is a forecast from the first window on. Few fitted things are as hard to beat on
sparse sales. Two levels are kept, a slow one and one that follows quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from features.closing import corrected
from features.outliers import cap_squarable, cap_units
from inference import nb_quantiles
from inference.arrays import as_float32

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from features.cadence import Cadence
    from features.season import Context
    from inference.arrays import Floats, Rows

LEVELS_KEPT: Final = 2
"""The slow and the fast level; how many open windows they look back says `Cadence.plain_memories`."""

PRIOR_WINDOWS: Final = 3.0
"""Weight of what is typical, in windows, against a young SKU's own."""

PRIOR_SIZES: Final = 3.0
"""Prior variance per unit of mean, beside the square of the mean."""

FRACTION: Final = 0.1
"""The law of what is sold in fractions counts tenths."""

LEAST_MEAN: Final = 1e-3

COLUMNS: Final[tuple[tuple[str, str, tuple[int, ...], float], ...]] = (
    ("plain_level", "<f4", (LEVELS_KEPT,), 0.0),  # EW mean of units / season, not yet corrected for age
    ("plain_spread", "<f4", (LEVELS_KEPT,), 0.0),  # EW mean of squared errors / season, likewise, units^2
)


class Forecast(NamedTuple):
    """Steps first, then sums: quantiles float32 (n, K + S, Q), units; mean float32 (n, K)."""

    quantiles: NDArray[np.float32]
    mean: NDArray[np.float32]


def update(
    rows: Rows, units: Floats, context: Context, *, opens: NDArray[np.int32], nu: Floats
) -> dict[str, NDArray[Any]]:
    """Learn from the window that closed; returns the new columns, none where the shop was closed.

    units: (n,). opens: (n,), open windows of the SKU with this one. nu: (n,), typical units, by which outliers are cut.
    """
    if not context.is_open:
        return {}
    here = np.float32(context.demand)
    sold = cap_squarable(cap_units(np.asarray(units, np.float32), nu)).astype(np.float32)[:, None]
    cadence = context.cadence
    gain = (1 / np.array(cadence.plain_memories)).astype(np.float32)
    level = rows["plain_level"] + gain * (sold / here - rows["plain_level"])
    means = np.stack([levels({"plain_level": level}, opens, cadence, at) for at in range(LEVELS_KEPT)], axis=1)
    error = sold - means * here
    spread_gain = np.float32(1 / cadence.plain_spread_memory)
    spread = rows["plain_spread"] + spread_gain * (error * error / here - rows["plain_spread"])
    return {"plain_level": as_float32(level), "plain_spread": as_float32(spread)}


def levels(rows: Rows, opens: NDArray[np.int32], cadence: Cadence, which: int = 0) -> NDArray[np.float32]:
    """Give a level, float32 (n,), units per average open window: the slow one says how fast a SKU sells."""
    return corrected(rows["plain_level"][:, which], opens, 1 / cadence.plain_memories[which])


def forecast(
    rows: Rows,
    which: int,
    context: Context,
    *,
    opens: NDArray[np.int32],
    prior_nu: float,
    fractional: NDArray[np.bool_],
) -> Forecast:
    """Forecast all steps and sums with one of the levels; a window in which the shop is closed sells nothing.

    rows: columns of `COLUMNS`. which: position in `Cadence.plain_memories`. prior_nu: typical units per open window of
    the shop. fractional: bool (n,), rows of SKUs that are sold in fractions.
    """
    level, spread = _shrunk(rows, which, opens, prior_nu, context.cadence)
    ahead = context.demand_next
    factors, back = np.unique(
        np.concatenate([ahead, [ahead[:span].sum() for span in context.cadence.spans]]), return_inverse=True
    )
    factors = factors.astype(np.float32)
    unit = np.where(fractional, np.float32(FRACTION), np.float32(1))[:, None]
    mean = np.maximum(level[:, None] * factors, np.float32(LEAST_MEAN)) / unit
    variance = spread[:, None] * factors / (unit * unit)
    size = mean * mean / np.maximum(variance - mean, np.float32(1e-3) * mean)
    found = nb_quantiles.quantiles(mean.ravel(), size.ravel()).reshape(*mean.shape, -1)
    if fractional.any():
        found *= unit[:, :, None]
    if (factors <= 0).any():
        found *= (factors > 0)[None, :, None]
    return Forecast(found.take(back, axis=1), (level[:, None] * ahead).astype(np.float32))


def _shrunk(rows: Rows, which: int, opens: NDArray[np.int32], prior_nu: float, cadence: Cadence) -> tuple[Any, Any]:
    """Give level and spread, drawn towards what is typical while a SKU is young; float32 (n,) each."""
    seen, prior = opens.astype(np.float32), np.float32(PRIOR_WINDOWS)
    level = (seen * levels(rows, opens, cadence, which) + prior * np.float32(prior_nu)) / (seen + prior)
    spread = corrected(rows["plain_spread"][:, which], opens, 1 / cadence.plain_spread_memory)
    usual = level * (np.float32(PRIOR_SIZES) + level)
    return level, (seen * spread + prior * usual) / (seen + prior)
