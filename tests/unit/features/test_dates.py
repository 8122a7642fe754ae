"""Times as people read them: whatever the clocks of the shop do, and whatever the machine speaks."""

from __future__ import annotations

import locale
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features import dates
from features.cadence import DAY_MS, HOUR_MS, MINUTE_MS, MONTH_MS
from features.grid import WindowGrid
from tests.support.examples import examples

ZONES = ("UTC", "Europe/London", "Asia/Tokyo", "America/New_York", "Australia/Lord_Howe", "America/Havana")


def at_ms(text: str, timezone: str, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone), fold=fold).timestamp() * 1000)


def hour(text: str, timezone: str, fold: int = 0, *, window_ms: int = HOUR_MS, offset_ms: int = 0) -> str:
    grid = WindowGrid(window_ms=window_ms, timezone=timezone, offset_ms=offset_ms)
    start_ms = at_ms(text, timezone, fold)
    assert grid.start_ms(grid.number(start_ms)) == start_ms
    return dates.during(grid, start_ms, start_ms + window_ms)


@pytest.mark.parametrize(
    ("text", "timezone", "told"),
    [
        ("2011-08-03", "Europe/London", "Wednesday 3 August 2011"),
        ("2023-11-24", "Asia/Tokyo", "Friday 24 November 2023"),
        ("2023-11-24", "America/New_York", "Friday 24 November 2023"),
        ("2011-03-27", "Europe/London", "Sunday 27 March 2011"),
        ("2011-10-30", "Europe/London", "Sunday 30 October 2011"),
        ("2024-02-29", "America/New_York", "Thursday 29 February 2024"),
    ],
)
def test_a_day_is_the_shop_s(text: str, timezone: str, told: str) -> None:
    grid = WindowGrid(timezone=timezone)
    number = grid.number(at_ms(text, timezone))
    assert dates.day(grid.start_ms(number), timezone) == told
    assert dates.day(grid.end_ms(number) - 1, timezone) == told
    assert dates.during(grid, grid.start_ms(number), grid.end_ms(number)) == f"on {told}"
    assert dates.short_day(grid.end_ms(number) - 1, timezone) == text


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (hour("2011-08-03T14:00", "Europe/London"), "on Wednesday 3 August 2011 from 14:00 to 15:00 (Europe/London)"),
        (hour("2011-08-03T23:00", "Asia/Tokyo"), "on Wednesday 3 August 2011 from 23:00 to 24:00 (Asia/Tokyo)"),
        (hour("2011-08-03T00:00", "UTC"), "on Wednesday 3 August 2011 from 00:00 to 01:00 (UTC)"),
        (
            hour("2011-08-03T20:00", "America/New_York", window_ms=6 * HOUR_MS),
            "from Wednesday 3 August 2011 at 20:00 to Thursday 4 August 2011 at 02:00 (America/New_York)",
        ),
        (
            hour("2011-08-03T00:00", "UTC", window_ms=90_000),
            "on Wednesday 3 August 2011 from 00:00 to 00:01:30 (UTC)",
        ),
        (
            hour("2011-08-03T12:30:15", "UTC", window_ms=12 * HOUR_MS, offset_ms=30 * MINUTE_MS + 15_000),
            "from Wednesday 3 August 2011 at 12:30:15 to Thursday 4 August 2011 at 00:30:15 (UTC)",
        ),
    ],
)
def test_anything_shorter_than_a_day_is_reported_by_the_clock(told: str, expected: str) -> None:
    assert told == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (hour("2011-10-30T00:00", "Europe/London"), "from 00:00 UTC+01:00 to 01:00 UTC+01:00 (Europe/London)"),
        (hour("2011-10-30T01:00", "Europe/London"), "from 01:00 UTC+01:00 to 01:00 UTC (Europe/London)"),
        (hour("2011-10-30T01:00", "Europe/London", 1), "from 01:00 UTC to 02:00 UTC (Europe/London)"),
        (hour("2011-03-27T00:00", "Europe/London"), "from 00:00 UTC to 02:00 UTC+01:00 (Europe/London)"),
        (hour("2023-11-05T01:00", "America/New_York"), "from 01:00 UTC-04:00 to 01:00 UTC-05:00 (America/New_York)"),
    ],
)
def test_a_clock_time_that_comes_twice_or_jumps_has_its_offset(told: str, expected: str) -> None:
    assert told.endswith(expected)


@examples(300)
@given(st.integers(978_307_200_000, 4_000_000_000_000), st.sampled_from(ZONES), st.sampled_from([15, 60, 360]))
@example(at_ms("2011-10-30T01:00", "Europe/London", 1), "Europe/London", 15)
@example(at_ms("2011-11-06T01:30", "America/Havana", 0), "America/Havana", 60)
def test_two_windows_are_never_told_alike(time_ms: int, timezone: str, minutes: int) -> None:
    grid = WindowGrid(window_ms=minutes * MINUTE_MS, timezone=timezone)
    number = grid.number(time_ms)
    around = range(number - DAY_MS // grid.window_ms, number + DAY_MS // grid.window_ms)
    told = [dates.during(grid, grid.start_ms(n), grid.end_ms(n)) for n in around]
    assert len(set(told)) == len(told)
    names = [dates.window(grid, grid.start_ms(n)) for n in around]
    assert len(set(names)) == len(names)


@examples(200)
@given(st.integers(978_307_200_000, 4_000_000_000_000), st.sampled_from(ZONES))
@example(at_ms("2011-10-30T01:30", "Europe/London", 1), "Europe/London")
def test_a_stamp_can_be_read_back(time_ms: int, timezone: str) -> None:
    text = dates.stamp(time_ms, timezone)
    day, clock, offset = text.split(" ")
    sign, hours, minutes = (offset[3:4] or "+"), int(offset[4:6] or 0), int(offset[7:9] or 0)
    shift = timedelta(hours=hours, minutes=minutes) * (-1 if sign == "-" else 1)
    read = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC) - shift
    assert read.timestamp() == time_ms // 1000


@pytest.mark.parametrize("time_ms", [10**18, -(10**18), 2**62, 253_402_300_799_999])
def test_what_no_calendar_has_stays_a_number(time_ms: int) -> None:
    grids = (WindowGrid(timezone="Asia/Tokyo"), WindowGrid(window_ms=HOUR_MS, timezone="Asia/Tokyo"))
    told = [dates.day(time_ms, "Asia/Tokyo"), dates.stamp(time_ms, "Asia/Tokyo")]
    told += [dates.during(grid, time_ms, time_ms + 1) for grid in grids]
    assert all(f"{time_ms} ms" in text for text in told)


def test_names_do_not_depend_on_the_locale_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("LC_TIME", "de_DE.UTF-8")
    before = locale.setlocale(locale.LC_TIME)
    try:
        locale.setlocale(locale.LC_TIME, "")
        months = [dates.day(at_ms(f"2024-{month:02}-01", "UTC"), "UTC").split()[2] for month in range(1, 13)]
    finally:
        locale.setlocale(locale.LC_TIME, before)
    assert months == ("January February March April May June July August September October November December".split())


@pytest.mark.parametrize("month", range(1, 13))
def test_a_month_is_named_with_its_year(month: int) -> None:
    grid = WindowGrid(window_ms=MONTH_MS, timezone="Europe/London")
    start = datetime(2011, month, 1, tzinfo=ZoneInfo("Europe/London"))
    names = "January February March April May June July August September October November December".split()
    assert dates.window(grid, int(start.timestamp()) * 1_000) == f"{names[month - 1]} 2011"
