"""The demo says how far it is, at a terminal and in a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from streams.demo.demo import Counters, _Display, _showing
from streams.observe import progress as track_progress

COUNTERS = Counters(records=2_000, windows=12, skus=40, forecasts=480, alerts=3, watermark_ms=1_312_326_000_000)


def shown(console: Console) -> str:
    display = _Display(Progress(console=console), 0.0)
    display.progress.add_task("replay", total=4_000, day="", rate="")
    with _showing(display, console, 4_000) as draw:
        draw(COUNTERS)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_in_a_file_lines_on_stderr_say_how_far_it_is_and_the_counts_come_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(track_progress, "EVERY_S", 0.0)
    text = shown(Console(file=io.StringIO(), width=80))
    assert "12 windows closed, 40 SKUs, 480 forecasts, 3 alerts" in text
    lines = capsys.readouterr().err.splitlines()
    assert any(
        line.startswith("replaying events: 2,000 of 4,000, ") and line.endswith("12 windows closed, 480 forecasts")
        for line in lines
    )


def test_at_a_terminal_the_bar_and_the_counts_are_in_view(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(Console(file=io.StringIO(), width=80, force_terminal=True))
    assert "12 windows closed, 40 SKUs, 480 forecasts, 3 alerts" in text
    assert capsys.readouterr().err == ""
