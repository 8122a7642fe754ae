"""Types of arrays, and float32 columns that never hold an infinity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Rows = Mapping[str, NDArray[Any]]
"""Columns of n SKUs by name, each (n, ...)."""

Floats = NDArray[np.floating[Any]]
Double = NDArray[np.float64]

LARGEST: Final = 3e38
"""About the largest float32: what exceeds it is kept as this."""


def as_float32(values: Floats) -> NDArray[np.float32]:
    """Round to float32 within +-3e38; NaN stays NaN.

    >>> as_float32(np.array([1.5, 1e300, -np.inf]))
    array([ 1.5e+00,  3.0e+38, -3.0e+38], dtype=float32)
    """
    return np.clip(values, -LARGEST, LARGEST).astype(np.float32)
