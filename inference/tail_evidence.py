"""How unlikely what just happened is: tail probabilities of a window's units, of a run of nothing, of a price move.

Units are judged by a negative binomial law whose mean is the forecast made before the window and whose dispersion
comes from the SKU's own forecast errors. Two expectations are held against each window, the served forecast (unless it
has done worse) and the SKU's own slow level, and the one that finds it *less* surprising counts: an alert needs both.

p-values are float64, mid-p (an outcome as likely as the one seen counts half, which keeps discrete tests from being
timid), never below 1e-300, and 0.5 stands for "unremarkable, not evaluated". Fractional units are admitted: the
regularised incomplete beta function continues the tail between whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincc, gammainc, gammaincc

FLOOR: Final = 1e-300
"""Smallest p-value told, so that its logarithm exists."""

LEVEL_WEIGHT: Final = 1.0 / 28.0
"""Weight of the newest window in the level."""

SHARE_WEIGHT: Final = 1.0 / 56.0
"""Weight of the newest window in the share of windows without a sale."""

SIZE_WEIGHT: Final = 1.0 / 8.0
"""Weight of the newest sale in the size of a sale, and of the newest price move in the usual one."""

BOUND_SD: Final = 2.0
"""Up to so many standard deviations above the mean no tail is evaluated: none there is below 1e-2."""

DROP_SHARE: Final = 0.5
"""Down to this share of the mean no lower tail is evaluated: half of what was expected is not an alert."""

CLIP_SD: Final = 6.0
"""Further off, a window enters the level and the variance as if it were so many standard deviations off."""

CAUTION_SE: Final = 1.5
"""A SKU's own level is taken so many standard errors higher before more than it is called too much."""

SLOW_WEIGHT: Final = 1.0 / 112.0
"""Weight of the newest window in the slow level and the error variances: burstiness takes long to see."""

TRUST: Final = 1.6
"""A forecast is held against a window while its error variance is no more than so many times that of the level."""

MODEL_ERROR: Final = 0.02
"""Squared relative error of the mean that is always allowed for; it bounds r at 50."""

MIN_R: Final = 0.01

PRIOR_SALES: Final = 6.0
"""Weight, in windows with a sale, of the prior variance against the observed one."""

PRIOR_SIZES: Final = 3.0
"""Prior variance per unit of mean, in sizes of a usual sale."""

YOUNG_WINDOWS: Final = 28
"""Before a SKU has been seen in so many windows its upper tail is no lighter than a power law."""

FIRST_CLIP: Final = 100.0
"""Units beyond which the first window of a SKU is not believed: a giant first order must not become what is usual."""

MIN_PRICE_MOVE: Final = 0.02
"""Smallest usual price move, natural log: below it everything is rounding."""

_RECORD_KEEP: Final = 0.5 ** (1.0 / 180.0)
_BIG: Final = 3e38
_LN10: Final = float(np.log(10.0))

COLUMNS: Final[tuple[tuple[str, str, tuple[int, ...], float], ...]] = (
    ("judged", "<i4", (), 0),  # open, observed windows seen
    ("level", "<f4", (), 0.0),  # EW mean of units / season index
    ("slow_level", "<f4", (), 0.0),  # the same over four times as long
    ("err_var", "<f4", (), 0.0),  # EW mean of squared one-step errors of the forecast, units^2
    ("own_var", "<f4", (), 0.0),  # the same of the level, units^2
    ("seen_max", "<f4", (), 0.0),  # largest window seen, halved every 180 windows, units
    ("sale_size", "<f4", (), 0.0),  # EW mean of units of windows with a sale
    ("zero_share", "<f4", (), 0.0),  # EW share of windows without a sale
    ("zero_run", "<i4", (), 0),  # windows since the last one with a sale
    ("run_level", "<f4", (), 0.0),  # level when the run began, units
    ("run_zero_share", "<f4", (), 1.0),  # share of windows without a sale when the run began
    ("silence_logp", "<f4", (), 0.0),  # sum of ln P(no sale) over the run
    ("silence_units", "<f4", (), 0.0),  # units expected over the run
    ("last_sale_ms", "<i8", (), -1),  # start of the last window with a sale; -1 = never
    ("price_ref", "<f4", (), float("nan")),  # last known price; NaN = none
    ("price_move", "<f4", (), 0.0),  # EW mean of |ln ratio| over price changes
    ("price_moves", "<i4", (), 0),  # price changes seen
    ("views_level", "<f4", (), 0.0),  # EW mean of views per window
)

