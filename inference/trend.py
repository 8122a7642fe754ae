"""Whether demand goes up or down: the next 7 windows against the last 7.

The forecast of the sum is a quantile function; read backwards it is a distribution function, from which comes the
probability that the next sum exceeds the last one. How far that is believed is learnt from how such probabilities have
come true (`aggregation.Aggregation.belief`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.cadence import LEVELS
from inference.arrays import LARGEST, Floats, as_float32

SURE: Final = 0.8
"""Probability from which a direction is claimed."""

_CERTAIN: Final = 0.99  # no shop is surer of a week than this

_TAU: Final = np.asarray((0.0, *LEVELS, 1.0), np.float32)


class Belief(NamedTuple):
    """How far probabilities of an increase are to be believed, see `believed`: (n,) each, or one for all."""

    slope: Floats | float = 1.0
    shift: Floats | float = 0.0


WHOLLY: Final = Belief()


@dataclass(frozen=True, slots=True)
class Trend:
    """Per SKU: `direction` int8 (-1 down, 0 flat, 1 up), the rest float32, each (n,). See `trend`."""

    direction: NDArray[np.int8]
    change_pct: NDArray[np.float32]
    probability: NDArray[np.float32]
    change_units: NDArray[np.float32]
    change_money: NDArray[np.float32]
    usual_change_units: NDArray[np.float32]
    usual_change_money: NDArray[np.float32]


def trend(
    sum7: Floats, *, last7: Floats, mean7: Floats, usual7: Floats, price: Floats, belief: Belief = WHOLLY
) -> Trend:
    """Compare the demand of the next 7 windows with that of the last 7, and with the usual one.

    sum7: (n, Q), quantiles of the next 7 windows' sum, units, ascending. last7: (n,), units sold in the last 7.
    mean7: (n,), expected units of the next 7; usual7: (n,), what they would be on the SKU's usual level, season taken
    into account. price: (n,), of a unit, NaN where it is not known.
    belief: how far such probabilities are to be believed.

    `probability` is P(next > last), an exact tie counting half, so a SKU that sells nothing and will sell nothing has
    0.5 and is flat. `direction` is up from 0.8 and down to 0.2. `change_pct` is that of the mean, NaN where the last
    7 windows sold nothing: there is no percentage of zero. `change_units` is the same in units, `change_money` what
    those are worth, NaN where there is no price; `usual_change_units` and `usual_change_money` are those against the
    usual level.
    """
    probability = believed(exceeds(sum7, last7), belief)
    direction = (probability >= SURE).astype(np.int8) - (probability <= 1.0 - SURE).astype(np.int8)
    sold = last7 > 0
    base = np.where(sold, last7, 1.0)
    change = np.where(sold, 100.0 * (mean7 / base - 1.0), np.nan)
    percent = np.minimum(change, LARGEST).astype(np.float32)
    return Trend(direction, percent, probability, *_change(mean7, last7, price), *_change(mean7, usual7, price))


def _change(expected: Floats, before: Floats, price: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the difference in units, to a thousandth, and what it is worth."""
    units = np.round(np.asarray(expected, np.float64) - before, 3)
    return as_float32(units), as_float32(np.round(units * np.asarray(price, np.float64), 2))


def believed(probability: Floats, belief: Belief) -> NDArray[np.float32]:
    """Correct probabilities, float32 (n,): the logarithm of their odds times `slope`, 0 to 1, and a `shift` up or down.

    The first draws towards one half what was said too surely, the second corrects a shop that falls or rises more often
    than its forecasts say. Source: Platt 1999.

    >>> believed(np.array([0.5, 0.9, 0.1]), Belief(0.5))
    array([0.5 , 0.75, 0.25], dtype=float32)
    """
    return chance(belief.slope * odds(probability) + belief.shift).astype(np.float32)


def chance(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the probability of which this is the logarithm of the odds, (n,)."""
    found: NDArray[np.float64] = 1 / (1 + np.exp(-log_odds))
    return found


def odds(probability: Floats) -> NDArray[np.float64]:
    """Logarithm of the odds, (n,); of what is all but certain that of 0.99."""
    bounded = np.clip(np.asarray(probability, np.float64), 1 - _CERTAIN, _CERTAIN)
    found: NDArray[np.float64] = np.log(bounded) - np.log1p(-bounded)
    return found


def exceeds(quantiles: Floats, value: Floats) -> NDArray[np.float32]:
    """P(Y > value) + P(Y = value) / 2 under a quantile function, float32 (n,).

    quantiles: (n, Q) at `LEVELS`, ascending, >= 0. value: (n,).

    The distribution function is linear between the quantiles. Below the lowest it falls to zero over as much as the
    distance to the lower quartile, not below zero units; above the highest it reaches one after twice the distance
    from the upper quartile. Equal quantiles are a point mass.

    >>> exceeds(np.zeros((1, 7)), np.zeros(1))
    array([0.5], dtype=float32)
    """
    q = np.asarray(quantiles, np.float64)
    low = np.maximum(q[:, 0] - (q[:, 2] - q[:, 0]), 0.0)
    high = q[:, -1] + 2.0 * (q[:, -1] - q[:, -3])
    nodes = np.column_stack((low, q, high))
    x = np.asarray(value, np.float64)[:, None]
    below = (nodes < x).sum(axis=1)
    upto = (nodes <= x).sum(axis=1)
    # with x on some nodes the function jumps from the first one's level to the last one's; else it is in between two
    at_left = _TAU[np.minimum(below, len(_TAU) - 1)]
    at_right = _TAU[np.maximum(upto - 1, 0)]
    left = np.clip(below - 1, 0, len(_TAU) - 2)
    row = np.arange(len(nodes))
    start, width = nodes[row, left], nodes[row, left + 1] - nodes[row, left]
    share = np.clip((x[:, 0] - start) / np.where(width > 0, width, 1.0), 0.0, 1.0)
    between = _TAU[left] + share * (_TAU[left + 1] - _TAU[left])
    between = np.where(below == 0, 0.0, np.where(below == len(_TAU), 1.0, between))
    level = np.where(upto > below, (at_left + at_right) / 2.0, between)
    return (1.0 - level).astype(np.float32)
