"""How much the units of each SKU change, from an open window to the next and over a season: what errors are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from features.cadence import RING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from features.table import SkuTable, Slots

_SQUARES, _STEPS, _CHANGES, _SEASONS = range(4)
_FIRST: Final = 1_024


class Scales:
    """Sums of those changes since the first window of each SKU. season: windows until the same phase comes again."""

    def __init__(self, season: int) -> None:
        """Start before the first window."""
        self._season = season if season <= RING // 2 else 1
        self._sums = np.zeros((_FIRST, 4))
        self._last = np.full(_FIRST, np.nan, np.float32)

    def observe(self, table: SkuTable, slots: Slots, number: int) -> None:
        """Take window `number` in, which has closed for some SKUs."""
        if not len(slots):
            return
        self._grow(int(slots.max()) + 1)
        ring = table["ring"]
        now, before = ring[slots, number % RING], ring[slots, (number - self._season) % RING]
        before = np.where(table["age"][slots] > self._season, before, np.nan)
        # a SKU that was forgotten, and is new
        self._sums[slots[table["age"][slots] == 1]] = 0
        self._last[slots[table["age"][slots] == 1]] = np.nan
        last = self._last[slots]
        sums = self._sums[slots]
        for at, change in ((_SQUARES, (now - last) ** 2), (_CHANGES, np.abs(now - before))):
            known = np.isfinite(change)
            sums[:, at] += np.where(known, change, 0)
            sums[:, at + 1] += known
        self._sums[slots] = sums
        self._last[slots] = np.where(np.isfinite(now), now, last)

    def of(self, slots: Slots) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the mean squared change between open windows and the mean absolute one over a season; NaN: none yet."""
        self._grow(int(slots.max(initial=-1)) + 1)
        sums = self._sums[slots]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = sums[:, [_SQUARES, _CHANGES]] / sums[:, [_STEPS, _SEASONS]]
        found[~(found > 0)] = np.nan
        return found[:, 0], found[:, 1]

    def _grow(self, count: int) -> None:
        have = len(self._last)
        if count > have:
            more = max(count, 2 * have) - have
            self._sums = np.concatenate([self._sums, np.zeros((more, 4))])
            self._last = np.concatenate([self._last, np.full(more, np.nan, np.float32)])
