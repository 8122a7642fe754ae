"""Per-SKU state as a struct of arrays: one slot per SKU, one numpy array per fact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Slots = NDArray[np.int32]
_FIRST_CAPACITY = 1024
_GROWTH = 1.5


@dataclass(frozen=True)
class Column:
    """One fact per SKU. dtype: numpy, little-endian (`<f4`); shape: of one SKU's value; fill: that of a new SKU."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    fill: float = 0


class SkuTable:
    """SKUs in slots 0..len-1, in the order they were first seen, and their columns.

    Columns have room for more slots than there are SKUs; use `len(table)` or slot arrays, never the array's own length.
    """

    def __init__(self, columns: Iterable[Column]) -> None:
        """Start empty. Column names must differ (ValueError)."""
        self.spec = tuple(columns)
        if len({c.name for c in self.spec}) != len(self.spec):
            msg = "two columns of a SKU table have one name"
            raise ValueError(msg)
        self.index: dict[str, int] = {}
        self.skus: list[str] = []
        self.keys: list[bytes] = []
        self._capacity = 0
        self._columns: dict[str, Array] = {}
        self._reserve(_FIRST_CAPACITY)

    def __len__(self) -> int:
        """How many SKUs have a slot."""
        return len(self.skus)

    def __getitem__(self, name: str) -> Array:
        """Return the column `name`, (capacity, *shape); writing to it writes the state."""
        return self._columns[name]

    def _reserve(self, capacity: int) -> None:
        for column in self.spec:
            # zeros first: untouched pages cost no memory until a SKU moves in
            grown = np.zeros((capacity, *column.shape), column.dtype)
            if self._capacity:
                grown[: len(self.skus)] = self._columns[column.name][: len(self.skus)]
            self._columns[column.name] = grown
        self._capacity = capacity

    def reserve(self, capacity: int) -> None:
        """Make room for so many SKUs at once, where it is known that they come."""
        if capacity > self._capacity:
            self._reserve(capacity)

    def exchange(self, old: Sequence[Column], new: Sequence[Column]) -> None:
        """Put columns in the place of others; they begin with what is of a new SKU."""
        gone = {column.name for column in old}
        self.spec = (*(column for column in self.spec if column.name not in gone), *new)
        for name in gone:
            del self._columns[name]
        for column in new:
            self._columns[column.name] = np.full((self._capacity, *column.shape), column.fill, column.dtype)

    def add(self, skus: Sequence[str], keys: Sequence[bytes] | None = None) -> Slots:
        """Give slots to SKUs that have none (each must be new); returns int32 (n,). keys: their UTF-8, where known."""
        first = len(self.skus)
        last = first + len(skus)
        if last > self._capacity:
            self._reserve(max(last, int(self._capacity * _GROWTH)))
        self.index.update(zip(skus, range(first, last), strict=True))
        self.skus.extend(skus)
        self.keys.extend(keys if keys is not None else [sku.encode() for sku in skus])
        for column in self.spec:
            if column.fill != 0:
                self._columns[column.name][first:last] = column.fill
        return np.arange(first, last, dtype=np.int32)

    def slots(self, skus: Sequence[str]) -> Slots:
        """Look up the slot of every SKU, -1 where it has none; int32 (n,)."""
        get = self.index.__getitem__
        try:
            return np.fromiter(map(get, skus), np.int32, len(skus))
        except KeyError:
            index = self.index
            return np.fromiter((index.get(sku, -1) for sku in skus), np.int32, len(skus))

    def keep(self, slots: Slots) -> None:
        """Forget every SKU but those in `slots`, int32 (n,), ascending: slot `slots[i]` becomes slot i."""
        kept = slots.tolist()
        for column in self._columns.values():
            column[: len(kept)] = column[slots]  # indexing copies before anything is overwritten
            column[len(kept) : len(self.skus)] = 0
        self.skus = [self.skus[slot] for slot in kept]
        self.keys = [self.keys[slot] for slot in kept]
        self.index = dict(zip(self.skus, range(len(kept)), strict=True))


def cut(packed: Array) -> list[bytes]:
    """Cut a structured array into the bytes of its rows."""
    size, raw = packed.dtype.itemsize, packed.tobytes()
    return [raw[i : i + size] for i in range(0, len(raw), size)]
