"""How good the forecasts of the next window turned out to be.

The step-1 quantiles of what was served and of what it is compared with are remembered at each close, and scored by
pinball loss at the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.cadence import LEVELS
from features.outliers import is_absurd
from inference.arrays import Floats, Rows

COLUMNS: Final[tuple[tuple[str, str, tuple[int, ...], float], ...]] = (
    ("next_net", "<f4", (len(LEVELS),), float("nan")),  # the net's step-1 quantiles, units; NaN = none
    ("next_plain", "<f4", (len(LEVELS),), float("nan")),  # the plain forecast's
    ("next_naive", "<f4", (len(LEVELS),), float("nan")),  # seasonal naive's
    ("next_served", "<f4", (len(LEVELS),), float("nan")),  # those that were served
    ("next_mean", "<f4", (), float("nan")),  # the served step-1 mean, units
)
REFERENCES: Final = {"served": "next_served", "lstm": "next_net", "ewnb": "next_plain", "seasonal_naive": "next_naive"}
"""What is compared live, by the name of the source, and its column."""


def pinball(actual: Floats, quantiles: Floats, levels: Sequence[float] | Floats = LEVELS) -> Floats:
    """Pinball loss of each level, (n, Q), units: tau (y - q) above the quantile, (1 - tau) (q - y) below it.

    actual: (n,). quantiles: (n, Q) at `levels` (Q,), whose precision the loss has too.

    >>> pinball(np.array([10.0]), np.full((1, 7), 8.0))[0, 3]
    np.float64(1.0)
    """
    above = actual[:, None] - quantiles
    tau = np.asarray(levels, quantiles.dtype)
    return np.maximum(tau * above, (tau - 1) * above)


def wql_parts(actual: Floats, quantiles: Floats) -> tuple[Floats, Floats]:
    """Numerator and denominator of the weighted quantile loss per SKU, both (n,), units.

    Twice the pinball loss, averaged over the levels, and |y|. Sum each over whatever is being reported and divide
    last: an average of ratios is not a WQL.
    """
    return 2.0 * pinball(actual, quantiles).mean(axis=1), np.abs(actual)


def wql(actual: Floats, quantiles: Floats) -> float:
    """Weighted quantile loss over all rows; NaN when nothing was sold."""
    loss, volume = wql_parts(actual, quantiles)
    total = float(volume.sum())
    return float(loss.sum()) / total if total > 0 else float("nan")


class Losses(NamedTuple):
    """What the one-step forecasts of n SKUs cost in the window that closed, (n,) each, units; 0 where not `scored`.

    by_source: as in `REFERENCES`.
    """

    scored: NDArray[np.bool_]
    by_source: Mapping[str, Floats]


def losses(
    rows: Rows, actual: Floats, *, active: NDArray[np.bool_], sources: Iterable[str] = tuple(REFERENCES)
) -> Losses:
    """Hold the step-1 quantiles of all sources against the window that closed.

    actual: (n,) units. active: bool (n,), false where the window must not count (shop closed, not observed). A row is
    scored only when all sources have forecast it, so that their losses cover the same windows. sources: those of
    `REFERENCES` that forecast at all.
    """
    units = np.asarray(actual, np.float32)
    found = {source: wql_parts(units, rows[REFERENCES[source]])[0] for source in sources}
    scored = active & np.logical_and.reduce([np.isfinite(loss) for loss in found.values()])
    return Losses(scored, {source: np.where(scored, loss, np.float32(0)) for source, loss in found.items()})


def healthy(quantiles: Floats, mean: Floats, ring: Floats) -> NDArray[np.bool_]:
    """Rows whose net output can be served at all, bool (n,).

    quantiles: (n, K, Q). mean: (n, K). ring: (n, R), the units of the remembered windows; NaN = none. False where
    anything is NaN or infinite, or where some step's mean `is_absurd`.
    """
    if np.isfinite(quantiles.sum()) and np.isfinite(mean.sum()):  # one pass, and nearly always so
        fine = np.ones(len(mean), np.bool_)
    else:
        fine = np.asarray(np.isfinite(quantiles.sum(axis=(1, 2))) & np.isfinite(mean).all(axis=1), np.bool_)
    return fine & ~is_absurd(np.where(fine[:, None], mean, 0), ring)