Rows = Mapping[str, NDArray[Any]]
Floats = NDArray[np.floating[Any]]
Double = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """What closed: one window of n SKUs.

    `units`, `views`: (n,), >= 0. `price`: (n,), last known price, NaN = none. `observed`: bool (n,), false where sales
    could not be seen (stock-out). `season`: the shop's index of this window, mean about 1; 0 = shop closed: then
    nothing about demand is judged or learnt, but a sale still ends a silence.
    """

    start_ms: int
    units: Floats
    price: Floats
    views: Floats
    observed: NDArray[np.bool_]
    season: float


@dataclass(frozen=True, slots=True)
class TailEvidence:
    """What `observe` found, every field (n,).

    `active`: the window counts for demand. `expected`: units, the forecast or, where that
    has done worse, the SKU's level. `p_up`, `p_down`:
    mid-p of so many or more, so few or fewer. `record`: more than ever seen (fading over half a year).
    `silence_log10p`: log10 of the chance of the run of windows without a sale up to now, 0 after a sale.
    `silence_units`: units expected over that run. `dispersion`: r of the negative binomial. `price_before`: the
    price the move started from; `price_log`: ln(after / before), 0 = no move; `price_usual`: usual size of a move;
    `price_p`: chance that a move is as large. `views_ratio`: views against usual; NaN = never viewed.
    """

    active: NDArray[np.bool_]
    expected: Double
    p_up: Double
    p_down: Double
    record: NDArray[np.bool_]
    dispersion: Double
    zero_run: NDArray[np.int32]
    silence_log10p: Double
    silence_units: Double
    last_sale_ms: NDArray[np.int64]
    price_before: Double
    price_log: Double
    price_usual: Double
    price_p: Double
    views_ratio: Double


def tails(units: Floats, *, mu: Floats, r: Floats) -> tuple[Double, Double]:
    """Mid-p upper and lower tail of a negative binomial, exact, both float64 (n,), in [1e-300, 1].

    units: (n,), >= 0. mu: (n,), mean, >= 0. r: (n,), size, > 0; infinite = Poisson. Source: P(Y >= y) is the
    regularised incomplete beta function I_{mu/(r+mu)}(y, r), for Poisson the regularised lower gamma function.

    >>> up, down = tails(np.array([0.0]), mu=np.array([1.0]), r=np.array([1.0]))
    >>> float(up[0]), float(down[0])
    (0.75, 0.25)
    """
    y, mean, size = (np.asarray(a, np.float64) for a in (units, mu, r))
    return _upper_tail(y, mean, size), _lower_tail(y, mean, size)


def _upper_tail(y: Double, mu: Double, r: Double) -> Double:
    at_least = np.where(y > 0, _at_least(np.where(y > 0, y, 1.0), mu, r), 1.0)
    return np.clip(0.5 * (at_least + _at_least(y + 1.0, mu, r)), FLOOR, 1.0)


def _lower_tail(y: Double, mu: Double, r: Double) -> Double:
    below = np.where(y > 0, _below(np.where(y > 0, y, 1.0), mu, r), 0.0)
    return np.clip(0.5 * (below + _below(y + 1.0, mu, r)), FLOOR, 1.0)


def dispersion(rows: Rows) -> Double:
    """Size r of each SKU's negative binomial, float64 (n,), in [0.01, 50]; small = bursty.

    From the mean `L` and the error variance `V` of the forecast, or of the level where the forecast is not trusted:
    r = L^2 / (V - L). V is shrunk towards what bursty sales at random times would give, L (1 + 3 size), with the weight
    of six windows with a sale, because the variance of few sales is under-estimated more often than not. V below L (as
    regular as Poisson or more) means r = 50.
    """
    level = np.maximum(rows["slow_level"].astype(np.float64), 1e-9)
    sales = (1.0 - rows["zero_share"]) * _memory(rows)
    prior = level * (1.0 + PRIOR_SIZES * rows["sale_size"])
    var = (
        sales * np.where(_trusted(rows), rows["err_var"], rows["own_var"]).astype(np.float64) + PRIOR_SALES * prior
    ) / (sales + PRIOR_SALES)
    burst = np.maximum(var - level, 0.0) / (level * level) + MODEL_ERROR
    return np.asarray(np.clip(1.0 / burst, MIN_R, 1.0 / MODEL_ERROR), np.float64)


