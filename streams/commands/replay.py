"""The `replay` command: publish event files, with a progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ReplayProgress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from schemas.errors import BadSetting
from streams.events.replay import Replay
from streams.observe.progress import moment

if TYPE_CHECKING:
    from streams.events.files import Kind
    from streams.events.replay import ReplayProgress as Sent
    from streams.settings import Settings


def replay_files(settings: Settings, files: dict[Kind, Path], speed: str) -> None:
    """Publish the files and print the number of records per topic; raises `BadInput`, `BadSetting`, `BrokerTrouble`."""
    replay = Replay(settings.client, files, settings.topic_prefix, speed=_speed(speed))
    console = Console(stderr=True)
    for note in replay.notes:
        console.print(note)
    bars = (
        TextColumn("{task.fields[day]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with ReplayProgress(*bars, console=console) as progress:
        task = progress.add_task("events", total=replay.total, day="")

        def show(sent: Sent) -> None:
            progress.update(task, completed=sent.sent, day=moment(sent.event_time_ms, "%Y-%m-%d"))

        counts = replay.run(on_progress=show)
    for topic, count in counts.items():
        Console().print(f"{topic}: {count:,} records", highlight=False)


def _speed(text: str) -> float | Literal["max"]:
    if text == "max":
        return "max"
    try:
        factor = float(text)
    except ValueError as error:
        msg = f"--speed is {text!r}; expected `max` or a number of event seconds per second, e.g. 3600"
        raise BadSetting(msg) from error
    return factor
