"""Events whose id has been there: those that say the same again, and those that say something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.id_table import IdTable, as_hashes, hashed

MOST_REUSED: Final = 0.05
"""Share of rows whose id was there with other contents, beyond which ids are taken for no ids of events."""

_WINDOW: Final = 0  # all ids are of one window: nothing is forgotten
Flags = NDArray[np.bool_]


class Repeats:
    """Remembers ids and contents as hashes, about 70 bytes an event."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._ids, self._whole = IdTable(), IdTable()

    def split(self, ids: Sequence[str], contents: Sequence[str]) -> tuple[Flags, Flags]:
        """Tell of each event whether its id is new, and whether its content, id included, is: bool (n,) both."""
        window = np.full(len(ids), _WINDOW, np.int64)
        new_id = self._ids.add(as_hashes(hashed(ids)), window)
        return new_id, self._whole.add(as_hashes(hashed(contents)), window)
