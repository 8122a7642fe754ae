"""What the model sees of a SKU when a window closes: one float32 vector, the same in serving, training and replay."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from features.closing import FAST, GAINS, RING, SLOW, WEEKLY, Rows, WindowFacts, corrected
from features.horizon import HORIZON, LEVELS, SUM_WINDOWS
from features.season import Context

Float32 = NDArray[np.float32]

FEATURES = (
    "sold_log",  # log1p(units / nu), units clipped at 20 nu
    "sold",  # 1 where anything was sold
    "shop_open",
    "fast_log",  # log1p(EW mean / nu) by the gains of features.closing
    "weekly_log",
    "slow_log",
    "sold_share",  # share of recent windows with a sale
    "spread",  # log1p(EW mean square / nu^2)
    "zero_run",  # log1p(open windows without a sale) / 4
    "age",  # log1p(open windows) / 6
    "scale",  # ln(nu) / 4
    "season_index",  # of this window, less 1
    "shop_trend",
    "same_phase",  # log1p(units one season before the next window / nu)
    "same_phase_earlier",  # two seasons before
    "price_level",  # ln(price / usual price), within [-2, 2]
    "price_move",  # ln(price / price one window ago), within [-2, 2]
    "views",  # log1p(views) - log1p(usual views)
    "carts",  # log1p(carts)
    "returned",  # log1p(returned units / nu)
    "integer_units",  # 1 where all quantities are whole
    "phase_sin",
    "phase_cos",
    "season_next",  # index of the next window, less 1
)
CLIP = 20.0
_REVISION = 1  # raise when a formula changes and its name does not


def fingerprint() -> str:
    """Name what a model must have been trained on to be served here: 16 hex digits."""
    parts = [_REVISION, FEATURES, HORIZON, LEVELS, SUM_WINDOWS, RING, CLIP, GAINS.tolist()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def encode(rows: Rows, happened: WindowFacts, context: Context) -> Float32:
    """Encode n SKUs after `closing.advance` of the same window: float32 (n, len(FEATURES)), finite."""
    n = len(rows["nu"])
    x = np.empty((n, len(FEATURES)), np.float32)
    nu, opens = rows["nu"], rows["opens"]

    def scaled(units: NDArray[np.floating]) -> Float32:
        return np.log1p(np.clip(units / nu, 0, CLIP)).astype(np.float32)

    x[:, 0] = scaled(happened.units)
    x[:, 1] = happened.units > 0
    x[:, 2] = context.is_open
    for column, gain in ((3, FAST), (4, WEEKLY), (5, SLOW)):
        x[:, column] = scaled(corrected(rows["ew"][:, gain], opens, float(GAINS[gain])))
    x[:, 6] = corrected(rows["ew_sold"], opens, 1 / 28)
    x[:, 7] = np.log1p(np.minimum(corrected(rows["ew_square"], opens, 1 / 28) / (nu * nu), 1e4))
    x[:, 8] = np.log1p(rows["unsold"]) / 4
    x[:, 9] = np.log1p(opens) / 6
    x[:, 10] = np.log(nu) / 4
    x[:, 11] = context.index - 1
    x[:, 12] = context.trend
    for column, seasons in ((13, 1), (14, 2)):
        lag = seasons * context.season_windows
        before = rows["ring"][:, (context.number + 1 - lag) % RING] if lag <= RING else np.zeros(n, np.float32)
        x[:, column] = scaled(np.nan_to_num(before))
    x[:, 15] = _log_ratio(happened.price, np.exp(rows["log_price_usual"].astype(np.float64)))
    x[:, 16] = _log_ratio(happened.price, happened.price_before)
    x[:, 17] = np.log1p(happened.views) - np.log1p(rows["ew_views"])
    x[:, 18] = np.log1p(happened.carts)
    x[:, 19] = scaled(happened.returned_units)
    x[:, 20] = rows["fractional"] == 0
    angle = 2 * np.pi * context.phase / max(context.season_length, 1)
    x[:, 21], x[:, 22] = np.sin(angle), np.cos(angle)
    x[:, 23] = context.season_next[0] - 1
    return x


def _log_ratio(value: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural log of value / base within [-2, 2], 0 where either is unknown or not positive."""
    known = (value > 0) & (base > 0)
    ratio: NDArray[np.float64] = np.log(np.where(known, value, 1.0)) - np.log(np.where(known, base, 1.0))
    return np.clip(ratio, -2, 2)
