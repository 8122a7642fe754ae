"""One shop's events, replayed through the serving code into what a network is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.admission import Columns
from features.encoding import FEATURES, encode, encode_calendar
from features.offline import feed
from features.season import Context
from features.sku_state import SkuState
from inference.training.arrays import TrainingArrays
from schemas.errors import BadInput


@dataclass(frozen=True)
class History:
    """The arrays and what their axes stand for: SKUs (N), window starts in epoch ms (T).

    was_open: bool (T,). ends_ms: end of the last window.
    """

    arrays: TrainingArrays
    skus: list[str]
    starts_ms: NDArray[np.int64]
    was_open: NDArray[np.bool_]
    ends_ms: int


@dataclass
class _Window:
    slots: NDArray[np.int32]
    x: NDArray[np.float32]
    nu: NDArray[np.float32]
    units: NDArray[np.float32]
    context: Context


def collect(
    sku_state: SkuState,
    events: Mapping[int, Columns],
    *,
    until_ms: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> History:
    """Close every window before `until_ms` and keep what the model would have been given. No window at all: `BadInput`.

    Days on which the shop turned out to be closed are marked so in `season_next` for the windows before them, and have
    NaN units: closing days are known in advance, so they are neither forecast nor learnt from.
    """
    closed: list[_Window] = []
    for number in feed(sku_state, events, until_ms=until_ms):
        parts = []
        for chunk in sku_state.close(number):
            x = encode(chunk.after, chunk.facts, chunk.context)
            parts.append((chunk.slots, x, chunk.after["nu"], chunk.facts.units.astype(np.float32), chunk.context))
            chunk.commit()
        if parts:
            context = parts[0][4]
            slots, x, nu, units = (np.concatenate([p[i] for p in parts]) for i in range(4))
            closed.append(_Window(slots, x, nu, units, context))
        if progress:
            progress(number)
    if not closed:
        msg = "the order file holds no events before the given date: nothing to learn from"
        raise BadInput(msg)
    ends_ms = sku_state.grid.start_ms(sku_state.windows.first_open or 0)
    return _stack(closed, list(sku_state.table.skus), ends_ms)


def _stack(closed: list[_Window], skus: list[str], ends_ms: int) -> History:
    """Lay the windows out as rectangles, SKUs by slot."""
    windows, count = len(closed), len(skus)
    x = np.zeros((windows, count, len(FEATURES)), np.float32)
    nu = np.ones((windows, count), np.float32)
    y = np.full((windows, count), np.nan, np.float32)
    live = np.zeros((windows, count), np.bool_)
    horizon = closed[0].context.cadence.horizon
    season_next = np.zeros((windows, horizon), np.float32)
    was_open = np.array([w.context.is_open for w in closed])
    calendar = []
    for t, window in enumerate(closed):
        x[t, window.slots], nu[t, window.slots], live[t, window.slots] = window.x, window.nu, True
        if window.context.is_open:
            y[t, window.slots] = window.units
        ahead = was_open[t + 1 : t + 1 + horizon]
        season_next[t] = window.context.season_next
        season_next[t, : len(ahead)] *= ahead
        # a phase thought closed on which the shop then sold: let it be learnt as an ordinary one
        season_next[t, : len(ahead)][(season_next[t, : len(ahead)] == 0) & ahead] = 1.0
        calendar.append(encode_calendar(replace(window.context, season_next=season_next[t])))
    starts = np.array([w.context.start_ms for w in closed], np.int64)
    arrays = TrainingArrays(x=x, calendar=np.stack(calendar), nu=nu, season_next=season_next, y=y, live=live)
    return History(arrays, skus, starts, was_open, ends_ms)
