"""The two clocks of a worker: the only place that reads the time."""

from __future__ import annotations

import time


def monotonic_ms() -> int:
    """Read the clock that only goes forward, whatever is done to the time of day: for durations and deadlines."""
    return time.monotonic_ns() // 1_000_000


def now_ms() -> int:
    """Read the time of day, epoch ms: for what is compared with the time of events."""
    return time.time_ns() // 1_000_000
