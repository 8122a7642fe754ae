"""Windows of one partition close: those that the watermark has passed, oldest first, and what they say is published."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from features.grid import EARLIEST_MS
from streams.partition.backlog import Backlog
from streams.partition.close_delay import CloseDelay
from streams.partition.publishing import Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inference.outputs import CorrectedOutputs, WindowOutputs
    from schemas.alerts import Alert
    from streams.observe.metrics import Metrics
    from streams.partition.capture import Capture
    from streams.partition.changes import Changes
    from streams.partition.working_state import WorkingState
    from streams.settings import Settings
    from streams.state.meta import Meta

log = logging.getLogger(__name__)
_RETIRE_SHARE = 32  # dormant SKUs stay until they are one in so many
_MANY_WINDOWS = 1_000  # at once: worth a line
_MOST_FILLED = 64  # open windows with events, while due ones without wait


class OutputTaker(Protocol):
    """What takes the outputs of closed windows: see `Publisher`."""

    def publish(self, closed: WindowOutputs, keys: Sequence[bytes]) -> None:
        """Take those of some SKUs of a window. keys: of these SKUs, (n,)."""

    def publish_alerts(self, alerts: Sequence[Alert]) -> None:
        """Take alerts that come of no window: of SKUs that are forgotten."""

    def publish_corrected(self, corrected: CorrectedOutputs) -> None:
        """Take what late events have changed."""


class WindowCloser:
    """Closes the windows of one partition; under the same lock as the partition itself.

    publisher: takes what they say. delay: how long they took to be committed.
    """

    def __init__(  # noqa: PLR0913 - the parts of a partition that closing touches, nearly all by name
        self,
        number: int,
        settings: Settings,
        *,
        state: WorkingState,
        meta: Meta,
        changes: Changes,
        capture: Capture,
        publisher: OutputTaker,
        metrics: Metrics,
    ) -> None:
        """Close nothing yet. number: of the partition. meta: counts the windows. changes, capture: told of them."""
        self._number, self._settings = number, settings
        self._state, self._meta, self._changes, self._capture = state, meta, changes, capture
        self.publisher, self._metrics = publisher, metrics
        self._reporter = Reporter(number, metrics)
        self._backlog = Backlog(number, metrics)
        self.delay = CloseDelay(settings.grid)
        self._now_ms = 0

    def heard(self, *, now_ms: int) -> None:
        """Take note of the time of day at which records came in."""
        self._now_ms = now_ms

    def correct(self) -> None:
        """Publish what late events have changed since the last time; before a window closes, and before a flush."""
        for corrected in self._state.pipeline.corrected(emitted_ms=self._now_ms):
            self.publisher.publish_corrected(corrected)

    def advance_watermark(self, *, now_ms: int, monotonic_ms: int) -> int:
        """Let event time move on; returns the watermark. See `Watermark.advance`."""
        watermark, data_end_ms = self._state.watermark, self._state.sku_state.data_end_ms()
        watermark.advance(now_ms=now_ms, monotonic_ms=monotonic_ms, data_end_ms=data_end_ms)
        if watermark.value_ms >= EARLIEST_MS:
            self.delay.moved(watermark.value_ms, now_s=time.monotonic())
        return watermark.value_ms

    def close_due(self, *, now_ms: int) -> bool:
        """Close the oldest window if the watermark has passed it; returns whether there was one.

        A stretch of windows in which no SKU is live is closed as one.
        """
        return sum(1 for _ in self.close_steps(now_ms=now_ms)) > 0

    def close_steps(self, *, now_ms: int) -> Iterator[None]:
        """Do what `close_due` does, a part of the SKUs at each step; no step where no window is due.

        Up to the last step nothing else may touch the partition, and unless it is reached nothing ever flushes it.
        """
        sku_state, watermark_ms = self._state.sku_state, self._state.watermark.value_ms
        number = sku_state.due(watermark_ms)
        if number is None:
            self._backlog.note(closed=0, due=0)
            return
        worked_s, since_s = 0.0, time.perf_counter()
        with self._changes.wholly():
            self.correct()
            stop = sku_state.nobody_until(number, watermark_ms)
            if stop == number:
                stop = number + 1
                for _ in self._close(number, now_ms=now_ms):
                    worked_s += time.perf_counter() - since_s
                    yield
                    since_s = time.perf_counter()
            else:
                self._cross(number, stop)
            self._retire(stop - 1)
            self._meta.windows_closed += stop - number
        self._changes.has_any = self._capture.has_closed = True
        self._metrics.close.observe(worked_s + time.perf_counter() - since_s)
        self.delay.closed(stop - 1, now_s=time.monotonic())
        self._backlog.note(closed=1, due=sku_state.due_count(watermark_ms))
        self._reporter.closed(stop - number, self._state)
        yield

    def may_wait(self) -> bool:
        """Whether further records may be absorbed before the windows that are due are closed.

        Not where the next one holds events, or many do that come later: reading on would fill memory with open windows.
        """
        windows = self._state.sku_state.windows
        return windows.first_open not in windows.by_number and len(windows.by_number) <= _MOST_FILLED

    def _close(self, number: int, *, now_ms: int) -> Iterator[None]:
        keys = self._state.sku_state.table.keys
        for closed in self._state.pipeline.close(number, emitted_ms=now_ms):
            self.publisher.publish(closed, [keys[slot] for slot in closed.slots.tolist()])
            yield

    def _cross(self, number: int, stop: int) -> None:
        """Close windows `number` up to `stop`, which have no outputs: no SKU is live in them."""
        self._state.pipeline.cross(number, stop)
        if stop - number >= _MANY_WINDOWS:
            log.info("partition %d: %d windows without any SKU are closed in one step", self._number, stop - number)

    def _retire(self, closed: int) -> None:
        """Forget dormant SKUs once there are enough of them to be worth moving the others together.

        Or once no other SKU is live: then the windows up to the next event are crossed in one step.
        """
        sku_state = self._state.sku_state
        before = sku_state.dormant_before(closed, dormant_after_ms=self._settings.dormant_after_ms)
        dormant, count = sku_state.dormant(before=before), len(sku_state.table)
        is_live = sku_state.table["first_number"][:count] <= closed
        if dormant.sum() * _RETIRE_SHARE < count and (is_live & ~dormant).any():
            return
        self.publisher.publish_alerts(self._state.pipeline.forget(dormant, closed=closed))
        gone = sku_state.retire(before=before)
        if gone:
            self._capture.retired(gone)
            log.info("partition %d: %d dormant SKUs forgotten, %d left", self._number, len(gone), len(sku_state.table))
