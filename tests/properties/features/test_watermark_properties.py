"""The watermark under any schedule, against an oracle that reads the whole log anew at every step."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from features.watermark import NEVER_MS, Watermark

TIMEOUT = 50


class Step(NamedTuple):
    """What happened at one moment of the wall clock; wait_ms: since the step before."""

    kind: str
    index: int
    value: int
    wait_ms: int


steps = st.builds(
    Step,
    st.sampled_from(["observe", "quiet", "quiet", "quiet all", "lag", "advance", "advance"]),
    st.integers(0, 2),
    st.integers(0, 400),
    st.sampled_from([0, 1, 10, 49, 50, 51, 200]),
)


class Oracle:
    """Knows nothing but the log: (wall time, kind, input, value)."""

    def __init__(self, lateness_ms: int) -> None:
        self.log: list[tuple[int, str, int, int]] = []
        self.lateness_ms = lateness_ms

    def newest(self, index: int, upto: int) -> int:
        return max((v for _, kind, i, v in self.log[:upto] if (kind, i) == ("observe", index)), default=NEVER_MS)

    def idle(self, index: int, upto: int, now_ms: int) -> bool:
        """Whether the unbroken run of quiet steps before `upto` has lasted for the timeout."""
        since = None
        for at, kind, i, _ in reversed(self.log[:upto]):
            if i != index or kind == "advance":
                continue
            if kind != "quiet":
                break
            since = at
        return since is not None and now_ms - since >= TIMEOUT

    def value(self) -> int:
        value, spell = NEVER_MS, None
        for upto, (now_ms, kind, _, data_end_ms) in enumerate(self.log):
            if kind == "observe":
                spell = None
            if kind != "advance":
                continue
            newest = [self.newest(i, upto) for i in range(3)]
            speaking = [newest[i] for i in range(3) if not self.idle(i, upto, now_ms)]
            if speaking:
                spell = None
                reached = min(speaking) - self.lateness_ms if min(speaking) != NEVER_MS else NEVER_MS
            elif max(newest) == NEVER_MS:
                reached = NEVER_MS
            else:
                spell = spell or (now_ms, max(max(newest) - self.lateness_ms, value))
                reached = min(now_ms - self.lateness_ms, max(spell[1] + now_ms - spell[0], data_end_ms))
            value = max(value, reached)
        return value

    def lead_ms(self, index: int, now_ms: int) -> int:
        upto = len(self.log)
        others = [self.newest(i, upto) for i in range(3) if i != index and not self.idle(i, upto, now_ms)]
        if NEVER_MS in (self.newest(index, upto), *others) or not others:
            return 0
        return max(0, self.newest(index, upto) - min(others))


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=40), st.integers(0, 60))
def test_any_schedule_gives_the_value_read_from_the_log(schedule: list[Step], lateness_ms: int) -> None:
    mark = Watermark(allowed_lateness_ms=lateness_ms, idle_timeout_ms=TIMEOUT)
    oracle, now, before = Oracle(lateness_ms), 100, NEVER_MS
    for step in schedule:
        now += step.wait_ms
        inputs = range(3) if step.kind == "quiet all" else (step.index,)
        for index in inputs:
            kind = "quiet" if step.kind == "quiet all" else step.kind
            if kind == "observe":
                mark.observe(index, max_event_ms=step.value)
            elif kind == "advance":
                mark.advance(now_ms=now, data_end_ms=step.value)
            else:
                mark.quiet(index, now_ms=now, could_speak=kind == "quiet")
            oracle.log.append((now, kind, index, step.value))
        assert mark.value_ms == oracle.value()
        assert mark.value_ms >= before
        before = mark.value_ms
        assert [mark.lead_ms(i, now_ms=now) for i in range(3)] == [oracle.lead_ms(i, now) for i in range(3)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=3, max_size=3), st.integers(0, 60), st.integers(0, 2000))
def test_silence_closes_a_window_with_data_exactly_when_it_is_over_by_the_clock(
    newest: list[int], lateness_ms: int, data_end_ms: int
) -> None:
    mark = Watermark(allowed_lateness_ms=lateness_ms, idle_timeout_ms=TIMEOUT)
    for index, at in enumerate(newest):
        mark.observe(index, max_event_ms=at)
        mark.quiet(index, now_ms=400, could_speak=True)
    data_end_ms = max(data_end_ms, max(newest) + 1)
    for now in range(400 + TIMEOUT, 2200, 25):
        closes = mark.advance(now_ms=now, data_end_ms=data_end_ms) >= data_end_ms
        assert closes == (now - lateness_ms >= data_end_ms)
