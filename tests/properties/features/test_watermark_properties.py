"""The watermark under any schedule, against an oracle that reads the whole log anew at every step."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from features.watermark import NEVER_MS, Watermark
from tests.support.examples import examples

TIMEOUT = 50


class Step(NamedTuple):
    """What happened at one moment; wait_ms: since the step before. set_ms: how far the time of day is off by then."""

    kind: str
    index: int
    value: int
    wait_ms: int
    set_ms: int


steps = st.builds(
    Step,
    st.sampled_from(
        ["observe", "late", "rubbish", "quiet", "quiet", "quiet all", "lag", "pause", "advance", "advance"]
    ),
    st.integers(0, 2),
    st.integers(0, 400),
    st.sampled_from([0, 1, 10, 49, 50, 51, 200]),
    st.sampled_from([0, 0, 0, -300, -60, 60, 300]),
)


class Oracle:
    """Knows nothing but the log, (monotonic time, kind, input, value), and what the time of day was."""

    def __init__(self, lateness_ms: int) -> None:
        self.log: list[tuple[int, str, int, int]] = []
        self.day_ms: list[int] = []
        self.lateness_ms = lateness_ms

    def newest(self, index: int, upto: int) -> int:
        shown = (v for _, kind, i, v in self.log[:upto] if kind in ("observe", "late") and i == index)
        return max(shown, default=NEVER_MS)

    def is_active(self, at: int) -> bool:
        """Whether what came at this place of the log moved the event time of its input on."""
        _, kind, index, value = self.log[at]
        return kind == "observe" and value > self.newest(index, at)

    def idle(self, index: int, upto: int, now_ms: int) -> bool:
        """Whether the last look found it read to its end, and the first that did so since it spoke is long ago."""
        mine = [(at, now, kind) for at, (now, kind, i, _) in enumerate(self.log[:upto]) if i == index]
        newest = max((at for at, _, kind in mine if kind == "pause" or self.is_active(at)), default=-1)
        looks = [kind for _, _, kind in mine if kind in ("quiet", "lag", "pause")]
        quiet = [now for at, now, kind in mine if at > newest and kind == "quiet"]
        return bool(quiet) and looks[-1] == "quiet" and now_ms - quiet[0] >= TIMEOUT

    def value(self) -> int:
        value, spell = NEVER_MS, None
        for upto, (now_ms, kind, _, data_end_ms) in enumerate(self.log):
            if self.is_active(upto):
                spell = None
            if kind != "advance":
                continue
            newest = [self.newest(i, upto) for i in range(3)]
            active = [newest[i] for i in range(3) if not self.idle(i, upto, now_ms)]
            if active:
                spell = None
                reached = min(active) - self.lateness_ms if min(active) != NEVER_MS else NEVER_MS
            elif max(newest) == NEVER_MS:
                reached = NEVER_MS
            else:
                spell = spell or (now_ms, max(max(newest) - self.lateness_ms, value))
                reached = min(self.day_ms[upto] - self.lateness_ms, max(spell[1] + now_ms - spell[0], data_end_ms))
            value = max(value, reached)
        return value

    def lead_ms(self, index: int, now_ms: int) -> int:
        upto = len(self.log)
        others = [self.newest(i, upto) for i in range(3) if i != index and not self.idle(i, upto, now_ms)]
        if NEVER_MS in (self.newest(index, upto), *others) or not others:
            return 0
        return max(0, self.newest(index, upto) - min(others))


@examples(200)
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
                mark.observe(index, on_time_ms=step.value)
            elif kind == "late":
                mark.observe(index, on_time_ms=NEVER_MS, late_ms=step.value)
            elif kind == "rubbish":
                mark.observe(index, on_time_ms=NEVER_MS)
            elif kind == "advance":
                mark.advance(now_ms=now + step.set_ms, monotonic_ms=now, data_end_ms=step.value)
            else:
                mark.quiet(index, monotonic_ms=now, can_deliver=kind != "pause", lags=kind == "lag")
            oracle.log.append((now, kind, index, step.value))
            oracle.day_ms.append(now + step.set_ms)
        assert mark.value_ms == oracle.value()
        assert mark.value_ms >= before
        before = mark.value_ms
        assert [mark.lead_ms(i, monotonic_ms=now) for i in range(3)] == [oracle.lead_ms(i, now) for i in range(3)]


@examples(100)
@given(st.lists(st.integers(0, 400), min_size=3, max_size=3), st.integers(0, 60), st.integers(0, 2000))
def test_silence_closes_a_window_with_data_exactly_when_it_is_over_by_the_clock(
    newest: list[int], lateness_ms: int, data_end_ms: int
) -> None:
    mark = Watermark(allowed_lateness_ms=lateness_ms, idle_timeout_ms=TIMEOUT)
    for index, at in enumerate(newest):
        mark.observe(index, on_time_ms=at)
        mark.quiet(index, monotonic_ms=400, can_deliver=True)
    data_end_ms = max(data_end_ms, max(newest) + 1)
    for now in range(400 + TIMEOUT, 2200, 25):
        closes = mark.advance(now_ms=now, monotonic_ms=now, data_end_ms=data_end_ms) >= data_end_ms
        assert closes == (now - lateness_ms >= data_end_ms)


@examples(100)
@given(
    st.integers(0, 300),
    st.lists(st.tuples(st.sampled_from(["rubbish", "late", "old", "lag"]), st.integers(1, TIMEOUT - 1)), min_size=1),
)
def test_an_input_whose_event_time_stands_is_idle_after_the_timeout_whatever_comes(
    newest_ms: int, story: list[tuple[str, int]]
) -> None:
    mark = Watermark(idle_timeout_ms=TIMEOUT)
    for index, at in enumerate((newest_ms, 400, 400)):
        mark.observe(index, on_time_ms=at)
    now = began = 10_000
    mark.quiet(0, monotonic_ms=now, can_deliver=True)
    for kind, wait_ms in story:
        now += wait_ms
        for index in (1, 2):
            mark.observe(index, on_time_ms=now)
        if kind == "lag":
            mark.quiet(0, monotonic_ms=now, can_deliver=True, lags=True)
        mark.observe(
            0, on_time_ms=newest_ms if kind == "old" else NEVER_MS, late_ms=newest_ms + 1 if kind == "late" else 0
        )
        mark.quiet(0, monotonic_ms=now, can_deliver=True)
        reached = mark.advance(now_ms=now, monotonic_ms=now, data_end_ms=NEVER_MS)
        assert reached == now if now - began >= TIMEOUT else reached <= newest_ms + 1
