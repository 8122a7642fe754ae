"""Windows against the calendar: days of 23, 24 and 25 hours, weeks from Monday, months, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from features.cadence import DAY_MS, HOUR_MS, MINUTE_MS, MONTH_MS, WEEK_MS
from features.grid import EARLIEST_MS, WEEKDAYS, WindowGrid
from schemas.errors import BadSetting


def utc_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def window(grid: WindowGrid, text: str) -> tuple[int, int]:
    """Start and end of the window that holds a UTC time."""
    number = grid.number(utc_ms(text))
    return grid.start_ms(number), grid.end_ms(number)


@pytest.mark.parametrize(
    ("timezone", "noon_utc", "starts_utc", "hours"),
    [
        ("UTC", "2024-03-10T12:00", "2024-03-10T00:00", 24),
        ("Europe/London", "2011-03-27T12:00", "2011-03-27T00:00", 23),
        ("Europe/London", "2011-10-30T12:00", "2011-10-29T23:00", 25),
        ("Europe/London", "2011-10-31T12:00", "2011-10-31T00:00", 24),
        ("America/New_York", "2024-03-10T17:00", "2024-03-10T05:00", 23),
        ("America/New_York", "2024-11-03T17:00", "2024-11-03T04:00", 25),
        ("Australia/Lord_Howe", "2024-04-07T01:00", "2024-04-06T13:00", 24.5),
        ("Australia/Lord_Howe", "2024-10-06T01:00", "2024-10-05T13:30", 23.5),
        ("Asia/Kolkata", "2024-03-10T06:00", "2024-03-09T18:30", 24),
        # the clock jumps from 24:00 to 01:00, so that this day has no midnight and starts at 01:00
        ("America/Sao_Paulo", "2018-11-04T15:00", "2018-11-04T03:00", 23),
        # the clock goes back from 24:00 to 23:00 of the same Saturday
        ("America/Sao_Paulo", "2018-02-17T15:00", "2018-02-17T02:00", 25),
        # this Sunday's first hour happens twice
        ("America/Havana", "2024-11-03T15:00", "2024-11-03T04:00", 25),
    ],
)
def test_a_day_is_as_long_as_the_shops_clock_says(timezone: str, noon_utc: str, starts_utc: str, hours: float) -> None:
    start, end = window(WindowGrid(timezone=timezone), noon_utc)
    assert start == utc_ms(starts_utc)
    assert (end - start) / HOUR_MS == hours


@pytest.mark.parametrize(
    ("timezone", "noon_utc", "hours"),
    [
        ("Europe/London", "2011-03-27T12:00", 167),
        ("Europe/London", "2011-10-30T12:00", 169),
        ("UTC", "2024-02-29", 168),
    ],
)
def test_a_week_runs_from_monday_to_monday(timezone: str, noon_utc: str, hours: int) -> None:
    start, end = window(WindowGrid(window_ms=WEEK_MS, timezone=timezone), noon_utc)
    assert end - start == hours * HOUR_MS
    for edge in (start, end):
        local = datetime.fromtimestamp(edge / 1000, ZoneInfo(timezone))
        assert (local.weekday(), local.hour, local.minute) == (0, 0, 0)


@pytest.mark.parametrize("nominal_days", [28, 29, 30, 31])
def test_a_month_is_a_calendar_month_whatever_its_nominal_length(nominal_days: int) -> None:
    grid = WindowGrid(window_ms=nominal_days * DAY_MS)
    assert window(grid, "2024-02-29T23:59") == (utc_ms("2024-02-01"), utc_ms("2024-03-01"))
    assert window(grid, "2023-12-31T12:00") == (utc_ms("2023-12-01"), utc_ms("2024-01-01"))
    assert grid.number(utc_ms("2024-01-01")) - grid.number(utc_ms("2023-01-01")) == 12


def test_a_date_that_a_country_skipped_has_no_window() -> None:
    grid = WindowGrid(timezone="Pacific/Apia")  # 2011-12-29 was followed by 2011-12-31
    before = grid.number(utc_ms("2011-12-29T22:00"))
    assert grid.number(utc_ms("2011-12-30T11:00")) == before + 1
    assert grid.end_ms(before) - grid.start_ms(before) == DAY_MS
    assert (grid.phase(before), grid.phase(before + 1)) == (3, 5)


@pytest.mark.parametrize("timezone", ["UTC", "America/Sao_Paulo", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("window_ms", [DAY_MS, WEEK_MS, MONTH_MS])
def test_the_earliest_admissible_time_lies_in_a_window_everywhere(window_ms: int, timezone: str) -> None:
    grid = WindowGrid(window_ms=window_ms, timezone=timezone)
    number = grid.number(EARLIEST_MS)
    assert number >= 0
    assert grid.start_ms(number) <= EARLIEST_MS < grid.end_ms(number)


@pytest.mark.parametrize("window_ms", [DAY_MS, WEEK_MS, MONTH_MS])
def test_windows_reach_to_the_last_moment_before_2100(window_ms: int) -> None:
    grid = WindowGrid(window_ms=window_ms)
    last_ms = utc_ms("2100-01-01") - 1
    number = grid.number(last_ms)
    assert grid.start_ms(number) <= last_ms < grid.end_ms(number)


def test_windows_below_a_day_are_aligned_to_the_epoch_plus_the_offset() -> None:
    plain = WindowGrid(window_ms=HOUR_MS)
    assert window(plain, "2024-03-10T02:59:59.999") == (utc_ms("2024-03-10T02:00"), utc_ms("2024-03-10T03:00"))
    shifted = WindowGrid(window_ms=HOUR_MS, offset_ms=15 * MINUTE_MS)
    assert window(shifted, "2024-03-10T02:14:59.999") == (utc_ms("2024-03-10T01:15"), utc_ms("2024-03-10T02:15"))


def test_time_zones_do_not_move_windows_below_a_day() -> None:
    times = np.arange(utc_ms("2011-03-26"), utc_ms("2011-03-29"), 17 * MINUTE_MS)
    here, there = (WindowGrid(window_ms=HOUR_MS, timezone=zone) for zone in ("UTC", "Europe/London"))
    np.testing.assert_array_equal(here.numbers(times), there.numbers(times))
    assert here.signature == there.signature


@pytest.mark.parametrize(
    ("settings", "found", "setting"),
    [
        ({"window_ms": 0}, "0 ms", "SKUTREND_WINDOW_MS"),
        ({"window_ms": -DAY_MS}, "-86400000 ms", "SKUTREND_WINDOW_MS"),
        ({"window_ms": MINUTE_MS - 1}, "59999 ms", "SKUTREND_WINDOW_MS"),
        ({"window_ms": 7 * HOUR_MS}, "25200000 ms", "SKUTREND_WINDOW_MS"),
        ({"window_ms": DAY_MS - 1}, "86399999 ms", "SKUTREND_WINDOW_MS"),
        ({"window_ms": DAY_MS + 1}, "86400001 ms", "SKUTREND_WINDOW_MS"),
        ({"window_ms": 2 * DAY_MS}, "172800000 ms", "SKUTREND_WINDOW_MS"),
        ({"window_ms": 28 * DAY_MS - 1}, "2419199999 ms", "SKUTREND_WINDOW_MS"),
        ({"window_ms": 31 * DAY_MS + 1}, "2678400001 ms", "SKUTREND_WINDOW_MS"),
        ({"timezone": "Europe/Londinium"}, "'Europe/Londinium'", "SKUTREND_TIMEZONE"),
        ({"timezone": ""}, "''", "SKUTREND_TIMEZONE"),
        ({"timezone": "Europe"}, "'Europe'", "SKUTREND_TIMEZONE"),
        ({"timezone": "../UTC"}, "'../UTC'", "SKUTREND_TIMEZONE"),
        ({"timezone": "UTC\0"}, r"'UTC\x00'", "SKUTREND_TIMEZONE"),
        ({"day_start": "4:00"}, "'4:00'", "SKUTREND_DAY_START"),
        ({"day_start": "24:00"}, "'24:00'", "SKUTREND_DAY_START"),
        ({"day_start": "04:00:00"}, "'04:00:00'", "SKUTREND_DAY_START"),
        ({"week_start": "Sunday"}, "'Sunday'", "SKUTREND_WEEK_START"),
        # what these windows could not heed
        ({"offset_ms": HOUR_MS}, "is 3600000", "SKUTREND_WINDOW_OFFSET_MS"),
        ({"window_ms": WEEK_MS, "offset_ms": -DAY_MS}, "is -86400000", "SKUTREND_WINDOW_OFFSET_MS"),
        ({"window_ms": HOUR_MS, "day_start": "04:00"}, "is 04:00", "SKUTREND_DAY_START"),
        ({"week_start": "sunday"}, "is sunday", "SKUTREND_WEEK_START"),
        ({"window_ms": MONTH_MS, "week_start": "sunday"}, "is sunday", "SKUTREND_WEEK_START"),
    ],
)
def test_a_grid_that_cannot_tile_the_calendar_is_refused_by_setting_and_value(
    settings: dict[str, int | str], found: str, setting: str
) -> None:
    with pytest.raises(BadSetting) as refusal:
        WindowGrid(**settings)  # type: ignore[arg-type]
    assert setting in str(refusal.value)
    assert found in str(refusal.value)


@pytest.mark.parametrize(
    ("window_ms", "season", "season_windows"),
    [
        (MINUTE_MS, 7 * 48, 1440),
        (30 * MINUTE_MS, 7 * 48, 48),
        (HOUR_MS, 7 * 24, 24),
        (12 * HOUR_MS, 7 * 2, 2),
        (DAY_MS, 7, 7),
        (WEEK_MS, 1, 1),
    ],
)
def test_a_season_is_a_week_of_short_windows_or_of_days(window_ms: int, season: int, season_windows: int) -> None:
    grid = WindowGrid(window_ms=window_ms)
    assert (grid.season_length, grid.season_windows) == (season, season_windows)
    first = grid.number(utc_ms("2024-03-10"))
    phases = [grid.phase(first + i) for i in range(7 * season_windows if grid.is_fixed else season_windows)]
    assert sorted(set(phases)) == list(range(season))
    assert len({phases.count(phase) for phase in range(season)}) == 1


def test_hours_have_the_phase_of_their_place_in_the_utc_week() -> None:
    grid = WindowGrid(window_ms=HOUR_MS)
    for weekday, day in enumerate(range(4, 11)):  # 4 March 2024 is a Monday
        phases = [grid.phase(grid.number(utc_ms(f"2024-03-{day:02d}T{hour:02d}:30"))) for hour in range(24)]
        assert phases == list(range(24 * weekday, 24 * weekday + 24))


@pytest.mark.parametrize("timezone", ["Europe/London", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata"])
def test_monday_is_phase_0_in_every_week_of_ten_years(timezone: str) -> None:
    grid = WindowGrid(timezone=timezone)
    first = grid.number(utc_ms("2010-01-03T23:00"))
    day = datetime.fromtimestamp(grid.start_ms(first) / 1000, ZoneInfo(timezone)).date()
    for i in range(3653):
        assert grid.phase(first + i) == (day + timedelta(days=i)).weekday(), day + timedelta(days=i)


def test_two_grids_that_cut_time_differently_have_different_signatures() -> None:
    grids = [
        WindowGrid(),
        WindowGrid(timezone="Europe/London"),
        WindowGrid(window_ms=WEEK_MS),
        WindowGrid(window_ms=HOUR_MS),
        WindowGrid(window_ms=HOUR_MS, offset_ms=MINUTE_MS),
    ]
    assert len({grid.signature for grid in grids}) == len(grids)


def test_state_that_was_stored_for_an_offset_modulo_the_length_is_not_taken_for_this_grids() -> None:
    once = "window_ms=21600000 offset_ms=10800000"  # written for +3 h and for -3 h, whose numbers differ by one
    for hours in (-3, 3):
        grid = WindowGrid(window_ms=6 * HOUR_MS, offset_ms=hours * HOUR_MS)
        assert grid.signature not in (once, WindowGrid(window_ms=6 * HOUR_MS, offset_ms=-hours * HOUR_MS).signature)
    assert WindowGrid(window_ms=HOUR_MS).signature == "window_ms=3600000 offset_ms=0"


@pytest.mark.parametrize(
    ("timezone", "day_start", "noon_utc", "starts_utc", "hours"),
    [
        ("Europe/London", "04:00", "2011-03-27T02:30", "2011-03-26T04:00", 23),  # before four it is the day before
        ("Europe/London", "04:00", "2011-10-30T03:30", "2011-10-29T03:00", 25),
        # 02:30 is left out that night: the day starts as much later as the clock was put forward, at 03:30
        ("America/New_York", "02:30", "2024-03-10T17:00", "2024-03-10T07:30", 23),
        ("America/New_York", "02:30", "2024-03-10T07:00", "2024-03-09T07:30", 24),
        # 01:30 comes twice that night: the day starts at the first
        ("America/New_York", "01:30", "2024-11-03T17:00", "2024-11-03T05:30", 25),
        # a day that its zone left out is no window, wherever days start
        ("Pacific/Apia", "04:00", "2011-12-30T13:00", "2011-12-29T14:00", 24),
    ],
)
def test_a_day_may_start_at_another_time_than_midnight(
    timezone: str, day_start: str, noon_utc: str, starts_utc: str, hours: float
) -> None:
    start, end = window(WindowGrid(timezone=timezone, day_start=day_start), noon_utc)
    assert start == utc_ms(starts_utc)
    assert (end - start) / HOUR_MS == hours


def test_a_week_may_start_on_another_day_and_hour_and_a_month_at_another_hour() -> None:
    week = WindowGrid(window_ms=WEEK_MS, timezone="Europe/London", day_start="04:00", week_start="sunday")
    assert window(week, "2011-03-27T02:59") == (utc_ms("2011-03-20T04:00"), utc_ms("2011-03-27T03:00"))
    month = WindowGrid(window_ms=MONTH_MS, day_start="04:00")
    assert window(month, "2024-03-01T03:59") == (utc_ms("2024-02-01T04:00"), utc_ms("2024-03-01T04:00"))


@pytest.mark.parametrize("week_start", WEEKDAYS)
@pytest.mark.parametrize("timezone", ["Etc/GMT+12", "Pacific/Kiritimati"])
@pytest.mark.parametrize("window_ms", [DAY_MS, WEEK_MS, MONTH_MS])
def test_windows_reach_back_to_2000_wherever_they_start(window_ms: int, timezone: str, week_start: str) -> None:
    starts = {"day_start": "23:59", "week_start": week_start if window_ms == WEEK_MS else "monday"}
    grid = WindowGrid(window_ms=window_ms, timezone=timezone, **starts)
    number = grid.number(EARLIEST_MS)
    assert number >= 0
    assert grid.start_ms(number) <= EARLIEST_MS < grid.end_ms(number)


def test_the_start_of_a_date_is_the_start_of_its_window() -> None:
    grid = WindowGrid(timezone="Europe/London", day_start="04:00")
    for day in (date(2011, 3, 26), date(2011, 3, 27), date(2011, 10, 30)):
        start_ms = grid.date_start_ms(day)
        assert grid.start_ms(grid.number(start_ms)) == start_ms
        assert datetime.fromtimestamp(start_ms / 1000, ZoneInfo("Europe/London")).date() == day
