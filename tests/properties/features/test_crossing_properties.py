"""A stretch of windows in which no SKU is live, crossed in one step, against closing them one by one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from features.cadence import DAY_MS, HOUR_MS, MINUTE_MS, MONTH_MS, WEEK_MS
from features.grid import WindowGrid
from features.season import SeasonProfile
from features.sku_state import SkuState
from inference.live_loss import LiveLoss
from inference.pipeline import JUDGING, WindowPipeline
from schemas.inputs import ORDERS
from streams.state import meta as metas
from tests.support.examples import examples
from tests.support.sku_states import MONDAY_MS, Order, columns, statistics

GRIDS = (
    WindowGrid(window_ms=MINUTE_MS),
    WindowGrid(window_ms=20 * MINUTE_MS, offset_ms=-7 * MINUTE_MS),
    WindowGrid(window_ms=HOUR_MS, offset_ms=15 * MINUTE_MS),
    WindowGrid(window_ms=12 * HOUR_MS),
    WindowGrid(timezone="Europe/London"),
    WindowGrid(timezone="Pacific/Apia", day_start="04:00"),
    WindowGrid(window_ms=WEEK_MS, timezone="America/New_York", week_start="sunday"),
    WindowGrid(window_ms=MONTH_MS, timezone="Europe/London"),
)
FAR_MS = 1 << 62
amounts = st.sampled_from([0.0, 0.5, 1.0, 7.0, 8.0, 40.0, 1e6, 1e15])


class Visit(NamedTuple):
    """A window of the time before."""

    phase: int
    lines: float
    units: float


visits = st.builds(Visit, st.integers(0, 6), amounts, amounts)


@examples(80)
@given(st.lists(visits, max_size=40), st.lists(st.integers(0, 6), max_size=300), st.integers(0, 600))
@example([Visit(0, 1e15, 1e15), Visit(1, 0.0, 1.0), Visit(2, 40.0, 3.0)], [], 5_000)  # until nothing changes any more
def test_silence_taken_in_at_once_leaves_the_season_that_each_window_would(
    story: list[Visit], phases: list[int], more_of_each: int
) -> None:
    """To the last bit, in whatever order the phases come."""
    one_by_one, at_once = SeasonProfile(7), SeasonProfile(7)
    for season in (one_by_one, at_once):
        for visit in story:
            season.observe(phase=visit.phase, lines=visit.lines, units=visit.units)
    for phase in [*phases, *(list(range(7)) * more_of_each)]:
        one_by_one.observe(phase=phase, lines=0.0, units=0.0)
    at_once.observe_silence(np.bincount(phases, minlength=7) + more_of_each)
    for name in ("lines", "units", "visits", "missed", "ratio"):
        np.testing.assert_array_equal(getattr(at_once, name), getattr(one_by_one, name), err_msg=name)
    for name in ("fast", "slow", "open_windows", "level", "weight"):
        assert getattr(at_once, name) == getattr(one_by_one, name), name


@examples(100)
@given(st.sampled_from(GRIDS), st.integers(0, 900), st.integers(0, 3_000))
def test_phases_are_counted_as_each_window_has_them(grid: WindowGrid, skipped: int, count: int) -> None:
    first = grid.number(MONDAY_MS) + skipped
    count = min(count, 800) if not grid.is_fixed else count
    found = grid.phase_counts(first, first + count)
    each = [grid.phase(number) for number in range(first, first + count)]
    assert found.tolist() == np.bincount(np.array(each, np.int64), minlength=grid.season_length).tolist()


def shop(grid: WindowGrid, sold: list[tuple[int, int]]) -> WindowPipeline:
    """Some windows of two SKUs, all closed, and then both forgotten."""
    sku_state = SkuState(grid, extra_columns=JUDGING)
    pipeline = WindowPipeline(sku_state, None)
    pipeline.live = LiveLoss({"served": 1e12, "lstm": 0.25, "seasonal_naive": 0.0}, units=17.0)
    first = grid.number(MONDAY_MS)
    sell(sku_state, {first + window: units for window, units in sold} | {first: 1})
    last = sku_state.windows.last
    assert last is not None
    while (number := sku_state.due(grid.end_ms(last))) is not None:
        assert sku_state.nobody_until(number, grid.end_ms(last)) == number, "a SKU is live in it"
        list(pipeline.close(number, emitted_ms=0))
    sku_state.retire(before=last + 1)
    assert len(sku_state.table) == 0
    return pipeline


def sell(sku_state: SkuState, units: dict[int, int]) -> None:
    lines = [
        Order(f"{number}-{sku}-{n}", sku, 1.0, 2.0, sku_state.grid.start_ms(number) + n)
        for number, count in units.items()
        for sku in ("a", "b")
        for n in range(count)
    ]
    sku_state.absorb(ORDERS, columns(ORDERS, lines), now_ms=FAR_MS)


@examples(60)
@given(
    st.sampled_from(GRIDS),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=20),
    st.integers(1, 700),
    st.integers(0, 3),
)
def test_a_stretch_without_a_live_sku_is_crossed_as_if_its_windows_had_closed_one_by_one(
    grid: WindowGrid, sold: list[tuple[int, int]], length: int, after: int
) -> None:
    at_once, one_by_one = shop(grid, sold), shop(grid, sold)
    first = at_once.sku_state.windows.first_open
    assert first is not None
    stop = first + length
    if after:  # events lie behind the stretch already, or there are none at all
        for pipeline in (at_once, one_by_one):
            sell(pipeline.sku_state, {stop: after, stop + 2: 1})
    watermark_ms = grid.end_ms(stop + 2 if after else stop - 1)

    assert at_once.sku_state.due_count(watermark_ms) == length + 3 * bool(after)
    assert at_once.sku_state.nobody_until(first, watermark_ms) == stop
    at_once.cross(first, stop)
    for number in range(first, stop):
        assert one_by_one.sku_state.due(watermark_ms) == number
        assert list(one_by_one.close(number, emitted_ms=0)) == []
    assert_alike(at_once, one_by_one)

    for pipeline in (at_once, one_by_one):
        while (number := pipeline.sku_state.due(watermark_ms)) is not None:
            list(pipeline.close(number, emitted_ms=0))
    assert_alike(at_once, one_by_one)


def assert_alike(one: WindowPipeline, other: WindowPipeline) -> None:
    assert one.sku_state.windows.first_open == other.sku_state.windows.first_open
    assert list(one.sku_state.windows) == list(other.sku_state.windows)
    assert metas.season_state(one.sku_state) == metas.season_state(other.sku_state)
    assert one.sku_state.prior_nu == other.sku_state.prior_nu
    assert statistics(one.sku_state) == statistics(other.sku_state)
    assert [len(seen) for seen in one.sku_state.seen] == [len(seen) for seen in other.sku_state.seen]
    assert one.expected_open == other.expected_open
    assert one.live == other.live


@examples(20)
@given(st.floats(0, 1e300), st.integers(0, 60_000))
def test_losses_fade_over_many_windows_as_over_each(loss: float, windows: int) -> None:
    at_once, one_by_one = (LiveLoss({"served": loss}, units=1.0) for _ in range(2))
    at_once.fade(windows)
    for _ in range(windows):
        one_by_one.fade()
    assert at_once == one_by_one


def test_half_a_century_of_minutes_is_crossed_as_if_it_were_an_hour() -> None:
    pipeline = shop(GRIDS[0], [(n, 40) for n in range(5)])
    first = pipeline.sku_state.windows.first_open
    assert first is not None
    windows = 50 * 366 * DAY_MS // MINUTE_MS
    pipeline.cross(first, first + windows)  # 26 million: one by one this test would never end
    assert pipeline.sku_state.windows.first_open == first + windows
    assert pipeline.sku_state.season.visits.sum() > windows - 100
