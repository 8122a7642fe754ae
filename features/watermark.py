"""One watermark per partition over its three inputs.

The watermark says: no more events older than this are expected. It is the least of what the inputs that still speak
have reached, minus the allowed lateness, and never goes back. An input that stays silent while it is polled, unpaused
and without lag stops holding it back after the idle timeout. When all are silent, the clock of the world closes the
windows that hold data once their time is over, and goes on at its own pace, so that a quiet night still closes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NEVER_MS = -(1 << 62)


@dataclass
class InputClock:
    """What one input of a partition has shown so far; wall times are monotonic or epoch ms, but of one kind."""

    max_event_ms: int = NEVER_MS
    quiet_since_ms: int | None = None  # wall time since which it was polled, unpaused, without lag, and empty

    def is_idle(self, *, now_ms: int, idle_timeout_ms: int) -> bool:
        """Whether it has been silent for the idle timeout while it could have spoken."""
        return self.quiet_since_ms is not None and now_ms - self.quiet_since_ms >= idle_timeout_ms


@dataclass
class Watermark:
    """The event-time clock of one partition.

    allowed_lateness_ms: how far behind the newest event another may come and still fold. idle_timeout_ms: see module.
    `value_ms` is NEVER_MS until the first event.
    """

    inputs: int = 3
    allowed_lateness_ms: int = 0
    idle_timeout_ms: int = 60_000
    value_ms: int = NEVER_MS
    clocks: list[InputClock] = field(default_factory=list)
    _all_idle: tuple[int, int] | None = None  # (wall time, event time) at which every input had fallen silent

    def __post_init__(self) -> None:
        """Start one clock per input."""
        if not self.clocks:
            self.clocks = [InputClock() for _ in range(self.inputs)]

    def observe(self, index: int, *, max_event_ms: int) -> None:
        """Take note of a batch of input `index` whose newest accepted event is `max_event_ms`."""
        clock = self.clocks[index]
        clock.max_event_ms = max(clock.max_event_ms, max_event_ms)
        clock.quiet_since_ms = None
        self._all_idle = None

    def quiet(self, index: int, *, now_ms: int, could_speak: bool) -> None:
        """Take note that input `index` gave nothing; the idle clock runs only while it could have spoken."""
        clock = self.clocks[index]
        if not could_speak:
            clock.quiet_since_ms = None
        elif clock.quiet_since_ms is None:
            clock.quiet_since_ms = now_ms

    def listen_anew(self) -> None:
        """Let every input be silent for the whole idle timeout once more before it counts as idle."""
        for clock in self.clocks:
            clock.quiet_since_ms = None

    def missed(self, for_ms: int) -> None:
        """Note that nobody could listen for so long; what is more than half the idle timeout was no silence."""
        if for_ms > self.idle_timeout_ms // 2:
            self.listen_anew()

    def advance(self, *, now_ms: int, data_end_ms: int) -> int:
        """Move the watermark on and return it. data_end_ms: end of the last open window with events (else NEVER_MS)."""
        speaking = [c for c in self.clocks if not c.is_idle(now_ms=now_ms, idle_timeout_ms=self.idle_timeout_ms)]
        if speaking:
            self._all_idle = None
            candidate = min(c.max_event_ms for c in speaking)
            if candidate > NEVER_MS:
                self.value_ms = max(self.value_ms, candidate - self.allowed_lateness_ms)
        else:
            self._follow_wall_clock(now_ms=now_ms, data_end_ms=data_end_ms)
        return self.value_ms

    def _follow_wall_clock(self, *, now_ms: int, data_end_ms: int) -> None:
        """All inputs are silent: close what holds data and is over by the wall clock, then keep pace with it."""
        newest = max(c.max_event_ms for c in self.clocks)
        if newest == NEVER_MS:
            return
        if self._all_idle is None:
            self._all_idle = (now_ms, max(newest - self.allowed_lateness_ms, self.value_ms))
        since_ms, from_ms = self._all_idle
        paced = from_ms + (now_ms - since_ms)
        self.value_ms = max(self.value_ms, min(now_ms - self.allowed_lateness_ms, max(paced, data_end_ms)))

    def lead_ms(self, index: int, *, now_ms: int) -> int:
        """By how much input `index` is ahead of the slowest input that still speaks; 0 where nothing holds it."""
        others = [
            c.max_event_ms
            for i, c in enumerate(self.clocks)
            if i != index and not c.is_idle(now_ms=now_ms, idle_timeout_ms=self.idle_timeout_ms)
        ]
        own = self.clocks[index].max_event_ms
        if own == NEVER_MS or not others or min(others) == NEVER_MS:
            return 0
        return max(0, own - min(others))
