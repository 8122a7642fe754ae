"""Tails of a negative binomial law, exact down to 1e-300, also between whole numbers.

p-values are mid-p: an outcome as likely as the one seen counts half, which keeps discrete tests from being timid. The
regularised incomplete beta function, that of Poisson's law the incomplete gamma function, continues the tails between
whole numbers, so that fractional units are admitted.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import betainc, betaincc, gammainc, gammaincc

from inference.arrays import Double, Floats

FLOOR: Final = 1e-300
"""Smallest p-value told, so that its logarithm exists."""


def tails(units: Floats, *, mu: Floats, r: Floats) -> tuple[Double, Double]:
    """Mid-p upper and lower tail of a negative binomial, exact, both float64 (n,), in [1e-300, 1].

    units: (n,), >= 0. mu: (n,), mean, >= 0. r: (n,), size, > 0; infinite = Poisson. Source: P(Y >= y) is the
    regularised incomplete beta function I_{mu/(r+mu)}(y, r), for Poisson the regularised lower gamma function.

    >>> up, down = tails(np.array([0.0]), mu=np.array([1.0]), r=np.array([1.0]))
    >>> float(up[0]), float(down[0])
    (0.75, 0.25)
    """
    y, mean, size = (np.asarray(a, np.float64) for a in (units, mu, r))
    return upper_tail(y, mean, size), lower_tail(y, mean, size)


def upper_tail(y: Double, mu: Double, r: Double) -> Double:
    """Mid-p of so many or more, float64 (n,), as in `tails`."""
    at_least = np.where(y > 0, _at_least(np.where(y > 0, y, 1.0), mu, r), 1.0)
    return np.clip(0.5 * (at_least + _at_least(y + 1.0, mu, r)), FLOOR, 1.0)


def lower_tail(y: Double, mu: Double, r: Double) -> Double:
    """Mid-p of so few or fewer, float64 (n,), as in `tails`."""
    below = np.where(y > 0, _below(np.where(y > 0, y, 1.0), mu, r), 0.0)
    return np.clip(0.5 * (below + _below(y + 1.0, mu, r)), FLOOR, 1.0)


def probability_of_zero(mu: Double, r: Double) -> Double:
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