def observe(rows: Rows, closed: ClosedWindow, expected: Floats) -> tuple[TailEvidence, dict[str, NDArray[Any]]]:
    """Judge the window that closed, then learn from it.

    expected: (n,), the step-1 mean served at the previous close, units; NaN = there was none, and the SKU's own level
    serves. Returns the tail evidence and the new values of all `COLUMNS`; `rows` stay as they are.
    """
    units = np.asarray(closed.units, np.float64)
    active = closed.observed & (closed.season > 0)
    believed = _believe(rows, closed, expected)
    p_up, p_down = _unit_tails(rows, units, active, believed)
    new = _learn(rows, units, active, believed)
    new.update(_silence(rows, closed, units > 0, active, believed.r))
    new.update(_prices(rows, closed.price), views_level=_views(rows, closed.views, active))
    tail_evidence = TailEvidence(
        active=active,
        expected=believed.mu,
        p_up=p_up,
        p_down=p_down,
        record=units > rows["seen_max"],
        dispersion=believed.r,
        zero_run=new["zero_run"],
        silence_log10p=np.maximum(new["silence_logp"] / _LN10, -300.0),
        silence_units=new["silence_units"].astype(np.float64),
        last_sale_ms=new["last_sale_ms"],
        views_ratio=_ratio(closed.views, rows["views_level"]),
        **_price_evidence(rows, closed.price),
    )
    return tail_evidence, new


@dataclass(frozen=True, slots=True)
class _Beliefs:
    """What a window was expected to sell, each (n,).

    By the forecast (else the level), by the level, what is told (`mu`), the lowest and the highest mean held against
    it, dispersion and standard deviation of the law about the highest.
    """

    forecast: Double
    own: Double
    mu: Double
    low: Double
    high: Double
    r: Double
    sd: Double
    season: float


def _trusted(rows: Rows) -> NDArray[np.bool_]:
    """Whether the forecast is held against the window: last week's sales of a bursty SKU would judge nothing."""
    return np.asarray(rows["err_var"] <= TRUST * rows["own_var"], np.bool_)


def _memory(rows: Rows) -> Double:
    """Windows that the slow averages rest on."""
    return np.clip(rows["judged"], 1.0, 2.0 / SLOW_WEIGHT - 1.0).astype(np.float64)


def _believe(rows: Rows, closed: ClosedWindow, expected: Floats) -> _Beliefs:
    own = rows["level"].astype(np.float64) * closed.season
    slow = (rows["slow_level"] + CAUTION_SE * np.sqrt(rows["own_var"] / _memory(rows))) * closed.season
    forecast = np.where(np.isfinite(expected), np.maximum(expected, 0.0), own).astype(np.float64)
    mu = np.where(_trusted(rows), forecast, own)
    # a rate below one sale in all the windows seen cannot be told from that rate
    least = 1.0 / (np.minimum(rows["judged"], 56) + 1.0)
    high, low = np.maximum.reduce((mu, own, slow, least)), np.minimum(mu, own)
    r = dispersion(rows)
    return _Beliefs(forecast, own, mu, low, high, r, np.sqrt(high + high * high / r), closed.season)


