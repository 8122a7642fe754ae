"""Progress on stderr: nothing of what is quick, a line now and then of what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.observe.progress import EVERY_S, track_progress

if TYPE_CHECKING:
    import pytest


def test_a_long_task_says_how_far_it_is_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    with track_progress("reading", 5_000, now_s=lambda: now[0]) as advance:
        for _ in range(10):
            advance(500)
            now[0] += EVERY_S / 4
    assert capsys.readouterr() == ("", "reading: 2,500 of 5,000\nreading: 4,500 of 5,000\n")


def test_what_is_quick_stays_unsaid(capsys: pytest.CaptureFixture[str]) -> None:
    with track_progress("reading", 10, now_s=lambda: 1.0) as advance:
        for _ in range(10):
            advance(1)
    assert capsys.readouterr() == ("", "")
