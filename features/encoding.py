"""What the model sees when a window closes, the same in serving, training and replay.

A float32 vector per SKU (`FEATURES`), which its recurrent state takes in, and one for the whole shop (`CALENDAR`): what
is known of the windows to come.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from features.cadence import DAY, FAST, HORIZON, LEVELS, RING, SCALE, SLOW, SUM_WINDOWS, WEEKLY, Cadence
from features.closing import Rows, WindowFacts, corrected, gains, last_windows
from features.outliers import USUAL_MULTIPLE, cap_clicks, in_scales
from features.season import Context

Float32 = NDArray[np.float32]

PROFILE = 7
"""Windows ahead for which a SKU's own season is compared with the shop's."""

_BLOCK = 2_048  # SKUs whose rings are looked at together: what is made on the way stays in the cache
_NOISE_PRIOR = 2.0  # weight, in windows, of the noise of a SKU of which no window is known twice
_NOISE_PRIOR_SQUARE = 0.5  # its square, beside that of counts
_LEAST_NOISE, _MOST_NOISE = 0.02, 8.0
_FORGET = 0.88  # weight of a season against the one after it, in a SKU's own season
_TRUST = 0.3  # weight of the shop's season in it
_MOST_SCALES = 8.0  # a window of the season counts for no more than so many times the scale

FEATURES = (
    "sold_log",  # log1p(units / nu), by outliers.in_scales
    "sold",  # 1 where anything was sold
    "shop_open",
    "fast_log",  # log1p(EW mean / nu) by Cadence.memories
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
    "size",  # ln(mean units of a window with a sale / nu) / 2
    "holiday",  # of this window, by features.known_days
    "eve",
    "shop_slow_trend",
    "noise",  # ln(standard deviation of units about the SKU's season / nu)
    *(f"profile_{k}" for k in range(1, PROFILE + 1)),  # ln(own index of the window k ahead / that of the shop)
)
YEAR = ("year_sin", "year_cos", "half_year_sin", "half_year_cos")


def calendar_names(horizon: int) -> tuple[str, ...]:
    """Name what `encode_calendar` says of so many windows to come."""
    return (
        *(f"index_{k}" for k in range(1, PROFILE + 1)),  # the shop's index of the window k ahead, less 1
        *(f"open_{k}" for k in range(1, horizon + 1)),
        *(f"holiday_{k}" for k in range(1, horizon + 1)),
        *(f"eve_{k}" for k in range(1, horizon + 1)),
        *YEAR,
    )


CALENDAR = calendar_names(HORIZON)
NOISE = FEATURES.index("noise")
_REVISION = 4  # raise when a formula changes and its name does not


def fingerprint(cadence: Cadence = DAY) -> str:
    """Name what a model must have been trained on to be served here: 16 hex digits."""
    parts = [_REVISION, FEATURES, CALENDAR, HORIZON, LEVELS, SUM_WINDOWS, RING, USUAL_MULTIPLE, gains(cadence).tolist()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def encode(rows: Rows, happened: WindowFacts, context: Context) -> Float32:
    """Encode n SKUs after `closing.advance` of the same window: float32 (n, len(FEATURES)), finite."""
    n = len(rows["nu"])
    x = np.empty((n, len(FEATURES)), np.float32)
    nu, opens = rows["nu"], rows["opens"]

    def scaled(units: NDArray[np.floating]) -> Float32:
        return np.log1p(in_scales(units, nu)).astype(np.float32)

    x[:, 0] = scaled(happened.units)
    x[:, 1] = happened.units > 0
    x[:, 2] = context.is_open
    gain = gains(context.cadence).tolist()
    for column, at in ((3, FAST), (4, WEEKLY), (5, SLOW)):
        x[:, column] = scaled(corrected(rows["ew"][:, at], opens, gain[at]))
    x[:, 6] = corrected(rows["ew_sold"], opens, gain[SCALE])
    x[:, 7] = np.log1p(np.minimum(corrected(rows["ew_square"], opens, gain[SCALE]) / (nu * nu), 1e4))
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
    x[:, 17] = np.log1p(cap_clicks(happened.views)) - np.log1p(rows["ew_views"])
    x[:, 18] = np.log1p(cap_clicks(happened.carts))
    x[:, 19] = scaled(happened.returned_units)
    x[:, 20] = rows["fractional"] == 0
    position, length = context.turn
    angle = 2 * np.pi * position / length
    x[:, 21], x[:, 22] = np.sin(angle), np.cos(angle)
    x[:, 23] = context.season_next[0] - 1
    known = context.known[0]
    x[:, 25], x[:, 26] = known.holiday, known.eve
    x[:, 27] = context.slow_trend
    for low in range(0, n, _BLOCK):
        some = slice(low, low + _BLOCK)
        x[some, 24], x[some, NOISE], x[some, NOISE + 1 :] = _own_season(rows["ring"][some], nu[some], context)
    return x


def encode_calendar(context: Context) -> Float32:
    """Encode what is known of the windows to come: float32 (C,), as `calendar_names` of the horizon; finite."""
    season_next, ahead = context.season_next, context.known[1:]
    angle = 2 * np.pi * context.known[0].year
    turns = [np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)]
    holidays, eves = [window.holiday for window in ahead], [window.eve for window in ahead]
    parts = (season_next[:PROFILE] - 1, season_next > 0, np.array(holidays), np.array(eves), np.array(turns))
    return np.concatenate(parts).astype(np.float32)


def _own_season(ring: Float32, nu: Float32, context: Context) -> tuple[Float32, Float32, Float32]:
    """Say how large windows with a sale are and how noisy all are, (n,), and how a SKU's season differs, (n, PROFILE).

    ring: (n, RING).
    """
    recent = np.ascontiguousarray(last_windows({"ring": ring}, context.number, RING).T)
    known = ~np.isnan(recent)
    recent = np.where(known, np.minimum(recent, np.float32(_MOST_SCALES) * nu) / nu, np.float32(0))
    sales = (recent > 0).sum(axis=0).astype(np.float32)
    mean = _summed(recent) / np.maximum(sales, np.float32(1))
    size = np.log(np.maximum(mean, np.float32(0.05))) / np.float32(2)

    season = context.season_windows if context.season_windows < RING else 1
    both = known[season:] & known[:-season]
    change = np.where(both, recent[season:] - recent[:-season], np.float32(0))
    prior = np.float32(_NOISE_PRIOR) * (np.float32(_NOISE_PRIOR_SQUARE) + 1 / nu)
    square = (_summed(change * change) / 2 + prior) / (both.sum(axis=0) + np.float32(_NOISE_PRIOR))
    noise = np.log(np.clip(np.sqrt(square), np.float32(_LEAST_NOISE), np.float32(_MOST_NOISE)))

    if context.season_windows < PROFILE:  # as good as none
        return size, noise, np.zeros((len(nu), PROFILE), np.float32)
    index = context.season_next[:PROFILE, None]
    total = np.broadcast_to(np.float32(_TRUST) * index, (PROFILE, len(nu))).copy()
    weight = np.full((PROFILE, len(nu)), np.float32(_TRUST))
    for back in range(1, RING // context.season_windows + 1):
        gain, at = np.float32(_FORGET ** (back - 1)), RING - back * context.season_windows
        total += gain * recent[at : at + PROFILE]
        weight += gain * known[at : at + PROFILE]
    ratio = np.log(total / weight + np.float32(0.05)) - np.log(index + np.float32(0.05))
    return size, noise, np.where(index > 0, ratio, np.float32(0)).T


def _summed(windows: Float32) -> Float32:
    """Sum (m, n) window by window: numpy sums a single column in another order, and so to other bits."""
    total = np.zeros(windows.shape[1], np.float32)
    for window in windows:
        total += window
    return total


def _log_ratio(value: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural log of value / base within [-2, 2], 0 where either is unknown or not positive."""
    known = (value > 0) & (base > 0)
    ratio: NDArray[np.float64] = np.log(np.where(known, value, 1.0)) - np.log(np.where(known, base, 1.0))
    return np.clip(ratio, -2, 2)
