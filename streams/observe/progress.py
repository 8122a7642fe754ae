"""How far a long task is, on stderr: a bar on a terminal, elsewhere a line every ten seconds: rate and time left."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVERY_S = 10.0
SHOWN_AFTER_S: Final = 2.0  # what is over sooner shows no bar
_TICK_S: Final = 0.5
_COLUMNS: Final = (
    TextColumn("{task.description}", markup=False),
    TextColumn("{task.fields[detail]}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


class ProgressReport:
    """Progress of one task; call it with the number of further parts done, or use `at`."""

    def __init__(
        self, what: str, total: int | None, *, console: Console, bar: Progress, now_s: Callable[[], float]
    ) -> None:
        """total: None where it is not known (yet). now_s: seconds that only go forward."""
        self._what, self._total, self._console, self._bar, self._now_s = what, total, console, bar, now_s
        self._done, self._detail = 0, ""
        self._before: int | None = None  # position before the first one that was reached
        self._started_s = self._said_s = now_s()
        self._lock = threading.Lock()
        self._task = bar.add_task(what, total=total, visible=False, detail="")

    def __call__(self, count: int, detail: str = "") -> None:
        """Note that so many parts more are done; detail: where the task is, in a few words."""
        self.at(self._done + count, detail=detail)

    def reach(self, position: int, detail: str = "") -> None:
        """Note that parts are done up to this one, such as the number of a window; parts may be left out on the way."""
        self._before = position - 1 if self._before is None else self._before
        self.at(position - self._before, detail=detail)

    def at(self, done: int, *, total: int | None = None, detail: str = "") -> None:
        """Note that so many parts are done in all, of `total` if that is known by now."""
        with self._lock:
            self._done, self._detail = done, detail
            self._total = self._total if total is None else total
        self.tick()

    def tick(self) -> None:
        """Show it, if it is time to."""
        with self._lock:
            now_s = self._now_s()
            self._bar.update(
                self._task,
                completed=self._done,
                total=self._total,
                visible=now_s - self._started_s >= SHOWN_AFTER_S,
                detail=self._detail,
            )
            if not self._console.is_terminal and now_s - self._said_s >= EVERY_S:
                self._said_s = now_s
                self._console.print(self._line(now_s), highlight=False, markup=False, soft_wrap=True)

    def _line(self, now_s: float) -> str:
        passed_s, total = now_s - self._started_s, self._total
        facts = [f"{self._done:,}" if total is None else f"{self._done:,} of {total:,}"] if self._done or total else []
        if self._done:
            facts.append(f"{_rate(self._done / passed_s)}/s")
        if self._done and total is not None:
            facts.append(f"{span(passed_s * max(total - self._done, 0) / self._done)} left")
        else:
            facts.append(f"{span(passed_s)} so far")
        return f"{self._what}: {', '.join(facts)}{f'; {self._detail}' if self._detail else ''}"


@contextmanager
def track_progress(
    what: str, total: int | None = None, *, now_s: Callable[[], float] = time.monotonic, ticks: bool = True
) -> Iterator[ProgressReport]:
    """Report the progress of a task; without a terminal nothing is printed of one that takes less than `EVERY_S`.

    ticks: whether to report also while nothing is done, from a thread.
    """
    console = Console(stderr=True)
    with Progress(*_COLUMNS, console=console, transient=True, disable=not console.is_terminal) as bar:
        report = ProgressReport(what, total, console=console, bar=bar, now_s=now_s)
        over = threading.Event()
        thread = threading.Thread(target=_tick, args=(report, over), name=f"progress of {what}", daemon=True)
        if ticks:
            thread.start()
        try:
            yield report
        finally:
            over.set()
            if ticks:
                thread.join()


def span(seconds: float) -> str:
    """Write a duration in its two largest units.

    >>> span(7.4), span(125), span(7_500), span(200_000)
    ('7 s', '2 min 5 s', '2 h 5 min', '2 d 7 h')
    """
    left = round(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if left >= size or parts or unit == "s":
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"  # noqa: PLR2004 - two digits say enough


def _tick(report: ProgressReport, over: threading.Event) -> None:
    while not over.wait(min(_TICK_S, EVERY_S)):
        report.tick()
