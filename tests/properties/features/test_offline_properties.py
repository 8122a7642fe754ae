"""Feeding whole tables offline is the same as absorbing them live, however the stream was cut and interleaved."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from features.cadence import DAY_MS, HOUR_MS
from features.grid import WindowGrid
from features.offline import feed, windows_between
from features.sku_state import SkuState
from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support.examples import examples
from tests.support.sku_states import Click, Closed, Order, Price, close, close_due, columns, cut, day_ms, statistics

GRIDS = (WindowGrid(timezone="Europe/London"), WindowGrid(window_ms=DAY_MS // 2, offset_ms=HOUR_MS))

skus, times_ms = st.sampled_from("abcd"), st.integers(0, 6 * 24).map(lambda hour: day_ms(17, hour))
GBP = st.just("GBP")
# exact in binary: sums do not depend on the order; equal times are common, so that price ties are
tables = st.tuples(
    st.lists(
        st.builds(
            Order,
            st.just(""),
            skus,
            st.integers(-8, 40).map(lambda n: n / 4),
            st.sampled_from([0.0, 2.5]),
            times_ms,
            GBP,
        ),
        max_size=25,
    ),
    st.lists(st.builds(Click, st.just(""), skus, st.integers(0, 2), times_ms), max_size=15),
    st.lists(
        st.builds(Price, st.just(""), skus, st.sampled_from([1.0, 2.0, 3.0]), times_ms, GBP),
        max_size=15,
    ),
)


def named(tables: tuple[list[Any], ...], repeats: list[int]) -> dict[int, list[Any]]:
    """Give every event an id of its own, and send some of them again later."""
    found = {}
    for source, events in zip((ORDERS, CLICKS, PRICES), tables, strict=True):
        fresh = [event._replace(event_id=str(i)) for i, event in enumerate(events)]
        found[source] = fresh + [fresh[i % len(fresh)] for i in repeats if fresh]
    return found


def assert_same(offline: list[Closed], live: list[Closed]) -> None:
    assert [window.number for window in offline] == [window.number for window in live]
    for one, other in zip(offline, live, strict=True):
        np.testing.assert_equal(one.facts, other.facts)
        assert one.vectors.keys() == other.vectors.keys()
        for sku, vector in one.vectors.items():
            np.testing.assert_array_equal(vector, other.vectors[sku])


@examples(80)
@given(
    tables,
    st.lists(st.integers(0, 50), max_size=4),
    st.lists(st.integers(0, 60), max_size=6),
    st.randoms(use_true_random=False),
    st.sampled_from(GRIDS),
    st.none() | times_ms,
)
def test_a_table_fed_offline_is_a_stream_absorbed_live(
    tables: tuple[list[Any], ...],
    repeats: list[int],
    at: list[int],
    random: Random,
    grid: WindowGrid,
    until_ms: int | None,
) -> None:
    events = named(tables, repeats)
    offline, live = SkuState(grid), SkuState(grid)
    decoded = {source: columns(source, records) for source, records in events.items()}
    fed = [close(offline, number) for number in feed(offline, decoded, until_ms=until_ms)]
    past = {s: [r for r in records if until_ms is None or r.time_ms < until_ms] for s, records in events.items()}
    # the inputs take turns in any way, each in its own order
    turns = [(source, batch) for source, records in past.items() for batch in cut(records, at)]
    sources = [source for source, _ in turns]
    random.shuffle(sources)
    waiting = {source: [batch for s, batch in turns if s == source] for source in past}
    for source in sources:
        live.absorb(source, columns(source, waiting[source].pop(0)), now_ms=day_ms(40))
    newest = max((r.time_ms for records in past.values() for r in records), default=None)
    closed = [] if newest is None else close_due(live, grid.end_ms(grid.number(newest)))
    assert_same(fed, closed)
    assert statistics(offline) == statistics(live)
    assert offline.windows.first_open == live.windows.first_open
    np.testing.assert_equal(vars(offline.season), vars(live.season))


@examples(40)
@given(tables, st.integers(1, 6))
def test_events_that_arrive_in_time_may_be_closed_upon_as_they_come(tables: tuple[list[Any], ...], size: int) -> None:
    events = {source: sorted(records, key=lambda r: r.time_ms) for source, records in named(tables, []).items()}
    grid = GRIDS[0]
    offline, live = SkuState(grid), SkuState(grid)
    decoded = {source: columns(source, records) for source, records in events.items()}
    fed = [close(offline, number) for number in feed(offline, decoded)]
    stream = sorted(((r.time_ms, source, i) for source, records in events.items() for i, r in enumerate(records)))
    closed: list[Closed] = []
    for start in range(0, len(stream), size):
        part = stream[start : start + size]
        for source in events:
            batch = [events[source][i] for _, s, i in part if s == source]
            assert live.absorb(source, columns(source, batch), now_ms=day_ms(40)).folded == len(batch)
        closed += close_due(live, part[-1][0])
    if stream:
        closed += close_due(live, grid.end_ms(grid.number(stream[-1][0])))
    assert_same(fed, closed)
    assert statistics(offline) == statistics(live)


@examples(80)
@given(tables, st.sampled_from(GRIDS), st.none() | times_ms, st.none() | st.integers(0, 8), st.booleans())
@example(([], [], [Price("", "a", 1.0, day_ms(18, 13))]), GRIDS[1], None, 0, False)
def test_the_windows_to_come_can_be_counted_beforehand(
    tables: tuple[list[Any], ...], grid: WindowGrid, until_ms: int | None, fed_until: int | None, odd: bool
) -> None:
    events = {source: columns(source, records) for source, records in named(tables, []).items()}
    if odd:
        events[ORDERS] = columns(ORDERS, [*named(tables, [])[ORDERS], Order("odd", "a", 1.0, 1.0, 5)])
    sku_state = SkuState(grid)
    if fed_until is not None:
        sku_state.windows.first_open = grid.number(day_ms(17)) + fed_until
    count = windows_between(grid, events, first_open=sku_state.windows.first_open, until_ms=until_ms)
    passed = 0

    def cross(number: int, stop: int) -> None:
        nonlocal passed
        passed += stop - number
        sku_state.cross(number, stop)

    for number in feed(sku_state, events, until_ms=until_ms, cross=cross):
        close(sku_state, number)
        passed += 1
    assert passed == count
