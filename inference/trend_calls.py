"""How often the calls that demand goes up or down came true, and how often what was announced with a probability did.

A call is what `trend.trend` says of the next 7 windows; it is held against what they sold once they have closed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from features import closing
from features.cadence import SUM_WINDOWS
from features.table import SkuTable
from inference.arrays import Floats

Directions = NDArray[np.int8]

BINS: Final = 10
DOWN, UP = -1, 1
_SPAN: Final = SUM_WINDOWS[0]


class TrendCalls:
    """Counts calls by what happened, and announced probabilities by tenths.

    counts: int64 (3, 3), the call (down, flat, up) by what happened. announced, risen: float64 (10,), sums over the
    SKUs whose probability lay in that tenth, of which `seen`, int64 (10,), there were; a tie has risen by one half.
    """

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.counts = np.zeros((3, 3), np.int64)
        self.announced, self.risen = np.zeros(BINS), np.zeros(BINS)
        self.seen = np.zeros(BINS, np.int64)
        self._pending: dict[int, list[tuple[list[str], Directions, Floats]]] = {}

    def announce(self, number: int, skus: list[str], direction: Directions, probability: Floats) -> None:
        """Remember what the close of window `number` says of n SKUs, until the 7 windows after it have closed."""
        self._pending.setdefault(number + _SPAN, []).append((skus, direction, probability))

    def come_true(self, number: int, table: SkuTable) -> None:
        """Count the calls whose 7 windows end with `number`, which has closed; SKUs gone since then are left out."""
        for skus, direction, probability in self._pending.pop(number, []):
            slots = table.slots(skus)
            known = slots >= 0
            rows = {"ring": table["ring"][slots[known]]}
            now, last = (np.nansum(closing.last_windows(rows, end, _SPAN), axis=1) for end in (number, number - _SPAN))
            self.add(direction[known], probability[known], last=last, now=now)

    def add(self, direction: Directions, probability: Floats, *, last: Floats, now: Floats) -> None:
        """Count n calls, each (n,): -1, 0 or 1, P(now > last), and the units of the 7 windows before and after."""
        happened = np.sign(now - last)
        np.add.at(self.counts, (direction.astype(np.intp) + 1, happened.astype(np.intp) + 1), 1)
        tenth = np.minimum((np.asarray(probability, np.float64) * BINS).astype(np.intp), BINS - 1)
        self.announced += np.bincount(tenth, probability, BINS)
        self.risen += np.bincount(tenth, (happened + 1) / 2, BINS)
        self.seen += np.bincount(tenth, minlength=BINS)

    def accuracy(self) -> float:
        """Share of the up and down calls that came true; NaN where there was none."""
        return _share(self.counts[0, 0] + self.counts[2, 2], self.counts[[0, 2]].sum())

    def precision(self, which: int) -> float:
        """Share of the calls of that direction (`UP`, `DOWN`) that came true; NaN where there was none."""
        return _share(self.counts[which + 1, which + 1], self.counts[which + 1].sum())

    def recall(self, which: int) -> float:
        """Share of what went in that direction that had been called; NaN where nothing did."""
        return _share(self.counts[which + 1, which + 1], self.counts[:, which + 1].sum())


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else float("nan")
