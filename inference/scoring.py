"""How good the forecasts turned out to be, and which source each SKU is therefore served from.

The step-1 quantiles of both sources are remembered at each close and scored by pinball loss at the next one. Losses
are divided by the SKU's scale `nu` and averaged with weight 1/28, so they compare over time; only their ratio within
one SKU is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.cadence import LEVELS
from features.outliers import is_absurd
from inference.arrays import Floats, Rows

LSTM: Final = 0
"""Index of the net in the wire's list of sources."""

SEASONAL_NAIVE: Final = 1

LOSS_WEIGHT: Final = 1.0 / 28.0

MIN_SCORED: Final = 7
"""Windows in which both sources were scored before the net may serve."""

LEAVE_NET: Final = 1.02
"""The net stops serving when its loss exceeds the baseline's by this factor ..."""

ENTER_NET: Final = 1.0
"""... and serves again when it is down to this one: the gap keeps a SKU from flapping."""

COLUMNS: Final[tuple[tuple[str, str, tuple[int, ...], float], ...]] = (
    ("loss_net", "<f4", (), 0.0),  # EW pinball loss / nu of the net, without unit
    ("loss_naive", "<f4", (), 0.0),  # the same of the seasonal naive
    ("scored", "<i4", (), 0),  # windows in which both were scored
    ("source", "<i1", (), SEASONAL_NAIVE),  # LSTM or SEASONAL_NAIVE: what serves now
    ("next_net", "<f4", (len(LEVELS),), float("nan")),  # the net's step-1 quantiles, units; NaN = none
    ("next_naive", "<f4", (len(LEVELS),), float("nan")),  # the baseline's
    ("next_mean", "<f4", (), float("nan")),  # the served step-1 mean, units
)


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
    """What the one-step forecasts of n SKUs cost in the window that closed, (n,) each, units; 0 where not `scored`."""

    scored: NDArray[np.bool_]
    net: Floats
    naive: Floats
    served: Floats


def losses(rows: Rows, actual: Floats, *, active: NDArray[np.bool_]) -> Losses:
    """Hold `next_net` and `next_naive` against the window that closed.

    actual: (n,) units. active: bool (n,), false where the window must not count (shop closed, not observed). A row is
    scored only when both sources have forecast it, so that their losses cover the same windows.
    """
    units = np.asarray(actual, np.float32)
    loss = [wql_parts(units, rows[name])[0] for name in ("next_net", "next_naive")]
    scored = active & np.isfinite(loss[0]) & np.isfinite(loss[1])
    net, naive = (np.where(scored, each, np.float32(0)) for each in loss)
    return Losses(scored, net, naive, np.where(rows["source"] == LSTM, net, naive))


def learn(rows: Rows, found: Losses, *, nu: Floats) -> dict[str, NDArray[Any]]:
    """Move `loss_net`, `loss_naive` and `scored` on; returns their new values. nu: (n,) units per window, > 0.

    The first losses are plain means, so that 7 windows are a fair sample.
    """
    count = (rows["scored"] + found.scored).astype(np.int32)
    weight = np.where(found.scored, np.maximum(LOSS_WEIGHT, 1.0 / np.maximum(count, 1)), 0.0).astype(np.float32)
    new: dict[str, NDArray[Any]] = {"scored": count}
    for name, loss in (("loss_net", found.net), ("loss_naive", found.naive)):
        new[name] = (rows[name] + weight * (loss / nu - rows[name])).astype(np.float32)
    return new


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


def choose_source(rows: Rows, *, net_ok: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Decide from `scored`, `loss_net`, `loss_naive`, `source` what serves each SKU now: int8 (n,).

    The baseline serves until both have been scored in 7 windows. Then the net serves from when its loss is no greater
    than the baseline's until it is 2 % greater. net_ok: bool (n,) from `healthy`; where false the baseline serves, now.
    """
    limit = np.where(rows["source"] == LSTM, np.float32(LEAVE_NET), np.float32(ENTER_NET))
    better = rows["loss_net"] <= limit * rows["loss_naive"]
    net = net_ok & (rows["scored"] >= MIN_SCORED) & better
    return np.where(net, LSTM, SEASONAL_NAIVE).astype(np.int8)


def served_next(rows: Rows) -> NDArray[np.float32]:
    """Pick the step-1 quantiles that were served at the last close, float32 (n, Q), units; NaN = none yet."""
    return np.where((rows["source"] == LSTM)[:, None], rows["next_net"], rows["next_naive"]).astype(np.float32)
