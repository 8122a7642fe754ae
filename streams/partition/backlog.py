"""How many windows of a partition wait to be closed, reported while closing them takes long."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.observe.metrics import Metrics

log = logging.getLogger(__name__)
EVERY_S: Final = 10.0


class Backlog:
    """The windows of one partition that are due: a gauge, and a log line every `EVERY_S` until none is.

    now_s: seconds that only go forward.
    """

    def __init__(self, partition: int, metrics: Metrics, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Start without one."""
        self._partition, self._now_s = partition, now_s
        self._gauge = metrics.windows_due.labels(str(partition))
        self._since_s: float | None = None
        self._reported_s = 0.0
        self._closed = 0
        self._is_reported = False

    def note(self, *, closed: int, due: int) -> None:
        """Take note that so many windows were closed, one by one, and so many are due still."""
        self._gauge.set(due)
        if self._since_s is None:
            if not due:
                return
            self._since_s = self._reported_s = self._now_s()
        self._closed += closed
        passed_s = max(self._now_s() - self._since_s, 0.001)
        if not due:
            if self._is_reported:
                log.info("partition %d: all %d windows closed, in %.0f s", self._partition, self._closed, passed_s)
            self._since_s, self._closed, self._is_reported = None, 0, False
        elif self._now_s() - self._reported_s >= EVERY_S:
            rate = self._closed / passed_s
            log.info(
                "partition %d: %d windows are due, %d closed in %.0f s (%.0f a second), at that rate %.0f s left",
                *(self._partition, due, self._closed, passed_s, rate, due / max(rate, 0.001)),
            )
            self._reported_s, self._is_reported = self._now_s(), True
