"""Progress on stderr: nothing of what is quick, a line now and then of what is not."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.observe import progress as module
from streams.observe.progress import EVERY_S, span, track_progress

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Seconds that go forward when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    def take() -> list[str]:
        out, err = capsys.readouterr()
        assert out == "", "results alone go to stdout"
        return err.splitlines()

    return take


def test_a_long_task_says_every_ten_seconds_how_far_it_is_how_fast_and_how_long_it_will_be(
    clock: Clock, lines: Callable[[], list[str]]
) -> None:
    assert EVERY_S == 10.0
    with track_progress("reading", 5_000, now_s=clock, ticks=False) as told:
        for _ in range(10):
            told(500)
            clock.now_s += 2.5
    assert lines() == [
        "reading: 2,500 of 5,000, 250/s, 10 s left",
        "reading: 4,500 of 5,000, 225/s, 2 s left",
    ]


def test_it_says_where_it_is_and_takes_a_total_that_is_known_late(clock: Clock, lines: Callable[[], list[str]]) -> None:
    with track_progress("training", now_s=clock, ticks=False) as told:
        clock.now_s += 10
        told.at(3, detail="loss 0.5000")
        clock.now_s += 10
        told.at(4, total=4_000, detail="loss [0]")
    assert lines() == [
        "training: 3, 0.3/s, 10 s so far; loss 0.5000",
        "training: 4 of 4,000, 0.2/s, 5 h 33 min left; loss [0]",
    ]


def test_parts_that_are_left_out_on_the_way_are_done(clock: Clock, lines: Callable[[], list[str]]) -> None:
    """Windows without any SKU are closed in one step; the time left was that of closing each."""
    with track_progress("closing windows", 100, now_s=clock, ticks=False) as report:
        report.reach(7_000)
        clock.now_s += 10
        report.reach(7_049)
    assert lines() == ["closing windows: 50 of 100, 5/s, 10 s left"]


def test_what_does_nothing_for_long_is_reported_all_the_same(clock: Clock, lines: Callable[[], list[str]]) -> None:
    with (
        track_progress("surveying", now_s=clock, ticks=False) as one,
        track_progress("reading", 9, now_s=clock, ticks=False) as other,
    ):
        clock.now_s += 65
        one.tick()
        other.tick()
    assert lines() == ["surveying: 1 min 5 s so far", "reading: 0 of 9, 1 min 5 s so far"]


def test_a_thread_tells_while_the_task_itself_cannot(
    monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.05)
    with track_progress("exporting"):
        time.sleep(0.3)
    said = lines()
    assert said
    assert set(said) == {"exporting: 0 s so far"}


def test_what_is_quick_stays_unsaid(clock: Clock, lines: Callable[[], list[str]]) -> None:
    with track_progress("reading", 10, now_s=clock) as told:
        for _ in range(10):
            told(1)
    assert lines() == []


def test_a_task_that_breaks_off_leaves_no_thread_behind(clock: Clock) -> None:
    with suppress(KeyError), track_progress("reading", 10, now_s=clock):
        assert [thread for thread in threading.enumerate() if thread.name == "progress of reading"]
        raise KeyError
    assert not [thread for thread in threading.enumerate() if thread.name == "progress of reading"]


@given(st.floats(0, 1e9))
def test_a_span_of_time_is_reported_within_a_fortieth(seconds: float) -> None:
    sizes = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
    words = span(seconds).split()
    told = sum(int(number) * sizes[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert told == pytest.approx(seconds, rel=1 / 24, abs=0.5)
    assert len(words) <= 4
