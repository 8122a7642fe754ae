"""One watermark per partition over its three inputs.

The watermark says: no more events older than this are expected. It is the least of what the active inputs have
reached, minus the allowed lateness, and never goes back. An input that is silent for the idle timeout is idle: it holds
the watermark back no more. When all are idle, the wall clock closes the windows that hold data once their time is over,
and goes on at its own pace, so that a quiet night still closes.

What ends silence is a record that is on time with a newer event time than every record of that input before it;
whatever else arrives moves no event time and is silence. In particular:

* a batch without a usable record (malformed, from the future, of another partition, or nothing but the markers of
  transactions) says nothing of event time: else one such record a minute would hold windows open for ever;
* a record on time, but not newer than one before it, does not move the input on, so that waiting for more of its kind
  would be for ever: think of a price list that is sent again and again under the date from which it is valid. It still
  folds where its window is open, and the allowed lateness is still kept;
* a duplicate shows how far its producer is as well as the first copy did, and counts when it is newer;
* a late record (its window has closed) is noted as what the input has reached, but does not end silence: an input that
  trails behind the watermark by more than the lateness would make all others wait for as long as it trails, and for
  nothing, as its records stay late. The first one on time does.

Silence is judged when all that the input holds has been read. While it lags it is not idle, but what was read then and
moved nothing does not start the idle timeout anew; a pause, or a broker that does not answer, does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NEVER_MS = -(1 << 62)


@dataclass
class InputClock:
    """What one input of a partition has shown so far.

    quiet_since_ms: when it was first found to be read to its end after it last spoke; None: not since. is_read: whether
    that was so when it was last looked at. Of a monotonic clock: a time of day that is put back must not keep an input
    from being idle.
    """

    max_event_ms: int = NEVER_MS
    quiet_since_ms: int | None = None
    is_read: bool = False

    def is_idle(self, *, monotonic_ms: int, idle_timeout_ms: int) -> bool:
        """Whether it has been silent for the idle timeout, and is read to its end."""
        since_ms = self.quiet_since_ms
        return self.is_read and since_ms is not None and monotonic_ms - since_ms >= idle_timeout_ms


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
    _all_idle: tuple[int, int] | None = None  # (monotonic time, event time) at which every input had fallen silent

    def __post_init__(self) -> None:
        """Start one clock per input."""
        if not self.clocks:
            self.clocks = [InputClock() for _ in range(self.inputs)]

    def observe(self, index: int, *, on_time_ms: int, late_ms: int = NEVER_MS) -> None:
        """Take note of a batch of input `index`: its newest event that was on time, and the newest that was late.

        NEVER_MS where there is none; see the module for which of them count as active.
        """
        clock = self.clocks[index]
        if on_time_ms > clock.max_event_ms:
            clock.quiet_since_ms = None
            self._all_idle = None
        clock.max_event_ms = max(clock.max_event_ms, on_time_ms, late_ms)

    def quiet(self, index: int, *, monotonic_ms: int, can_deliver: bool, lags: bool = False) -> None:
        """Take note of how input `index` stands. can_deliver: polled, unpaused, and its broker answers."""
        clock = self.clocks[index]
        clock.is_read = can_deliver and not lags
        if not can_deliver:
            clock.quiet_since_ms = None
        elif not lags and clock.quiet_since_ms is None:
            clock.quiet_since_ms = monotonic_ms

    def restart_idle_clock(self) -> None:
        """Let every input be silent for the whole idle timeout once more before it counts as idle."""
        for clock in self.clocks:
            clock.quiet_since_ms = None

    def missed(self, for_ms: int) -> None:
        """Note that nothing was polled for so long; what is more than half the idle timeout was no silence."""
        if for_ms > self.idle_timeout_ms // 2:
            self.restart_idle_clock()

    def advance(self, *, now_ms: int, monotonic_ms: int, data_end_ms: int) -> int:
        """Move the watermark on and return it.

        now_ms: time of day, epoch ms, against which events and windows are held. monotonic_ms: for what lasts.
        data_end_ms: end of the last open window with events (else NEVER_MS).
        """
        active = self._active(monotonic_ms)
        if active:
            self._all_idle = None
            candidate = min(c.max_event_ms for c in active)
            if candidate > NEVER_MS:
                self.value_ms = max(self.value_ms, candidate - self.allowed_lateness_ms)
        else:
            self._follow_wall_clock(now_ms=now_ms, monotonic_ms=monotonic_ms, data_end_ms=data_end_ms)
        return self.value_ms

    def _active(self, monotonic_ms: int, *, but: int = -1) -> list[InputClock]:
        """Give the clocks of the inputs that hold the watermark back, without that of input `but`."""
        return [
            clock
            for index, clock in enumerate(self.clocks)
            if index != but and not clock.is_idle(monotonic_ms=monotonic_ms, idle_timeout_ms=self.idle_timeout_ms)
        ]

    def _follow_wall_clock(self, *, now_ms: int, monotonic_ms: int, data_end_ms: int) -> None:
        """All inputs are silent: close what holds data and is over by the wall clock, then keep pace with it."""
        newest = max(c.max_event_ms for c in self.clocks)
        if newest == NEVER_MS:
            return
        if self._all_idle is None:
            self._all_idle = (monotonic_ms, max(newest - self.allowed_lateness_ms, self.value_ms))
        since_ms, from_ms = self._all_idle
        paced = from_ms + (monotonic_ms - since_ms)
        self.value_ms = max(self.value_ms, min(now_ms - self.allowed_lateness_ms, max(paced, data_end_ms)))

    def lead_ms(self, index: int, *, monotonic_ms: int) -> int:
        """By how much input `index` is ahead of the slowest other active input; 0 where nothing holds it."""
        others = [clock.max_event_ms for clock in self._active(monotonic_ms, but=index)]
        own = self.clocks[index].max_event_ms
        if own == NEVER_MS or not others or min(others) == NEVER_MS:
            return 0
        return max(0, own - min(others))
