"""The same SKU state without a stream: event tables absorbed window by window, for training, backtests and checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.grid import plausible
from features.sku_state import Columns, SkuState

_FAR_MS = 1 << 62


def take(columns: Columns, rows: NDArray[np.intp]) -> Columns:
    """Pick rows of decoded columns; (n,) indices."""
    picked: dict[str, Any] = {}
    for item in dataclasses.fields(columns):
        value = getattr(columns, item.name)
        picked[item.name] = value[rows] if isinstance(value, np.ndarray) else [value[row] for row in rows]
    return type(columns)(**picked)


def feed(sku_state: SkuState, events: Mapping[int, Columns], *, until_ms: int | None = None) -> Iterator[int]:
    """Absorb whole tables of events, {input: columns}, and name each window once it holds all of its events.

    The caller closes the window before asking for the next. Windows run without a gap from the first event to the last
    before `until_ms` (default: to the end); a SKU state that was fed before goes on where it stands. Events of one window
    are absorbed in the order of their times, implausible times not at all.
    """
    split = {source: _by_window(sku_state, columns, until_ms) for source, columns in events.items()}
    filled = [number for groups in split.values() for number in groups]
    if not filled:
        return
    stands = sku_state.windows.first_open
    for number in range(min(filled) if stands is None else stands, max(filled) + 1):
        for source, groups in split.items():
            if number in groups:
                sku_state.absorb(source, take(events[source], groups[number]), now_ms=_FAR_MS)
        if sku_state.windows.first_open is None:
            sku_state.windows.first_open = number
        sku_state.touched.clear()
        yield number


def _by_window(sku_state: SkuState, columns: Columns, until_ms: int | None) -> dict[int, NDArray[np.intp]]:
    """Group rows by window number, each group in time order."""
    times_ms = columns.event_time_ms
    order = np.argsort(times_ms, kind="stable")
    order = order[plausible(times_ms[order])]
    if until_ms is not None:
        order = order[times_ms[order] < until_ms]
    if not len(order):
        return {}
    numbers = sku_state.grid.numbers(times_ms[order])
    starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    ends = np.r_[starts[1:], len(numbers)]
    return {int(numbers[a]): order[a:b] for a, b in zip(starts, ends, strict=True)}
