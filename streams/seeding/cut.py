"""Where history ends and the live topics begin, so that every event is counted once.

Two ways, both by event time. Where the live topics hold a whole window that history reaches too, history ends with the
window before it: all of it closes, and what the topics hold of earlier windows is late for the worker. Where they do
not (they have only begun), history of each input ends where its topic begins, and the windows from there on stay open
for both. Of an input whose topic is empty all history is taken. Either way events with the same `event_id` in an open
window count once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from features import dates
from schemas.errors import BadInput
from schemas.inputs import INPUT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from features.grid import WindowGrid


@dataclass(frozen=True)
class Spans:
    """What there is of each input, by its position: first and last event time of its history, first of its topic.

    An input that is not in `history` has none, one that is not in `live` has an empty topic. `now_ms`: epoch ms.
    """

    history: Mapping[int, tuple[int, int]]
    live: Mapping[int, int]
    now_ms: int


@dataclass(frozen=True)
class Cut:
    """Where history ends. first_open: the first window that is left open. until_ms: by input, event times before it."""

    first_open: int
    until_ms: Mapping[int, int]


def cut_at(grid: WindowGrid, spans: Spans, until_ms: int | None) -> Cut:
    """Cut between history and the live topics; until_ms: where an operator wants it, the start of a window.

    `BadInput` where it is no such start, or lies in the future, or history holds nothing before it.
    """
    if until_ms is not None:
        _check(grid, spans, until_ms)
        cut = _before_window(grid, spans, grid.number(until_ms))
    else:
        cut = _found(grid, spans)
    if not any(first < cut.until_ms[source] for source, (first, _) in spans.history.items()):
        msg = (
            f"the files hold nothing from before {_stamp(grid, min(cut.until_ms.values()))}, where the live topics "
            "begin: there is nothing to seed"
        )
        raise BadInput(msg)
    return cut


def _check(grid: WindowGrid, spans: Spans, until_ms: int) -> None:
    number = grid.number(until_ms)
    if grid.start_ms(number) != until_ms:
        msg = (
            f"--until is {_stamp(grid, until_ms)}, in the midst of a window: windows start at "
            f"{_stamp(grid, grid.start_ms(number))} and {_stamp(grid, grid.end_ms(number))}"
        )
        raise BadInput(msg)
    if until_ms > spans.now_ms:
        msg = f"--until is {_stamp(grid, until_ms)}, which is still to come"
        raise BadInput(msg)


def _found(grid: WindowGrid, spans: Spans) -> Cut:
    live = spans.live
    last_ms = min(spans.now_ms, max(last for _, last in spans.history.values()))
    if not live:
        return _before_window(grid, spans, grid.number(last_ms))
    newest_ms = max(live.values())
    number = grid.number(newest_ms)
    whole = number if grid.start_ms(number) == newest_ms else number + 1
    if last_ms >= grid.start_ms(whole):
        return _before_window(grid, spans, whole)
    untold_ms = spans.now_ms + 1
    return Cut(grid.number(min(live.values())), {source: live.get(source, untold_ms) for source in spans.history})


def _before_window(grid: WindowGrid, spans: Spans, number: int) -> Cut:
    """Cut all inputs where a window starts, but for those of whose events nobody else tells."""
    start_ms, untold_ms = grid.start_ms(number), spans.now_ms + 1
    return Cut(number, {source: start_ms if source in spans.live else untold_ms for source in spans.history})


def gaps(grid: WindowGrid, spans: Spans, cut: Cut) -> Iterator[str]:
    """Say of which whole windows neither the files nor the topics hold anything, input by input."""
    for source, (_, last_ms) in spans.history.items():
        live_ms = max(spans.live.get(source, spans.now_ms), cut.until_ms[source])
        known_ms = min(last_ms, cut.until_ms[source] - 1)
        if grid.number(live_ms) - grid.number(known_ms) > 1:
            ends = "are cut" if last_ms > known_ms else "end"
            yield (
                f"{INPUT_NAMES[source]}: the files {ends} at {_stamp(grid, known_ms)}, and the topic "
                f"{'begins' if source in spans.live else 'is empty: what comes begins'} at {_stamp(grid, live_ms)}; "
                "windows in between count as without events"
            )


def _stamp(grid: WindowGrid, time_ms: int) -> str:
    return dates.stamp(time_ms, grid.timezone)