def _unit_tails(rows: Rows, units: Double, active: NDArray[np.bool_], b: _Beliefs) -> tuple[Double, Double]:
    """Tails where they can be small: above the higher mean the upper one, below the lower mean the lower one."""
    p_up = np.full(len(units), 0.5)
    above = np.flatnonzero(active & (units > b.high + BOUND_SD * b.sd))
    if len(above):
        p_up[above] = _upper_tail(units[above], b.high[above], b.r[above])
    p_down = np.where(active & (units == 0), np.minimum(0.5 * _nothing(b.low, b.r), 0.5), 0.5)
    below = np.flatnonzero(active & (units < DROP_SHARE * b.low) & (units > 0))
    if len(below):
        p_down[below] = np.minimum(_lower_tail(units[below], b.low[below], b.r[below]), 0.5)
    # nothing is known of the burstiness of a young SKU: sales of new products fall off with about the square
    young = np.where(rows["judged"] < YOUNG_WINDOWS, (1.0 + units / np.maximum(b.high, 1.0)) ** -2.0, 0.0)
    p_up = np.where(active, np.maximum(p_up, np.minimum(young, 0.5)), 0.5)
    # so few or fewer is at least as likely as nothing at all has been
    return p_up, np.maximum(p_down, np.maximum(0.5 * rows["zero_share"], FLOOR))


def _learn(rows: Rows, units: Double, active: NDArray[np.bool_], b: _Beliefs) -> dict[str, NDArray[Any]]:
    """Level, error variances, record and size of a sale after this window; far outliers enter clipped."""
    seen = rows["judged"] + active
    weight = np.where(active, np.maximum(LEVEL_WEIGHT, 1.0 / np.maximum(seen, 1)), 0.0)
    slower = np.where(active, np.maximum(SLOW_WEIGHT, 1.0 / np.maximum(seen, 1)), 0.0)
    known = rows["judged"] > 0
    top = b.high + CLIP_SD * b.sd
    clipped = np.minimum(units, np.where(known, top, FIRST_CLIP))
    error, own_error = (np.where(known, clipped - mean, 0.0) for mean in (b.forecast, b.own))
    flat = clipped / max(b.season, 0.1)
    sold = active & (units > 0)
    first = rows["sale_size"] == 0
    size = np.where(first, clipped, rows["sale_size"] + SIZE_WEIGHT * (clipped - rows["sale_size"]))
    record = np.maximum(rows["seen_max"] * _RECORD_KEEP, np.minimum(units, 4.0 * np.maximum(rows["seen_max"], top)))
    return {
        "judged": seen.astype(np.int32),
        "level": _f4(rows["level"] + weight * (flat - rows["level"])),
        "slow_level": _f4(rows["slow_level"] + slower * (flat - rows["slow_level"])),
        "err_var": _f4(rows["err_var"] + slower * (error * error - rows["err_var"])),
        "own_var": _f4(rows["own_var"] + slower * (own_error * own_error - rows["own_var"])),
        "seen_max": _f4(np.where(active, record, rows["seen_max"])),
        "sale_size": _f4(np.where(sold, size, rows["sale_size"])),
    }


def _silence(
    rows: Rows, closed: ClosedWindow, sold: NDArray[np.bool_], active: NDArray[np.bool_], r: Double
) -> dict[str, NDArray[Any]]:
    """Carry the run of windows without a sale on, or end it.

    The rate held against a run is the one before the sale that preceded it: the very sale that starts the clock says
    nothing about the rate, and would make every rare SKU look overdue. P(no sale) of a window is the larger of the
    negative binomial's and the share of windows without a sale seen; with few windows seen, at least one in so many.
    """
    quiet = active & ~sold & (rows["last_sale_ms"] >= 0)
    mu = rows["run_level"].astype(np.float64) * closed.season
    zero = np.maximum(_nothing(mu, r), rows["run_zero_share"])
    ends = sold & active
    seen, share = rows["judged"], rows["zero_share"]
    weight = np.where(active, np.maximum(SHARE_WEIGHT, 1.0 / (seen + 1.0)), 0.0)
    memory = np.minimum(seen, 2.0 / SHARE_WEIGHT)
    # a rate known from so many windows is believed to be one standard error quieter than it looked
    likely = np.where(seen < 2.0 / SHARE_WEIGHT, (share * memory + 1.0) / (memory + 2.0), share)
    cautious = likely + np.sqrt(likely * (1.0 - likely) / (memory + 2.0))
    return {
        "zero_run": np.where(sold, 0, rows["zero_run"] + quiet).astype(np.int32),
        "zero_share": (share + weight * (~sold - share)).astype(np.float32),
        "run_level": np.where(ends, rows["level"], rows["run_level"]).astype(np.float32),
        "run_zero_share": np.where(ends, np.minimum(cautious, 1.0), rows["run_zero_share"]).astype(np.float32),
        "silence_logp": _f4(np.where(sold, 0.0, rows["silence_logp"] + np.where(quiet, np.log(zero), 0.0))),
        "silence_units": _f4(np.where(sold, 0.0, rows["silence_units"] + np.where(quiet, mu, 0.0))),
        "last_sale_ms": np.where(sold, closed.start_ms, rows["last_sale_ms"]).astype(np.int64),
    }


