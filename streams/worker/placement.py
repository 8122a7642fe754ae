"""Whether the records of an input lie on the partitions where their keys belong."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

JUDGED: Final = 1_000


@dataclass
class Placement:
    """How many of an input's latest records lie where their key belongs: its newest batches, `JUDGED` records and more.

    Fewer records than that say nothing; older ones are forgotten, so that a producer that turns wrong after a good year
    is noticed within a thousand records.

    >>> placement = Placement()
    >>> placement.note(seen=999, misplaced=999)
    >>> placement.is_beyond(0.25)
    False
    >>> placement.note(seen=1, misplaced=0)
    >>> placement.is_beyond(0.25)
    True
    """

    seen: int = 0
    misplaced: int = 0
    _batches: deque[tuple[int, int]] = field(default_factory=deque)

    def note(self, *, seen: int, misplaced: int) -> None:
        """Take a batch in: so many records whose key could be read, so many of them on another partition."""
        if not seen:
            return
        self._batches.append((seen, misplaced))
        self.seen += seen
        self.misplaced += misplaced
        while self.seen - self._batches[0][0] >= JUDGED:
            gone, wrong = self._batches.popleft()
            self.seen -= gone
            self.misplaced -= wrong

    def is_beyond(self, share: float) -> bool:
        """Whether more than this share is misplaced, of enough records to say so."""
        return self.seen >= JUDGED and self.misplaced > share * self.seen
