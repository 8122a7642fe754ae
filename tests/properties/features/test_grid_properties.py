"""Windows at any instant against zoneinfo, one instant at a time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from features.cadence import DAY_MS, HORIZON, HOUR_MS, MINUTE_MS, MONTH_MS, WEEK_MS
from features.grid import EARLIEST_MS, LATEST_MS, WEEKDAYS, WindowGrid
from tests.support.examples import examples

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


@examples(150)
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


@examples(100)
@given(times | changes, times | changes, zones, calendars)
def test_numbers_count_dates_weeks_and_months_without_a_gap(
    one_ms: int, other_ms: int, timezone: str, window_ms: int
) -> None:
    zone, grid = ZoneInfo(timezone), calendar(window_ms, timezone)
    between = count(local_day(other_ms, zone), window_ms) - count(local_day(one_ms, zone), window_ms)
    assert grid.number(other_ms) - grid.number(one_ms) == between


def after(day: date, window_ms: int, windows: int) -> date:
    """First day of the day, week or month that comes so many later."""
    if window_ms == MONTH_MS:
        months = 12 * day.year + day.month - 1 + windows
        return date(months // 12, months % 12 + 1, 1)
    return day + timedelta(days=windows * (1 if window_ms == DAY_MS else 7))


@examples(100)
@given(
    times | changes | st.integers(LATEST_MS - 20 * DAY_MS, LATEST_MS - 1),
    st.sampled_from([*ZONES, "Asia/Tokyo"]),
    calendars,
)
@example(1_301_097_600_000, "Europe/London", DAY_MS)  # the day before one of 23 hours
@example(1_319_842_800_000, "Europe/London", DAY_MS)  # the day before one of 25
@example(1_299_906_000_000, "America/New_York", DAY_MS)
@example(1_301_097_600_000, "Asia/Tokyo", DAY_MS)
@example(1_300_060_800_000, "America/New_York", WEEK_MS)
@example(1_293_840_000_000, "Europe/London", MONTH_MS)
@example(LATEST_MS - 1, "Asia/Tokyo", MONTH_MS)
def test_the_next_windows_start_where_the_calendar_says(time_ms: int, timezone: str, window_ms: int) -> None:
    zone, grid = ZoneInfo(timezone), calendar(window_ms, timezone)
    number, first = grid.number(time_ms), first_day(local_day(time_ms, zone), window_ms)
    expected = tuple(first_moment_ms(after(first, window_ms, k), zone) for k in range(1, HORIZON + 1))
    found = grid.starts_ms(number + 1, HORIZON)
    assert found == expected
    assert found[0] == grid.end_ms(number)


@st.composite
def grids(draw: st.DrawFn) -> WindowGrid:
    if draw(st.booleans()):
        return calendar(draw(calendars), draw(zones))
    minutes = draw(st.sampled_from([m for m in range(1, 721) if 1440 % m == 0]))
    return WindowGrid(window_ms=minutes * MINUTE_MS, offset_ms=draw(st.integers(-DAY_MS, DAY_MS)))


@examples(100)
@given(grids(), times | changes)
def test_windows_tile_time_half_open(grid: WindowGrid, time_ms: int) -> None:
    number = grid.number(time_ms)
    for n in range(number, number + 3):
        start, end = grid.start_ms(n), grid.end_ms(n)
        assert start < end == grid.start_ms(n + 1)
        found = grid.numbers(np.array([start - 1, start, end - 1, end], np.int64))
        assert found.tolist() == [n - 1, n, n, n + 1]


@examples(100)
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


@examples(100)
@given(grids(), st.integers(946_800_000_000, 3_000_000_000_000))
def test_the_same_phase_comes_again_after_a_season(grid: WindowGrid, time_ms: int) -> None:
    number = grid.number(time_ms)
    assert 0 <= grid.phase(number) < grid.season_length
    days = 7 if grid.is_fixed else 1  # short windows have phases of their own on each day of the week
    assert grid.phase(number + days * grid.season_windows) == grid.phase(number)
    assert (grid.phase(number + grid.season_windows) - grid.phase(number)) % grid.day_phases == 0


@examples(50)
@given(grids(), st.lists(times | changes, max_size=20))
def test_many_times_have_the_numbers_that_each_has_alone(grid: WindowGrid, times_ms: list[int]) -> None:
    found = grid.numbers(np.array(times_ms, np.int64))
    assert found.dtype == np.int64
    assert found.tolist() == [grid.number(time_ms) for time_ms in times_ms]


SHORT = [minutes * MINUTE_MS for minutes in (1, 15, 20, 60, 360, 720)]
pairs_ms = st.sampled_from(SHORT).flatmap(
    lambda window_ms: st.tuples(
        st.just(window_ms), st.sampled_from([0, window_ms // 2, -window_ms // 2, window_ms, -window_ms, HOUR_MS, -1])
    )
)
STARTS = ("00:00", "00:30", "01:30", "02:30", "04:00", "23:59")
any_grid = st.builds(lambda pair: WindowGrid(window_ms=pair[0], offset_ms=pair[1]), pairs_ms) | st.builds(
    lambda window_ms, zone, day_start, week_start: WindowGrid(
        window_ms=window_ms,
        timezone=zone,
        day_start=day_start,
        week_start=week_start if window_ms == WEEK_MS else "monday",
    ),
    st.sampled_from([DAY_MS, WEEK_MS, 28 * DAY_MS, MONTH_MS, 31 * DAY_MS]),
    zones,
    st.sampled_from(STARTS),
    st.sampled_from(WEEKDAYS),
)


def cuts_alike(one: WindowGrid, other: WindowGrid) -> bool:
    """Whether the windows that hold some thousand moments have the same numbers and edges in both."""
    moments = np.arange(EARLIEST_MS + 5 * DAY_MS, EARLIEST_MS + 4_000 * DAY_MS, 2 * DAY_MS + 7 * HOUR_MS + MINUTE_MS)
    numbers = one.numbers(moments)
    if not np.array_equal(numbers, other.numbers(moments)):
        return False
    return all((one.start_ms(n), one.end_ms(n)) == (other.start_ms(n), other.end_ms(n)) for n in set(numbers.tolist()))


@examples(300)
@given(any_grid, any_grid)
@example(
    WindowGrid(window_ms=6 * HOUR_MS, offset_ms=-3 * HOUR_MS), WindowGrid(window_ms=6 * HOUR_MS, offset_ms=3 * HOUR_MS)
)
@example(WindowGrid(window_ms=HOUR_MS), WindowGrid(window_ms=HOUR_MS, offset_ms=HOUR_MS))
@example(WindowGrid(window_ms=28 * DAY_MS), WindowGrid(window_ms=31 * DAY_MS))
def test_signatures_are_equal_exactly_where_numbers_and_edges_are(one: WindowGrid, other: WindowGrid) -> None:
    assert (one.signature == other.signature) == cuts_alike(one, other)


def shown(at_ms: int, zone: ZoneInfo) -> datetime:
    """What the shop's calendar and clock show."""
    return datetime.fromtimestamp(at_ms // 1000, zone).replace(tzinfo=None)


def start_of(day: date, clock: str, zone: ZoneInfo) -> int:
    """Walk through the minutes until the clock shows the time; where it never does, count from the day before."""
    wanted = datetime.combine(day, datetime.strptime(clock, "%H:%M").time())  # noqa: DTZ007 - the shop's clock
    around_ms = int(wanted.replace(tzinfo=UTC).timestamp() * 1000)
    for at_ms in range(around_ms - 15 * HOUR_MS, around_ms + 15 * HOUR_MS, MINUTE_MS):
        if shown(at_ms, zone) == wanted:
            return at_ms
    return start_of(day - timedelta(days=1), clock, zone) + DAY_MS


@examples(60)
@given(times | changes, zones, calendars, st.sampled_from(STARTS), st.sampled_from(WEEKDAYS))
def test_a_window_starts_at_the_shops_hour_of_the_shops_day(
    time_ms: int, timezone: str, window_ms: int, day_start: str, week_start: str
) -> None:
    week_start = week_start if window_ms == WEEK_MS else "monday"
    zone = ZoneInfo(timezone)
    grid = WindowGrid(window_ms=window_ms, timezone=timezone, day_start=day_start, week_start=week_start)
    day = local_day(time_ms, zone)
    if time_ms < start_of(day, day_start, zone):
        day -= timedelta(days=1)
    if window_ms == WEEK_MS:
        first = day - timedelta(days=(day.weekday() - WEEKDAYS.index(week_start)) % 7)
    else:
        first = first_day(day, window_ms)
    number = grid.number(time_ms)
    assert grid.start_ms(number) == start_of(first, day_start, zone)
    assert grid.start_ms(number) <= time_ms < grid.end_ms(number)
    if window_ms == DAY_MS:
        assert grid.phase(number) == day.weekday()
