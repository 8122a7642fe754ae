"""The `replay` command: publish event files, and report progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from features import dates
from schemas.errors import BadSetting
from streams.events.replay import Replay
from streams.observe.progress import track_progress

if TYPE_CHECKING:
    from schemas.inputs import InputName
    from streams.events.replay import ReplayProgress as Sent
    from streams.settings import Settings


def replay_files(settings: Settings, files: dict[InputName, Path], speed: str, *, from_row: int = 1) -> None:
    """Publish the files from the so manieth event on, and print the number of records per topic.

    Raises `BadInput`, `BadSetting`, `BrokerTrouble`.
    """
    with track_progress("surveying the files"):
        replay = Replay(settings.client, files, settings.topic_prefix, speed=_speed(speed), from_row=from_row)
    with track_progress("replaying events", replay.total) as progress:

        def show(sent: Sent) -> None:
            progress.at(sent.sent, detail=dates.short_day(sent.event_time_ms, settings.timezone))

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
