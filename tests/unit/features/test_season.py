"""What a shop's weekdays teach: closed ones, holidays, quiet ones, and the trend of the whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from features.cadence import HORIZON, HOUR_MS, SUM_WINDOWS
from features.grid import WindowGrid
from features.season import SeasonProfile, context, profile_of
from tests.support.closings import FIRST, GRID

WEEK = np.arange(7)


def weeks(
    count: int, *, lines: tuple[float, ...] = (40, 20, 20, 20, 20, 20, 0), units_per_line: float = 3
) -> SeasonProfile:
    """A shop after so many weeks of the same Monday to Sunday."""
    season = SeasonProfile(7)
    for _ in range(count):
        for phase, n in enumerate(lines):
            season.observe(phase=phase, lines=n, units=n * units_per_line)
    return season


def test_a_weekday_is_learnt_relative_to_the_average_open_one() -> None:
    index = weeks(50).index(WEEK)
    usual = 140 / 6
    assert index[0] == pytest.approx(1 + 50 / 53 * (40 / usual - 1), rel=1e-5)
    assert index[1:6] == pytest.approx(1 + 50 / 53 * (20 / usual - 1), rel=1e-5)
    assert index.dtype == np.float32


def test_a_weekday_that_never_sells_is_closed_and_has_index_0() -> None:
    season = weeks(2)
    assert season.index(WEEK)[6] == 0
    assert not season.is_open(phase=6, lines=0)
    assert not season.observe(phase=6, lines=0, units=0)
    assert season.index(np.array([6, 0, 6])).tolist()[::2] == [0, 0]


def test_a_weekday_that_never_sold_may_start_to() -> None:
    season = weeks(4)
    assert season.observe(phase=6, lines=20, units=60)
    assert season.index(WEEK)[6] > 0.2


def test_a_holiday_is_closed_and_does_not_unlearn_its_weekday() -> None:
    season = weeks(10)
    before = dataclasses.asdict(season)
    for _ in range(3):
        assert not season.observe(phase=0, lines=0, units=0)
    after = dataclasses.asdict(season)
    assert after.pop("missed")[0] == 3
    before.pop("missed")
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_a_weekday_on_which_the_shop_closes_for_good_is_unlearned() -> None:
    season = weeks(10)
    for _ in range(40):
        season.observe(phase=0, lines=0, units=0)
    assert season.index(WEEK)[0] == 0
    assert season.index(WEEK)[1] > 0.5


def test_in_a_small_shop_a_day_without_a_sale_is_an_open_day_and_is_learnt() -> None:
    season = weeks(10, lines=(5, 5, 5, 5, 5, 5, 0))
    assert season.observe(phase=0, lines=0, units=0)
    assert season.lines[0] == pytest.approx(5 * 5 / 6)
    assert season.index(WEEK)[0] < season.index(WEEK)[1]


def test_the_first_window_of_a_phase_is_open_only_if_it_sold() -> None:
    assert not SeasonProfile(7).is_open(phase=3, lines=0)
    assert SeasonProfile(7).is_open(phase=3, lines=1)


def test_an_unknown_phase_has_index_1() -> None:
    season = SeasonProfile(7)
    assert season.index(WEEK).tolist() == [1] * 7
    season.observe(phase=0, lines=10, units=10)
    season.observe(phase=1, lines=0, units=0)
    assert season.index(WEEK).tolist() == [1, 0, 1, 1, 1, 1, 1]


def test_a_shop_that_only_gives_away_has_index_1_everywhere() -> None:
    season = SeasonProfile(7)
    season.observe(phase=0, lines=10, units=0)
    assert season.index(WEEK).tolist() == [1] * 7


def test_one_week_is_hardly_believed_and_many_are() -> None:
    distances = [abs(weeks(n).index(WEEK)[0] - 1) for n in (1, 2, 5, 20)]
    assert distances == sorted(distances)
    assert distances[0] < 0.3 * distances[-1]


def test_the_trend_is_zero_at_first_and_then_says_how_much_more_is_sold_lately() -> None:
    assert SeasonProfile(7).trend == 0.0
    season = weeks(30)
    assert season.trend == pytest.approx(0, abs=0.02)
    for _ in range(2):
        for phase in range(6):
            season.observe(phase=phase, lines=200, units=600)
    assert season.trend > 0.5


@pytest.mark.parametrize(("before", "after", "trend"), [(0.0, 1e12, 2.0), (1e12, 0.0, -2.0)])
def test_the_trend_stops_at_two(before: float, after: float, trend: float) -> None:
    season = SeasonProfile(1)
    for units in [before] * 60 + [after] + [0.0] * (30 if after == 0 else 0):
        season.observe(phase=0, lines=1, units=units)
    assert season.trend == trend


def test_the_context_looks_ahead_over_the_next_windows_and_their_sums() -> None:
    season = weeks(20)
    wednesday = FIRST + 2
    around = context(GRID, season, wednesday, is_open=True)
    by_phase = season.index(WEEK)
    following = [by_phase[(2 + step) % 7] for step in range(1, HORIZON + 1)]
    assert around.season_next.tolist() == following
    assert around.season_sums.tolist() == pytest.approx([sum(following[:n]) for n in SUM_WINDOWS])
    assert (around.number, around.phase, around.index) == (wednesday, 2, by_phase[2])
    assert (around.start_ms, around.end_ms) == (GRID.start_ms(wednesday), GRID.end_ms(wednesday))
    assert (around.season_length, around.season_windows) == (7, 7)


def test_hours_have_a_season_of_a_week_and_come_again_after_a_day() -> None:
    grid = WindowGrid(window_ms=HOUR_MS)
    tuesday_6 = grid.number(1_299_456_000_000) + 30
    around = context(grid, profile_of(grid), tuesday_6, is_open=False)
    assert (around.season_length, around.season_windows, around.phase) == (7 * 24, 24, 30)
    assert (around.turn, around.is_open) == ((6, 24), False)


def shop_by_hours(weeks: int, *, sundays: float = 0.0, from_week: int = 0) -> SeasonProfile:
    """A shop that sells 10 units an hour from 8 to 20, on Sundays another share of that."""
    season = profile_of(WindowGrid(window_ms=HOUR_MS))
    for phase in range(7 * 24):
        for week in range(weeks):
            day, hour = divmod(phase, 24)
            sold = 10.0 * (8 <= hour < 20) * (sundays if day == 6 else 1)
            if week >= from_week:
                season.observe(phase=phase, lines=sold, units=sold)
    return season


def test_hours_of_a_day_that_is_new_are_as_those_of_the_others() -> None:
    season = profile_of(WindowGrid(window_ms=HOUR_MS))
    for phase in range(3 * 24):
        sold = 10.0 * (8 <= phase % 24 < 20)
        season.observe(phase=phase, lines=sold, units=sold)
    thursday = np.arange(3 * 24, 4 * 24)
    index, demand = season.index(thursday), season.demand(thursday)
    assert index.tolist() == [1.0 * (8 <= hour < 20) for hour in range(24)]
    assert (demand > 0).tolist() == (index > 0).tolist()


def test_hours_of_a_day_off_are_known_after_some_weeks() -> None:
    season = shop_by_hours(5)
    sunday, monday = np.arange(6 * 24, 7 * 24), np.arange(24)
    assert not season.index(sunday).any()
    assert not season.demand(sunday).any()
    assert season.index(monday)[8:20].min() > 0.9
    half = shop_by_hours(12, sundays=0.5)
    assert 0.4 < half.index(sunday)[12] / half.index(monday)[12] < 0.65
