"""One deadline for one operation: made at its start, and passed to all of its parts."""

from __future__ import annotations

import time


class Deadline:
    """Until when an operation may wait, all its parts together, on the monotonic clock.

    One thread may shorten it while another one waits by it.

    >>> deadline = Deadline(60.0)
    >>> deadline.shorten_deadline(time.monotonic() + 8.0)
    >>> deadline.shorten_deadline(time.monotonic() + 30.0)
    >>> round(deadline.left_s)
    8
    """

    def __init__(self, within_s: float) -> None:
        """Count from now."""
        self._began_s = time.monotonic()
        self._end_s = self._began_s + within_s

    @property
    def left_s(self) -> float:
        """Seconds that are left; negative when it is over."""
        return self._end_s - time.monotonic()

    @property
    def span_s(self) -> float:
        """Seconds from the beginning to the end."""
        return self._end_s - self._began_s

    def shorten_deadline(self, by_s: float) -> None:
        """Move the end forward to a moment (time.monotonic); a later one changes nothing."""
        self._end_s = min(self._end_s, by_s)
