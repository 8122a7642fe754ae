"""How many of an input's latest records have something in common."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

JUDGED: Final = 1_000


@dataclass
class RecentShare:
    """How many of an input's latest records are of a kind: its newest batches, `JUDGED` records and more.

    Fewer records than that say nothing; older ones are forgotten, so that a producer who goes wrong after a year is
    noticed within a thousand records.

    >>> misplaced = RecentShare()
    >>> misplaced.note(seen=999, counted=999)
    >>> misplaced.is_beyond(0.25)
    False
    >>> misplaced.note(seen=1, counted=0)
    >>> misplaced.is_beyond(0.25)
    True
    """

    seen: int = 0
    counted: int = 0
    _batches: deque[tuple[int, int]] = field(default_factory=deque)

    def note(self, *, seen: int, counted: int) -> None:
        """Take a batch in: so many records, so many of them of the kind."""
        if not seen:
            return
        self._batches.append((seen, counted))
        self.seen += seen
        self.counted += counted
        while self.seen - self._batches[0][0] >= JUDGED:
            gone, counted_then = self._batches.popleft()
            self.seen -= gone
            self.counted -= counted_then

    def is_beyond(self, share: float) -> bool:
        """Whether more than this share is of the kind, of enough records to say so."""
        return self.seen >= JUDGED and self.counted > share * self.seen