def _price_evidence(rows: Rows, price: Floats) -> dict[str, Double]:
    """Measure the move of the price in this window against the SKU's usual one.

    Moves follow a Laplace law of mean size `price_usual`, which fits list-price edits better than a normal one (many
    small, some large): P(|x| >= size) = exp(-size / usual).
    """
    move = np.log(_ratio(np.asarray(price, np.float32), rows["price_ref"]))
    move = np.where(np.isfinite(move), move, 0.0)
    usual = np.maximum(rows["price_move"].astype(np.float64), MIN_PRICE_MOVE)
    return {
        "price_before": rows["price_ref"].astype(np.float64),
        "price_log": move,
        "price_usual": usual,
        "price_p": np.maximum(np.exp(-np.abs(move) / usual), FLOOR),
    }


def _prices(rows: Rows, price: Floats) -> dict[str, NDArray[Any]]:
    """Remember the price, and fold a move into the usual one."""
    known = np.isfinite(price) & (price > 0)
    move = np.abs(_price_evidence(rows, price)["price_log"])
    moved = move > 0
    moves = (rows["price_moves"] + moved).astype(np.int32)
    weight = np.where(moved, np.maximum(SIZE_WEIGHT, 1.0 / np.maximum(moves, 1)), 0.0)
    return {
        "price_ref": np.where(known, price, rows["price_ref"]).astype(np.float32),
        "price_move": (rows["price_move"] + weight * (move - rows["price_move"])).astype(np.float32),
        "price_moves": moves,
    }


def _views(rows: Rows, views: Floats, active: NDArray[np.bool_]) -> NDArray[np.float32]:
    weight = np.where(active, np.maximum(LEVEL_WEIGHT, 1.0 / (rows["judged"] + 1.0)), 0.0)
    return _f4(rows["views_level"] + weight * (views - rows["views_level"]))


def _ratio(now: Floats, usual: Floats) -> Double:
    """Divide where both are positive numbers; NaN elsewhere."""
    fine = (now > 0) & (usual > 0) & np.isfinite(now) & np.isfinite(usual)
    return np.where(fine, np.asarray(now, np.float64) / np.where(fine, usual, 1.0), np.nan)


def _f4(values: Floats) -> NDArray[np.float32]:
    return np.clip(values, -_BIG, _BIG).astype(np.float32)


def _nothing(mu: Double, r: Double) -> Double:
    """Chance of no sale at all, the negative binomial's only tail with a closed form."""
    return np.maximum(np.exp(-r * np.log1p(mu / r)), FLOOR)


def _at_least(y: Double, mu: Double, r: Double) -> Double:
    """P(Y >= y), y > 0."""
    return _by_law((gammainc, betainc, betaincc), y, mu, r)


def _below(y: Double, mu: Double, r: Double) -> Double:
    """P(Y < y), y > 0."""
    return _by_law((gammaincc, betaincc, betainc), y, mu, r)


def _by_law(functions: tuple[np.ufunc, np.ufunc, np.ufunc], y: Double, mu: Double, r: Double) -> Double:
    """Evaluate a tail in its three forms: Poisson, mean below r, mean above r.

    The last two are the same function seen from both ends of the unit interval: of x and 1 - x the smaller one is
    passed, because the other may have been rounded to one.
    """
    poisson, small, large = functions
    out = np.empty(y.shape)
    limit = np.isinf(r)
    size = np.where(limit, 1.0, r)
    poisson(y, mu, out=out, where=limit)
    small(y, size, mu / (size + mu), out=out, where=~limit & (mu <= r))
    large(size, y, size / (size + mu), out=out, where=~limit & (mu > r))
    return out
