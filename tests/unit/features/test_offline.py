"""Whole tables of events, window by window."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import numpy as np
import pytest

from features.cadence import DAY_MS
from features.grid import WindowGrid
from features.offline import feed
from features.sku_state import SkuState
from schemas.columns import take
from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support.sku_states import Click, Order, Price, close, columns, day_ms


def line(day: int, sku: str = "a", hour: float = 0.0) -> Order:
    return Order(f"{sku}-{day}-{hour}", sku, 1, 2.0, day_ms(day, hour))


def test_windows_run_without_a_gap_from_the_first_event_of_any_input_to_the_last() -> None:
    sku_state = SkuState(WindowGrid())
    events = {
        ORDERS: columns(ORDERS, [line(9), line(4)]),
        CLICKS: columns(CLICKS, [Click("1", "a", 0, day_ms(12))]),
        PRICES: columns(PRICES, [Price("1", "a", 3.0, day_ms(2))]),
    }
    first = sku_state.grid.number(day_ms(2))
    closed = [close(sku_state, number) for number in feed(sku_state, events)]
    assert [window.number for window in closed] == list(range(first, first + 11))
    assert [window.facts["a"]["units"] for window in closed] == [0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0]
    assert sku_state.windows.first_open == first + 11


def test_nothing_at_or_after_the_given_time_is_absorbed() -> None:
    sku_state = SkuState(WindowGrid())
    events = {ORDERS: columns(ORDERS, [line(0), line(3, hour=12), line(3, hour=11.9), line(7)])}
    closed = [close(sku_state, number) for number in feed(sku_state, events, until_ms=day_ms(3, 12))]
    assert [window.facts["a"]["units"] for window in closed] == [1, 0, 0, 1]


@pytest.mark.parametrize("until_ms", [None, 0])
def test_without_events_there_is_no_window(until_ms: int | None) -> None:
    events = {ORDERS: columns(ORDERS, [line(0)] if until_ms is not None else [])}
    assert list(feed(SkuState(WindowGrid()), events, until_ms=until_ms)) == []
    assert list(feed(SkuState(WindowGrid()), {}, until_ms=until_ms)) == []


def test_a_window_is_named_when_it_holds_its_events_and_no_later_ones() -> None:
    sku_state = SkuState(WindowGrid())
    for number in feed(sku_state, {ORDERS: columns(ORDERS, [line(0), line(1), line(2)])}):
        assert list(sku_state.windows) == [number]
        assert sku_state.take_touched() == {}
        close(sku_state, number)


LINES = [line(day) for day in range(4)]
CLICKED = [Click(str(day), "a", day % 3, day_ms(day)) for day in range(4)]


@pytest.mark.parametrize(("source", "events"), [(ORDERS, LINES), (CLICKS, CLICKED)])
def test_taking_rows_takes_them_from_every_column(source: int, events: list[Order] | list[Click]) -> None:
    found = take(columns(source, events), np.array([2, 0]))
    want = columns(source, [events[2], events[0]])
    for name in type(want).__dataclass_fields__:
        got = list(getattr(found, name))
        assert got == ([2, 0] if name == "row" else list(getattr(want, name))), name


def test_an_implausible_time_opens_no_window_just_as_when_live() -> None:
    sku_state = SkuState(WindowGrid())
    events = {ORDERS: columns(ORDERS, [Order("broken", "a", 1, 2.0, 0), line(0)])}
    closed = [close(sku_state, number).number for number in islice(feed(sku_state, events), 3)]
    assert closed == [sku_state.grid.number(day_ms(0))]


def test_a_time_after_the_end_of_the_calendar_does_not_end_the_run() -> None:
    sku_state = SkuState(WindowGrid())
    last_ms = int(datetime(2099, 12, 30, tzinfo=UTC).timestamp() * 1000)
    lines = [Order("1", "a", 1, 2.0, last_ms), Order("2", "a", 1, 2.0, last_ms + 60 * 365 * DAY_MS)]
    for number in feed(sku_state, {ORDERS: columns(ORDERS, lines)}):
        close(sku_state, number)


def test_a_stray_event_of_another_century_costs_its_dormancy_and_no_more() -> None:
    """Of the 3,000 days in between, the first 400 are closed; then nobody is live until the next event."""
    stray_ms = day_ms(-3_000)
    lines = [Order("0", "stray", 1, 2.0, stray_ms), line(0), line(1, "stray")]
    sku_state = SkuState(WindowGrid())
    closed = {number: close(sku_state, number) for number in feed(sku_state, {ORDERS: columns(ORDERS, lines)})}
    first, last = sku_state.grid.number(stray_ms), sku_state.grid.number(day_ms(1))
    assert list(closed) == [*range(first, first + 401), last - 1, last]
    assert set(closed[first + 400].facts) == {"stray"}
    assert set(closed[last - 1].facts) == {"a"}
    assert sku_state.table["age"][sku_state.table.index["stray"]] == 1, "one that comes back is a new SKU"
    assert sku_state.table.skus == ["stray", "a"]
