"""How long windows take from the moment they may close until their outputs are committed.

Time is an argument, in seconds of a clock that only goes forward.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.grid import WindowGrid


class CloseDelay:
    """The delays of one partition's windows: fed when the watermark moves, when a window closes, when a flush is over.

    A window that the watermark had passed before the partition was opened counts from the opening.
    """

    def __init__(self, grid: WindowGrid) -> None:
        """Start before the first window."""
        self._grid = grid
        self._due_ms: int | None = None  # end of the window in which the watermark stands
        self._passed: deque[tuple[int, float]] = deque()  # (n, when): windows before number n may close since then
        self._closed_since: list[float] = []  # of windows closed but not committed: when each one could have closed

    def __len__(self) -> int:
        """Count the moments that are remembered: of windows that may close, and have not."""
        return len(self._passed)

    def moved(self, watermark_ms: int, *, now_s: float) -> None:
        """Take note of where the watermark of a partition with open windows stands."""
        if self._due_ms is None or watermark_ms >= self._due_ms:
            number = self._grid.number(watermark_ms)
            self._due_ms = self._grid.end_ms(number)
            self._passed.append((number, now_s))

    def closed(self, number: int, *, now_s: float) -> None:
        """Take note that a window has closed; numbers ascend."""
        while self._passed and self._passed[0][0] <= number:
            self._passed.popleft()
        self._closed_since.append(self._passed[0][1] if self._passed else now_s)

    def committed(self, *, now_s: float) -> list[float]:
        """Give the delay of each window that has closed since the last call, seconds, oldest first."""
        delays = [now_s - since_s for since_s in self._closed_since]
        self._closed_since.clear()
        return delays
