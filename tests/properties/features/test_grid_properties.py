"""Windows at any instant against zoneinfo, one instant at a time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.grid import DAY_MS, HOUR_MS, MINUTE_MS, MONTH_MS, WEEK_MS, WindowGrid

ZONES = (
    "UTC",
    "Europe/London",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "America/Havana",
)
STEP_MS = 15 * MINUTE_MS  # every offset since 2000 is a multiple of it

times = st.integers(int(datetime(2000, 1, 2, tzinfo=UTC).timestamp()) * 1000, 4_000_000_000_000)
zones = st.sampled_from(ZONES)
calendars = st.sampled_from([DAY_MS, WEEK_MS, MONTH_MS])
# around the changes of the clock, where everything goes wrong
changes = st.builds(
    lambda day, ms: int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000) + ms,
    st.sampled_from(["2011-03-27", "2011-10-30", "2024-03-10", "2024-11-03", "2024-04-06", "2024-10-05", "2018-02-18"])
    | st.sampled_from(["2018-11-04", "2000-02-29", "2023-12-31", "2038-01-19"]),
    st.integers(-2 * DAY_MS, 2 * DAY_MS),
)


calendar = cache(lambda window_ms, timezone: WindowGrid(window_ms=window_ms, timezone=timezone))


def local_day(time_ms: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(time_ms // 1000, zone).date()


def first_day(day: date, window_ms: int) -> date:
    """First day of the day, week or month that a day belongs to."""
    if window_ms == DAY_MS:
        return day
    return day - timedelta(days=day.weekday()) if window_ms == WEEK_MS else day.replace(day=1)


def first_moment_ms(day: date, zone: ZoneInfo) -> int:
    """Walk on from the day before until the shop's calendar shows the day."""
    at = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000) - 15 * HOUR_MS
    while local_day(at, zone) < day:
        at += STEP_MS
    return at


def count(day: date, window_ms: int) -> int:
    """Number the days, weeks or months since year 1 without a gap."""
    if window_ms == MONTH_MS:
        return 12 * day.year + day.month
    return day.toordinal() if window_ms == DAY_MS else (day.toordinal() - 1) // 7


@settings(max_examples=150, deadline=None)
@given(times | changes, zones, calendars)
def test_a_time_lies_in_the_window_that_starts_when_its_local_date_began(
    time_ms: int, timezone: str, window_ms: int
) -> None:
    zone, grid = ZoneInfo(timezone), calendar(window_ms, timezone)
    number = grid.number(time_ms)
    start, end = grid.start_ms(number), grid.end_ms(number)
    assert start == first_moment_ms(first_day(local_day(time_ms, zone), window_ms), zone)
    assert start <= time_ms < end
    if window_ms == DAY_MS:
        assert grid.phase(number) == local_day(time_ms, zone).weekday()


@settings(max_examples=100, deadline=None)
@given(times | changes, times | changes, zones, calendars)
def test_numbers_count_dates_weeks_and_months_without_a_gap(
    one_ms: int, other_ms: int, timezone: str, window_ms: int
) -> None:
    zone, grid = ZoneInfo(timezone), calendar(window_ms, timezone)
    between = count(local_day(other_ms, zone), window_ms) - count(local_day(one_ms, zone), window_ms)
    assert grid.number(other_ms) - grid.number(one_ms) == between


@st.composite
def grids(draw: st.DrawFn) -> WindowGrid:
    if draw(st.booleans()):
        return calendar(draw(calendars), draw(zones))
    minutes = draw(st.sampled_from([m for m in range(1, 721) if 1440 % m == 0]))
    return WindowGrid(window_ms=minutes * MINUTE_MS, offset_ms=draw(st.integers(-DAY_MS, DAY_MS)))


@settings(max_examples=100, deadline=None)
@given(grids(), times | changes)
def test_windows_tile_time_half_open(grid: WindowGrid, time_ms: int) -> None:
    number = grid.number(time_ms)
    for n in range(number, number + 3):
        start, end = grid.start_ms(n), grid.end_ms(n)
        assert start < end == grid.start_ms(n + 1)
        found = grid.numbers(np.array([start - 1, start, end - 1, end], np.int64))
        assert found.tolist() == [n - 1, n, n, n + 1]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([m for m in range(1, 721) if 1440 % m == 0]),
    st.integers(-2 * DAY_MS, 2 * DAY_MS),
    st.integers(-DAY_MS, 2 * DAY_MS),
)
@example(720, 0, -1)
@example(1, 0, 0)
def test_a_short_window_is_found_by_counting_from_the_offset(minutes: int, offset_ms: int, time_ms: int) -> None:
    window_ms = minutes * MINUTE_MS
    grid = WindowGrid(window_ms=window_ms, offset_ms=offset_ms)
    number, start = 0, offset_ms
    while start > time_ms:
        number, start = number - 1, start - window_ms
    while start + window_ms <= time_ms:
        number, start = number + 1, start + window_ms
    assert grid.number(time_ms) == number
    assert (grid.start_ms(number), grid.end_ms(number)) == (start, start + window_ms)


@settings(max_examples=100, deadline=None)
@given(grids(), st.integers(946_800_000_000, 3_000_000_000_000))
def test_the_same_phase_comes_again_after_a_season(grid: WindowGrid, time_ms: int) -> None:
    number = grid.number(time_ms)
    assert 0 <= grid.phase(number) < grid.season
    assert grid.phase(number + grid.season_windows) == grid.phase(number)


@settings(max_examples=50, deadline=None)
@given(grids(), st.lists(times | changes, max_size=20))
def test_many_times_have_the_numbers_that_each_has_alone(grid: WindowGrid, times_ms: list[int]) -> None:
    found = grid.numbers(np.array(times_ms, np.int64))
    assert found.dtype == np.int64
    assert found.tolist() == [grid.number(time_ms) for time_ms in times_ms]
