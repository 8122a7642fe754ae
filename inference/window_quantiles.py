"""The forecast that says nothing but how the last windows were: their empirical quantiles, the same for every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from features.cadence import LEVELS, RING
from features.closing import last_windows
from features.outliers import cap_units
from inference.ew_nb import Forecast

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from features.season import Context

_TAU: Final = np.asarray(LEVELS, np.float32)


def forecast(rows: dict[str, NDArray[Any]], context: Context) -> Forecast:
    """Forecast all steps and sums from the ring of windows; a window in which the shop is closed sells nothing.

    rows: "ring", "age" and "nu" of `features.closing`; outliers are capped by `cap_units`. Sums are the quantiles of
    overlapping spans of the ring; a SKU that is younger than a span has that of a window, times the open windows of the
    span, and so has a span that is longer than the ring.
    """
    # what is older than the oldest SKU need not be looked at
    cadence = context.cadence
    width = int(min(max(rows["age"].max(initial=0), *cadence.spans), RING))
    units = cap_units(last_windows(rows, context.number, width), rows["nu"]).astype(np.float32)
    window = _quantiles(units)
    known = np.isfinite(units)
    sold = np.where(known, units, np.float32(0))
    mean = sold.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    is_open = (context.season_next > 0).astype(np.float32)
    found = np.empty((len(units), cadence.outputs, len(LEVELS)), np.float32)
    found[:, : cadence.horizon] = window[:, None, :] * is_open[None, :, None]
    total = np.zeros((len(units), width + 1), np.float32)
    np.cumsum(sold, axis=1, out=total[:, 1:])
    for at, span in enumerate(cadence.spans, cadence.horizon):
        if span > width:
            found[:, at] = window * is_open[:span].sum()
            continue
        sums = total[:, span:] - total[:, :-span]
        if (rows["age"] < width).any():
            # of the spans that end now, one window before, and so on only those that a SKU has lived
            sums[rows["age"][:, None] < np.arange(width, span - 1, -1)] = np.nan
        young = rows["age"] < span
        found[:, at] = np.where(young[:, None], window * is_open[:span].sum(), _quantiles(sums))
    return Forecast(found, (mean[:, None] * is_open).astype(np.float32))


def _quantiles(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Quantiles at `LEVELS` of each row's numbers, float32 (n, Q); zero where there is none. values: (n, m), or NaN."""
    count = np.isfinite(values).sum(axis=1)
    ascending = np.sort(values, axis=1)  # NaN comes last
    place = _TAU * np.maximum(count - 1, 0)[:, None].astype(np.float32)
    low = place.astype(np.intp)
    high = np.minimum(low + 1, np.maximum(count - 1, 0)[:, None])
    below, above = (np.take_along_axis(ascending, at, axis=1) for at in (low, high))
    found: NDArray[np.float32] = np.where((count > 0)[:, None], below + (above - below) * (place - low), 0)
    return found.astype(np.float32)
