"""Some SKUs of a closing window: what they were before it, what they are after it, and one call that makes it so.

Nothing is written until `commit`. What judges the window against what was expected of it reads `before`; what the
model is shown is encoded from `after`; what is learnt on the way is handed to `commit`. No step has to come before
another one, and none can be forgotten: the SKU state goes on to the next chunk only once this one is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import closing
from features.open_windows import OpenWindow
from features.season import Context
from features.table import SkuTable, Slots


class ClosingChunk:
    """Some SKUs of a closing window.

    slots: int32 (n,). facts: what happened to them. context: the window as the whole shop saw it. eventful: bool (n,),
    whether anything was folded for the SKU. after: the columns of `closing.COLUMNS` moved on by this window, (n, ...).
    """

    def __init__(self, table: SkuTable, slots: Slots, *, window: OpenWindow, context: Context, prior_nu: float) -> None:
        """Move copies of the SKUs' statistics on by the window. slots: ascending. prior_nu: as in `closing.advance`."""
        self.slots = slots
        self.context = context
        self.eventful: NDArray[np.bool_] = window.row_of(slots) >= 0
        self.is_committed = False
        self._table = table
        is_stretch = len(slots) > 0 and int(slots[-1]) - int(slots[0]) + 1 == len(slots)
        self._selection: slice | Slots = slice(int(slots[0]), int(slots[-1]) + 1) if is_stretch else slots
        # slots pick copies, a slice picks views
        rows = {name: self._column(name) for name in closing.NAMES}
        self.after: closing.Rows = {name: rows[name].copy() for name in rows} if is_stretch else rows
        self.facts = closing.facts(window, slots, self.after)
        newest = self.after["last_number"]
        self.after["last_number"] = np.where(self.eventful, context.number, newest)
        closing.advance(self.after, self.facts, context, prior_nu=prior_nu)

    def _column(self, name: str) -> NDArray[Any]:
        return self._table[name][self._selection]

    def before(self, names: Iterable[str]) -> closing.Rows:
        """Give columns of the table as they were before the window, read-only: {name: (n, ...)}.

        Valid until the commit.
        """
        found = {name: self._column(name) for name in names}
        for column in found.values():
            column.flags.writeable = False
        return found

    @property
    def skus(self) -> list[str]:
        """Names of the SKUs, in the order of the slots."""
        skus = self._table.skus
        if isinstance(self._selection, slice):
            return skus[self._selection]
        return [skus[slot] for slot in self._selection.tolist()]

    def commit(self, learnt: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Write `after` and the columns of later stages to the table; once (RuntimeError).

        learnt: new values of columns that are not in `closing.COLUMNS` (ValueError), (n, ...).
        """
        if self.is_committed:
            msg = f"{self} was committed twice"
            raise RuntimeError(msg)
        extra = learnt or {}
        if twice := self.after.keys() & extra.keys():
            msg = f"{self}: {', '.join(sorted(twice))} move on with the window and cannot be given"
            raise ValueError(msg)
        for name, value in (*self.after.items(), *extra.items()):
            self._table[name][self._selection] = value
        self.is_committed = True

    def __str__(self) -> str:
        """Name it in errors."""
        return f"the chunk of {len(self.slots):,} SKUs from slot {self.slots[0]} on of window {self.context.number}"
