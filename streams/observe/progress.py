"""How far a long task is, on stderr: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVERY_S: Final = 2.0


@contextmanager
def track_progress(
    what: str, total: int, *, now_s: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Give a function that is told of each further part done of `total`; what takes less than `EVERY_S` stays unsaid.

    now_s: seconds that only go forward.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    done, said_s, is_terminal = 0, now_s(), console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not is_terminal) as progress:
        task = progress.add_task(what, total=total, visible=False)
        started_s = said_s

        def advance(count: int) -> None:
            nonlocal done, said_s
            done += count
            progress.update(task, completed=done, visible=now_s() - started_s >= EVERY_S)
            if not is_terminal and now_s() - said_s >= EVERY_S:
                said_s = now_s()
                console.print(f"{what}: {done:,} of {total:,}", highlight=False, soft_wrap=True)

        yield advance


def moment(time_ms: int, pattern: str) -> str:
    """Write epoch ms as a UTC date by a strftime pattern, or as they are where no calendar has such a day."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime(pattern)
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"
