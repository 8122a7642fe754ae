"""What has been folded into windows that are still open: one small sparse table per window."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from features.table import Slots

# One row per SKU that had an event in the window; also its binary layout in the store (little-endian). All fields are
# aligned: on others `np.add.at` takes thirty times as long.
FOLDED = np.dtype(
    [
        ("order_lines", "<i8"),
        ("units", "<f8"),
        ("revenue", "<f8"),
        ("returned_units", "<f8"),
        ("free_units", "<f8"),
        ("views", "<i8"),
        ("carts", "<i8"),
        ("price", "<f8"),  # of the newest price change in the window; NaN when there was none
        ("price_ms", "<i8"),  # when it took effect; NO_PRICE_CHANGE_MS when there was none
        ("fractional", "<i8"),  # 1 where a quantity was no whole number; as wide as the rest, so that all are aligned
    ]
)
_FIRST_ROWS = 64
NO_PRICE_CHANGE_MS = -(1 << 62)
BLANK = np.zeros(1, FOLDED)
BLANK["price"] = np.nan
BLANK["price_ms"] = NO_PRICE_CHANGE_MS

Rows = NDArray[np.int32]


class OpenWindow:
    """Sums of one window, for the SKUs that had an event in it."""

    def __init__(self) -> None:
        """Start without a row."""
        self._row_of = np.full(_FIRST_ROWS, -1, np.int32)  # by slot
        self.slots = np.empty(_FIRST_ROWS, np.int32)
        self.folded = np.empty(_FIRST_ROWS, FOLDED)
        self.count = 0

    def rows(self, slots: Slots) -> Rows:
        """Give every slot a row and return the rows; int32 (n,) in and out, slots may repeat."""
        top = int(slots.max()) + 1 if len(slots) else 0
        if top > len(self._row_of):
            grown = np.full(max(top, 2 * len(self._row_of)), -1, np.int32)
            grown[: len(self._row_of)] = self._row_of
            self._row_of = grown
        rows = self._row_of[slots]
        missing = rows < 0
        if missing.any():
            fresh = np.unique(slots[missing])
            self._append(fresh)
            rows = self._row_of[slots]
        return rows

    def _append(self, slots: Slots) -> None:
        last = self.count + len(slots)
        if last > len(self.slots):
            size = max(last, 2 * len(self.slots))
            self.slots = np.concatenate([self.slots, np.empty(size - len(self.slots), np.int32)])
            self.folded = np.concatenate([self.folded, np.empty(size - len(self.folded), FOLDED)])
        self.slots[self.count : last] = slots
        self.folded[self.count : last] = BLANK
        self._row_of[slots] = np.arange(self.count, last, dtype=np.int32)
        self.count = last

    def renumber(self, slots: Slots) -> None:
        """Follow `SkuTable.keep(slots)`, which must have kept all of this window's SKUs."""
        self.slots[: self.count] = np.searchsorted(slots, self.slots[: self.count])
        self._row_of = np.full(max(len(slots), _FIRST_ROWS), -1, np.int32)
        self._row_of[self.slots[: self.count]] = np.arange(self.count, dtype=np.int32)

    def row_of(self, slots: Slots) -> Rows:
        """Look up the row of each slot, -1 where the SKU had no event; adds nothing."""
        known = slots < len(self._row_of)
        return np.where(known, self._row_of[np.where(known, slots, 0)], -1).astype(np.int32)


class OpenWindows:
    """All open windows of a partition, by number, and which SKUs changed since the last flush."""

    def __init__(self, *, first_open: int | None = None) -> None:
        """first_open: number of the oldest window not closed yet; None before the first event."""
        self.first_open = first_open
        self.by_number: dict[int, OpenWindow] = {}

    def __iter__(self) -> Iterator[int]:
        """Go through the numbers of the open windows that hold data, ascending."""
        return iter(sorted(self.by_number))

    def get(self, number: int) -> OpenWindow:
        """Return an open window, made when it is the first event's."""
        window = self.by_number.get(number)
        if window is None:
            window = self.by_number[number] = OpenWindow()
        return window

    def pop(self, number: int) -> OpenWindow:
        """Take the oldest window out: it closes now. Without events it is empty."""
        self.first_open = number + 1
        return self.by_number.pop(number, None) or OpenWindow()

    @property
    def last(self) -> int | None:
        """Number of the newest window that holds data."""
        return max(self.by_number, default=None)
