"""The same SKU state without a stream: event tables absorbed window by window, for training, backtests and checks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from features.admission import Columns
from features.cadence import DORMANT_AFTER_MS
from features.grid import WindowGrid, plausible
from features.sku_state import SkuState
from schemas.columns import take

_FAR_MS = 1 << 62


def rows_by_window(grid: WindowGrid, columns: Columns, until_ms: int | None) -> dict[int, NDArray[np.intp]]:
    """Group rows of plausible times before `until_ms` (None: all) by window number, each group in time order."""
    times_ms = columns.event_time_ms
    order = np.argsort(times_ms, kind="stable")
    order = order[plausible(times_ms[order])]
    if until_ms is not None:
        order = order[times_ms[order] < until_ms]
    if not len(order):
        return {}
    numbers = grid.numbers(times_ms[order])
    starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    ends = np.r_[starts[1:], len(numbers)]
    return {int(numbers[a]): order[a:b] for a, b in zip(starts, ends, strict=True)}


def feed(
    sku_state: SkuState,
    events: Mapping[int, Columns],
    *,
    until_ms: int | None = None,
    cross: Callable[[int, int], None] | None = None,
) -> Iterator[int]:
    """Absorb whole tables of events, {input: columns}, and name each window once it holds all of its events.

    The caller closes the window before asking for the next. Windows run from the first event to the last before
    `until_ms` (default: to the end), but for stretches in which no SKU is live: `cross` (default: that of `sku_state`)
    closes these in one step. SKUs become dormant as they do in a worker with default settings, and keep their slots. A
    SKU state that was fed before goes on where it stands. Events of one window are absorbed in the order of their
    times, implausible times not at all.
    """
    split = {source: rows_by_window(sku_state.grid, columns, until_ms) for source, columns in events.items()}
    filled = sorted({number for groups in split.values() for number in groups})
    if not filled:
        return
    stands = sku_state.windows.first_open
    number = filled[0] if stands is None else stands
    while number <= filled[-1]:
        for source, groups in split.items():
            if number in groups:
                sku_state.absorb(source, take(events[source], groups[number]), now_ms=_FAR_MS)
        if sku_state.windows.first_open is None:
            sku_state.windows.first_open = number
        sku_state.touched.clear()
        yield number
        sku_state.forget(sku_state.dormant(before=sku_state.dormant_before(number, dormant_after_ms=DORMANT_AFTER_MS)))
        number = _next(sku_state, number + 1, filled, cross or sku_state.cross)


def _next(sku_state: SkuState, number: int, filled: list[int], cross: Callable[[int, int], None]) -> int:
    """Give the next window to close: `number`, or the next one with events where no SKU is live until then."""
    at = bisect_left(filled, number)
    if at == len(filled):
        return number
    stop = sku_state.nobody_until(number, sku_state.grid.start_ms(filled[at]))
    if stop > number:
        cross(number, stop)
    return stop


def windows_between(
    grid: WindowGrid, events: Mapping[int, Columns], *, first_open: int | None = None, until_ms: int | None = None
) -> int:
    """Count the windows that `feed` would name or cross. first_open: of a SKU state that was fed before."""
    times_ms = [columns.event_time_ms[plausible(columns.event_time_ms)] for columns in events.values()]
    if until_ms is not None:
        times_ms = [times[times < until_ms] for times in times_ms]
    times_ms = [times for times in times_ms if len(times)]
    if not times_ms:
        return 0
    first = grid.number(min(times.min() for times in times_ms)) if first_open is None else first_open
    return max(0, grid.number(max(times.max() for times in times_ms)) + 1 - first)
