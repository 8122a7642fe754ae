"""Duplicate detection by `event_id`, for as long as the event's window is open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh32_intdigest

from features.id_table import HASH_BYTES, Hashes, IdTable, as_hashes, entries
from schemas.columns import ClickColumns, InputColumns, OrderColumns

_MIX = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio, whose multiples spread evenly
_HALF_BITS = np.uint64(32)


def contents(columns: InputColumns) -> NDArray[np.uint32]:
    """Hash what events say, but for when: SKU, and quantity and price, or the kind of a click; uint32 (n,).

    An event that is told again may have another time, of when it was told again.
    """
    mixed = np.fromiter(map(xxh32_intdigest, map(str.encode, columns.sku)), np.uint64, len(columns.sku))
    if isinstance(columns, OrderColumns):
        said = [_bits(columns.quantity), _bits(columns.unit_price)]
    else:
        said = [columns.kind.astype(np.uint64) if isinstance(columns, ClickColumns) else _bits(columns.price)]
    for numbers in said:
        mixed = (mixed ^ numbers) * _MIX
        mixed ^= mixed >> _HALF_BITS
    return mixed.astype(np.uint32)


def _bits(numbers: NDArray[np.float64]) -> NDArray[np.uint64]:
    return (numbers + 0.0).view(np.uint64)  # -0.0 is 0.0


class SeenIds:
    """The event ids of one input of one partition, for its open windows.

    An id is remembered until its window is forgotten; within that time a second event of the same id is a duplicate,
    whichever open window it falls into. Remembered are entries of 128 bits (`id_table.hashed` says how unlikely it is
    that two ids share one), which costs 25 to 37 bytes per event of an open window, and 16 more until `take_fresh`.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._table = IdTable()
        self._fresh: dict[int, list[bytes]] = {}  # not yet taken by `take_fresh`

    def __len__(self) -> int:
        """How many ids are remembered."""
        return len(self._table)

    def admit(
        self, ids: Sequence[str], windows: NDArray[np.int64], said: NDArray[np.uint32] | None = None
    ) -> NDArray[np.bool_] | None:
        """Remember the ids and tell which rows are first sightings: bool (n,), or None when all are.

        ids: (n,); windows: int64 (n,), the window number of each event; said: the `contents` of each. The first of
        equal ids in a batch is admitted.
        """
        if not len(ids):
            return None
        hashes = entries(ids, said)
        admitted = self._table.add(hashes, windows)
        if admitted.all():
            self._file(hashes, windows)
            return None
        self._file(hashes[admitted], windows[admitted])
        return admitted

    def reused(self, ids: Sequence[str], said: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Tell which ids are remembered with other contents; bool (n,)."""
        return self._table.differ(entries(ids, said))

    def _file(self, hashes: Hashes, windows: NDArray[np.int64]) -> None:
        """Note what is to be stored, by window."""
        if not len(hashes):
            return
        if windows.min() == windows.max():
            self._fresh.setdefault(int(windows[0]), []).append(hashes.tobytes())
            return
        for number in np.unique(windows).tolist():
            self._fresh.setdefault(number, []).append(hashes[windows == number].tobytes())

    def holds(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Tell which entries are of ids that an open window has seen; bool (n,)."""
        return self._table.holds(hashes)

    def add_late(self, hashes: Hashes, windows: NDArray[np.int64]) -> None:
        """Let `take_fresh` hand over ids of events that came after their windows had closed."""
        self._file(hashes, windows)

    def fresh(self, window: int) -> bytes:
        """Give the entries of a window that `take_fresh` has not handed over yet."""
        return b"".join(self._fresh.get(window, ()))

    def forget_before(self, window: int, *, stored_from: int | None = None) -> None:
        """Forget the ids of every window with a smaller number: it has closed.

        stored_from: window from which on ids are stored all the same, for corrections; None: `window`.
        """
        self._table.forget_before(window)
        kept = window if stored_from is None else stored_from
        for closed in [number for number in self._fresh if number < kept]:
            del self._fresh[closed]

    def take_fresh(self) -> dict[int, bytes]:
        """Hand over what was admitted since the last call, by window, to be stored: entries, 16 bytes each."""
        fresh = {window: b"".join(parts) for window, parts in self._fresh.items()}
        self._fresh = {}
        return fresh

    def renew(self) -> None:
        """Let `take_fresh` hand over everything once more."""
        self._fresh = {window: [hashes] for window, hashes in self.held()}

    def held(self) -> Iterator[tuple[int, bytes]]:
        """Give all that is remembered, ascending by window: (window, entries of 16 bytes each)."""
        for window, hashes in self._table.by_window():
            yield window, hashes.tobytes()

    def restore(self, window: int, hashes: bytes) -> None:
        """Put back what was stored earlier; it is not fresh."""
        self._table.add(as_hashes(hashes), np.full(len(hashes) // HASH_BYTES, window))
