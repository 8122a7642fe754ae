"""Change points: whether a SKU has sold on another level for two weeks than in the six before.

Windows are summed by sevens, which takes the week out. A shift is claimed where both of the last two sums lie more than
`CERTAINTY` standard deviations from the mean of the six before them, on the same side. The variance is that of the six,
and a count's own beside it, for six numbers know little of their spread. Of SKUs that sell on one level this is claimed
in at most 4 of 1,000 windows, however they scatter; of fast, steady ones that begin to sell twice as much, for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from features.cadence import RING

if TYPE_CHECKING:
    from numpy.typing import NDArray

CERTAINTY: Final = 3.0
_SPAN: Final = 7  # windows of one sum
_RECENT: Final = 2  # sums that must agree
_BEFORE: Final = RING // _SPAN - _RECENT
_LEAST_VARIANCE: Final = 1.0  # units^2: the first sales after none are no new level


def shifts(recent: NDArray[np.floating[Any]], *, age: NDArray[np.integer[Any]]) -> NDArray[np.int8]:
    """Tell for each SKU whether its level has gone up (1), down (-1), or neither; int8 (n,).

    recent: (n, RING), units of the last windows, oldest first; NaN: the shop was closed. age: (n,), windows since the
    first of the SKU; of one younger than RING nothing is said.

    >>> steady = np.full((1, 56), 10.0)
    >>> risen = np.concatenate([steady[:, :42], 3 * steady[:, 42:]], axis=1)
    >>> shifts(np.concatenate([steady, risen]), age=np.array([60, 60]))
    array([0, 1], dtype=int8)
    """
    sums = np.nan_to_num(recent.astype(np.float64)).reshape(len(recent), _BEFORE + _RECENT, _SPAN).sum(axis=2)
    before, after = sums[:, :_BEFORE], sums[:, _BEFORE:]
    mean = before.mean(axis=1)
    variance = before.var(axis=1, ddof=1) + mean + _LEAST_VARIANCE
    most = CERTAINTY * np.sqrt(variance * (1 + 1 / _BEFORE))
    off = after - mean[:, None]
    up, down = (off > most[:, None]).all(axis=1), (off < -most[:, None]).all(axis=1)
    found: NDArray[np.int8] = np.where(age >= RING, up.astype(np.int8) - down.astype(np.int8), 0).astype(np.int8)
    return found
