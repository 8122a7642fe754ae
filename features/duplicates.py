"""Exact duplicate detection by `event_id`, for as long as the event's window is open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


class SeenIds:
    """The event ids of one input of one partition, for its open windows.

    An id is remembered until its window is forgotten; within that time a second event of the same id is a duplicate,
    whichever open window it falls into. Costs about 150 bytes per event of an open window.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._seen: set[str] = set()
        self._by_window: dict[int, list[list[str]]] = {}
        self._fresh: dict[int, list[list[str]]] = {}  # not yet taken by `take_fresh`

    def __len__(self) -> int:
        """How many ids are remembered."""
        return len(self._seen)

    def admit(self, ids: Sequence[str], windows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Remember the ids and tell which rows are first sightings: bool (n,), or None when all are.

        ids: (n,); windows: int64 (n,), the window number of each event. The first of equal ids in a batch is admitted.
        """
        batch = set(ids)
        if len(batch) == len(ids) and self._seen.isdisjoint(batch):
            self._seen |= batch
            self._file(ids, windows)
            return None
        admitted = np.ones(len(ids), np.bool_)
        seen = self._seen
        for row, event_id in enumerate(ids):
            if event_id in seen:
                admitted[row] = False
            else:
                seen.add(event_id)
        rows = np.flatnonzero(admitted)
        self._file([ids[row] for row in rows.tolist()], windows[rows])
        return admitted

    def _file(self, ids: Sequence[str], windows: NDArray[np.int64]) -> None:
        """Note under which window each id is to be forgotten."""
        if not len(ids):
            return
        low, high = int(windows.min()), int(windows.max())
        groups: Iterable[tuple[int, list[str]]]
        if low == high:
            groups = [(low, list(ids))]
        else:
            groups = [(int(w), [ids[row] for row in np.flatnonzero(windows == w).tolist()]) for w in np.unique(windows)]
        for window, group in groups:
            self._by_window.setdefault(window, []).append(group)
            self._fresh.setdefault(window, []).append(group)

    def forget_before(self, window: int) -> None:
        """Forget the ids of every window with a smaller number: it has closed."""
        for closed in [w for w in self._by_window if w < window]:
            for group in self._by_window.pop(closed):
                self._seen.difference_update(group)
            self._fresh.pop(closed, None)

    def take_fresh(self) -> dict[int, list[str]]:
        """Hand over what was admitted since the last call, by window, to be stored."""
        fresh = {window: [i for group in groups for i in group] for window, groups in self._fresh.items()}
        self._fresh = {}
        return fresh

    def renew(self) -> None:
        """Let `take_fresh` hand over everything once more."""
        self._fresh = {window: list(groups) for window, groups in self._by_window.items()}

    def restore(self, window: int, ids: list[str]) -> None:
        """Put back ids that were stored earlier; they are not fresh."""
        self._seen.update(ids)
        self._by_window.setdefault(window, []).append(ids)
