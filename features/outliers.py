"""How much of an outlier counts, in one place: each rule bounds a value by a multiple of what is usual.

What was sold is published and kept in the ring of windows as it was; only what is learnt from it, shown to the model or
served is bounded. How far a window may lie off its own forecast is a matter of the law in `inference.tail_evidence`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

USUAL_MULTIPLE: Final = 20.0
"""A window is learnt from, repeated and shown to the model as if it had sold at most so many times the usual."""

FORECAST_MULTIPLE: Final = 50.0
"""A forecast above so many times the largest window of the ring is taken for a broken one."""

MOST_UNITS: Final = 1e15
"""Units of a window, as the averages see them: the square must stay a float32."""

MOST_CLICKS: Final = 1e9
"""Views or carts of a window, as the averages and the model see them."""


def cap_units(units: Floats, usual: Floats) -> Floats:
    """Bound units by 20 times the usual, which counts as one unit at least; NaN stays NaN.

    units: (n, m) or (n,), units per window. usual: (n,), > 0. The step that an absurd order makes in an average, and
    the forecast that repeats it, are thereby bounded by what was known before.

    >>> cap_units(np.array([[3.0, 90000.0], [3.0, 90000.0]]), np.array([4.0, 0.1]))
    array([[ 3., 80.],
           [ 3., 20.]])
    """
    bound = USUAL_MULTIPLE * np.maximum(usual, 1.0)
    capped: Floats = np.minimum(units, bound.reshape(-1, *[1] * (units.ndim - 1)))
    return capped


def cap_squarable(units: Floats) -> Floats:
    """Bound units so that their square is a finite float32, whatever is usual."""
    capped: Floats = np.minimum(units, units.dtype.type(MOST_UNITS))
    return capped


def cap_clicks(clicks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bound the views or carts of a window: a loop in a tracker must not set what is usual."""
    return np.minimum(clicks, MOST_CLICKS)


def in_scales(units: Floats, scale: Floats) -> Floats:
    """Measure units in a SKU's scale, within [0, 20], as the model is shown them. Both (n,), scale > 0.

    >>> in_scales(np.array([3.0, 90000.0, -1.0]), np.array([2.0, 2.0, 2.0]))
    array([ 1.5, 20. ,  0. ])
    """
    scaled: Floats = np.clip(units / scale, 0, USUAL_MULTIPLE)
    return scaled


def is_absurd(mean: Floats, ring: Floats) -> NDArray[np.bool_]:
    """Tell which SKUs have a step whose mean exceeds 50 times the largest window of the ring and 1; bool (n,).

    mean: (n, K), units, finite. ring: (n, R), the units of the remembered windows; NaN = none.
    """
    found = np.zeros(len(mean), np.bool_)
    high = np.flatnonzero(mean.max(axis=1, initial=0) > FORECAST_MULTIPLE)  # nearly always none
    if len(high):
        largest = np.fmax(np.fmax.reduce(ring[high], axis=1), 1.0)
        found[high] = mean[high].max(axis=1) > FORECAST_MULTIPLE * largest
    return found
