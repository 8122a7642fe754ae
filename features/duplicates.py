"""Duplicate detection by `event_id`, for as long as the event's window is open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from features.id_table import HASH_BYTES, Hashes, IdTable, as_hashes, hashed


class SeenIds:
    """The event ids of one input of one partition, for its open windows.

    An id is remembered until its window is forgotten; within that time a second event of the same id is a duplicate,
    whichever open window it falls into. Remembered are hashes of 128 bits (`id_table.hashed` says how unlikely it is
    that two ids share one), which costs 25 to 37 bytes per event of an open window, and 16 more until `take_fresh`.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._table = IdTable()
        self._fresh: dict[int, list[bytes]] = {}  # not yet taken by `take_fresh`

    def __len__(self) -> int:
        """How many ids are remembered."""
        return len(self._table)

    def admit(self, ids: Sequence[str], windows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Remember the ids and tell which rows are first sightings: bool (n,), or None when all are.

        ids: (n,); windows: int64 (n,), the window number of each event. The first of equal ids in a batch is admitted.
        """
        if not len(ids):
            return None
        hashes = as_hashes(hashed(ids))
        admitted = self._table.add(hashes, windows)
        if admitted.all():
            self._file(hashes, windows)
            return None
        self._file(hashes[admitted], windows[admitted])
        return admitted

    def _file(self, hashes: Hashes, windows: NDArray[np.int64]) -> None:
        """Note what is to be stored, by window."""
        if not len(hashes):
            return
        if windows.min() == windows.max():
            self._fresh.setdefault(int(windows[0]), []).append(hashes.tobytes())
            return
        for number in np.unique(windows).tolist():
            self._fresh.setdefault(number, []).append(hashes[windows == number].tobytes())

    def forget_before(self, window: int) -> None:
        """Forget the ids of every window with a smaller number: it has closed."""
        self._table.forget_before(window)
        for closed in [number for number in self._fresh if number < window]:
            del self._fresh[closed]

    def take_fresh(self) -> dict[int, bytes]:
        """Hand over what was admitted since the last call, by window, to be stored: hashes, 16 bytes each."""
        fresh = {window: b"".join(parts) for window, parts in self._fresh.items()}
        self._fresh = {}
        return fresh

    def renew(self) -> None:
        """Let `take_fresh` hand over everything once more."""
        self._fresh = {window: [hashes] for window, hashes in self.held()}

    def held(self) -> Iterator[tuple[int, bytes]]:
        """Give all that is remembered, ascending by window: (window, hashes of 16 bytes each)."""
        for window, hashes in self._table.by_window():
            yield window, hashes.tobytes()

    def restore(self, window: int, hashes: bytes) -> None:
        """Put back what was stored earlier; it is not fresh."""
        self._table.add(as_hashes(hashes), np.full(len(hashes) // HASH_BYTES, window))
