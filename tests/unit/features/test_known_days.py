"""What is known of days in advance: by real calendars, and by the shop's own list."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest

from features.cadence import HOUR_MS, WEEK_MS
from features.encoding import CALENDAR, encode_calendar
from features.grid import WindowGrid
from features.known_days import Festival, KnownWindow, check_country, known
from features.season import SeasonProfile, context
from schemas.errors import BadSetting


def day(grid: WindowGrid, year: int, month: int, of_month: int, hour: int = 12) -> KnownWindow:
    return known(grid, grid.number(datetime(year, month, of_month, hour, tzinfo=UTC).timestamp() * 1000))


def test_a_single_holiday_weighs_half_of_a_long_one() -> None:
    china = WindowGrid(timezone="Asia/Shanghai", country="CN")
    assert [day(china, 2022, 2, of_month, 3).holiday for of_month in (1, 2, 3)] == [1, 1, 1]  # the spring festival
    assert day(china, 2022, 6, 3, 3).holiday == 0.5  # the dragon boat festival
    assert day(china, 2022, 3, 9, 3) == KnownWindow(False, 0, 0, pytest.approx(67 / 365.25))


def test_eves_tell_of_the_holidays_after_them() -> None:
    china = WindowGrid(timezone="Asia/Shanghai", country="CN")
    eves = [day(china, 2021, 2, of_month, 3).eve for of_month in range(5, 12)]
    assert eves == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 0])  # of 11 February, the first of seven days off
    assert day(WindowGrid(country="GB"), 2011, 5, 1).eve == 0.5  # of a single Monday


def test_movable_feasts_move() -> None:
    germany = WindowGrid(country="DE")
    assert day(germany, 2023, 4, 7).holiday == day(germany, 2024, 3, 29).holiday == 0.5
    assert day(germany, 2024, 4, 7).holiday == 0


def test_a_part_of_a_country_has_holidays_of_its_own() -> None:
    assert day(WindowGrid(country="DE-BY"), 2025, 1, 6).holiday == 0.5
    assert day(WindowGrid(country="DE"), 2025, 1, 6).holiday == 0


def test_a_working_day_between_a_holiday_and_a_weekend_is_half_of_one() -> None:
    germany = WindowGrid(country="DE")
    assert day(germany, 2024, 5, 9).holiday == 0.5  # ascension, a Thursday
    assert day(germany, 2024, 5, 10).holiday == 0.5
    assert day(germany, 2024, 5, 13).holiday == 0


def test_unofficial_days_weigh_half() -> None:
    assert day(WindowGrid(country="US"), 2015, 5, 10).holiday == 0.5  # mother's day


def test_days_near_a_festival_are_named_after_it_wherever_it_lies_in_the_year() -> None:
    china = WindowGrid(timezone="Asia/Shanghai", country="CN")
    spring = "Chinese New Year (Spring Festival)"
    # 11 and 17 February 2021 were days off only, for days on which people worked, and the 15th and 16th for a weekend
    for first, last, before in (
        ((2021, 2, 12), (2021, 2, 14), (2021, 2, 5)),
        ((2022, 2, 1), (2022, 2, 3), (2022, 1, 25)),
    ):
        assert day(china, *first, 3).festival == Festival(spring, 0)
        assert day(china, *last, 3).festival == Festival(spring, last[2] - first[2])
        assert day(china, last[0], last[1], last[2] + 3, 3).festival == Festival(spring, last[2] - first[2] + 3)
        assert day(china, last[0], last[1], last[2] + 4, 3).festival is None
        assert day(china, *before, 3).festival == Festival(spring, -7)
        assert day(china, before[0], before[1], before[2] - 1, 3).festival is None


def test_between_two_festivals_the_next_one_counts() -> None:
    britain = WindowGrid(country="GB")
    names = [day(britain, 2011, 12, of_month).festival for of_month in (24, 25, 26, 27, 28, 31)]
    assert names == [
        ("Christmas Day", -1), ("Christmas Day", 0), ("Boxing Day", 0), ("New Year's Day", -5), ("New Year's Day", -4),
        ("New Year's Day", -1),
    ]  # fmt: skip
    # Christmas Day on a Saturday: the 27th and 28th are days off for it and for Boxing Day, no second ones
    assert [day(britain, 2021, 12, of_month).festival for of_month in (25, 26, 27)] == [
        ("Christmas Day", 0), ("Boxing Day", 0), ("New Year's Day", -5),
    ]  # fmt: skip


def test_windows_that_are_no_days_have_no_festivals() -> None:
    for window_ms in (HOUR_MS, WEEK_MS):
        assert day(WindowGrid(country="GB", window_ms=window_ms), 2011, 12, 25).festival is None


def test_a_country_whose_holidays_have_no_english_names_has_those_of_its_own() -> None:
    assert all(day(WindowGrid(country=code), 2026, 1, 1).festival for code in ("DE", "FR", "JP", "BR", "AU", "ES-MD"))


def test_without_a_country_there_are_only_the_days_the_shop_names() -> None:
    grid = WindowGrid(closing_days=frozenset([date(2026, 12, 25)]))
    assert day(grid, 2026, 12, 25) == KnownWindow(True, 0, 0, pytest.approx(358 / 365.25))
    assert not day(grid, 2026, 12, 24).is_closed


def test_an_unknown_country_is_refused_in_words() -> None:
    check_country("")
    check_country("GB")
    for country in ("XX", "DE-XX"):
        with pytest.raises(BadSetting, match=f"SKUTREND_COUNTRY is '{country}'"):
            check_country(country)


def test_hours_have_the_day_they_are_of_and_weeks_the_most_of_theirs() -> None:
    hours = WindowGrid(window_ms=HOUR_MS, timezone="Europe/Berlin", country="DE")
    assert day(hours, 2024, 12, 25, 22).holiday == 0.5  # 23:00 in Berlin
    assert day(hours, 2024, 12, 29, 23).holiday == 0
    weeks = WindowGrid(window_ms=WEEK_MS, country="DE", closing_days=frozenset([date(2024, 12, 25)]))
    assert day(weeks, 2024, 12, 24).holiday == 0.5
    assert not day(weeks, 2024, 12, 24).is_closed


def test_a_day_that_starts_at_four_is_that_of_its_first_hour() -> None:
    grid = WindowGrid(day_start="04:00", closing_days=frozenset([date(2024, 5, 2)]))
    assert day(grid, 2024, 5, 3, 2).is_closed
    assert not day(grid, 2024, 5, 2, 2).is_closed


def test_what_is_known_says_not_where_windows_lie() -> None:
    plain = WindowGrid()
    told = WindowGrid(country="GB", closing_days=frozenset([date(2026, 12, 25)]))
    assert told.signature == plain.signature
    assert told.number(10**12) == plain.number(10**12)


def test_nothing_is_expected_of_a_day_that_the_shop_is_closed() -> None:
    grid = WindowGrid(closing_days=frozenset([date(2024, 5, 3)]))
    season = SeasonProfile(7)
    number = grid.number(datetime(2024, 5, 1, tzinfo=UTC).timestamp() * 1000)
    for back in range(60, -1, -1):
        season.observe(phase=grid.phase(number - back), lines=50, units=200)
    told = context(grid, season, number, is_open=True)
    assert np.flatnonzero(told.season_next == 0).tolist() == np.flatnonzero(told.demand_next == 0).tolist() == [1]
    assert told.season_sums[0] == told.season_next[:7].sum() == pytest.approx(6, abs=0.5)
    shown = dict(zip(CALENDAR, encode_calendar(told).tolist(), strict=True))
    assert (shown["open_1"], shown["open_2"], shown["index_2"]) == (1, 0, -1)


def test_the_calendar_shows_what_comes() -> None:
    grid = WindowGrid(country="GB")
    number = grid.number(datetime(2011, 12, 22, tzinfo=UTC).timestamp() * 1000)
    shown = dict(zip(CALENDAR, encode_calendar(context(grid, SeasonProfile(7), number, is_open=True)), strict=True))
    assert [shown[f"holiday_{k}"] for k in range(1, 7)] == [0, 0, 1, 1, 1, 0]
    assert [shown[f"eve_{k}"] for k in range(1, 4)] == pytest.approx([0.8, 1, 0])
    assert shown["year_cos"] == pytest.approx(np.cos(2 * np.pi * 355 / 365.25), abs=1e-6)
