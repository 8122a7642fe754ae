"""The stored form of what is kept per SKU: binary rows, little-endian.

A row is some columns of the SKU table one after the other, without padding: those of `SKU_ROW` in the row of a SKU,
those of `model_row` in its state in a model, of `shadow_row` in that of a shadow. A row of an open window is
`open_windows.FOLDED`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from features.open_windows import FOLDED
from features.table import cut
from inference import pipeline, shadow
from schemas.errors import StateCorrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from features.table import Column, SkuTable, Slots
    from inference.session import Session


class RowLayout:
    """Some columns of a SKU table as the bytes of one row per SKU. dtype: of a row."""

    def __init__(self, columns: Sequence[Column]) -> None:
        """Lay these columns out, in this order."""
        self.columns = tuple(columns)
        self.dtype = np.dtype([(c.name, c.dtype, c.shape) for c in columns])

    @property
    def signature(self) -> str:
        """Tell this layout, with that of open windows, from every other one: 16 hex digits."""
        text = repr([(c.name, c.dtype, c.shape) for c in self.columns]) + repr(FOLDED.descr)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def pack(self, table: SkuTable, slots: Slots) -> list[bytes]:
        """Give the rows of some slots: one bytes per slot."""
        packed = np.empty(len(slots), self.dtype)
        for column in self.columns:
            packed[column.name] = table[column.name][slots]
        return cut(packed)

    def unpack(self, table: SkuTable, skus: Sequence[str], rows: Sequence[bytes]) -> None:
        """Give stored SKUs, which have no slot yet, one and their columns. A row of another length: `StateCorrupt`."""
        packed = self._read(skus, rows)
        self._assign(table, table.add(skus), packed)

    def unpack_known(self, table: SkuTable, skus: Sequence[str], rows: Sequence[bytes]) -> None:
        """Give SKUs of the table their columns back; a row of another length or SKU is a `StateCorrupt`."""
        packed, slots = self._read(skus, rows), table.slots(skus)
        if (slots < 0).any():
            msg = (
                f"{int((slots < 0).sum())} stored SKUs have the state of a model, but no row, among them "
                f"{skus[int(slots.argmin())]!r}; delete the state directory to rebuild it"
            )
            raise StateCorrupt(msg)
        self._assign(table, slots, packed)

    def _read(self, skus: Sequence[str], rows: Sequence[bytes]) -> np.ndarray:
        sizes = set(map(len, rows)) - {self.dtype.itemsize}
        if sizes or len(rows) != len(skus):
            msg = (
                f"{len(rows)} rows of {len(skus)} stored SKUs, of {sorted(sizes)} bytes, expected "
                f"{self.dtype.itemsize} each; delete the state directory to rebuild it"
            )
            raise StateCorrupt(msg)
        return np.frombuffer(b"".join(rows), self.dtype)

    def _assign(self, table: SkuTable, slots: Slots, packed: np.ndarray) -> None:
        for column in self.columns:
            table[column.name][slots] = packed[column.name]


SKU_ROW: Final = RowLayout(pipeline.ROW_COLUMNS)


def shadow_row(session: Session | None) -> RowLayout:
    """Lay the state of a SKU in a shadow out, with what that would have served; of nothing without a shadow."""
    return RowLayout(shadow.columns(session))


def model_row(session: Session | None) -> RowLayout:
    """Lay the recurrent state of a SKU in a model out; of nothing without a model."""
    return RowLayout(pipeline.model_columns(session))
