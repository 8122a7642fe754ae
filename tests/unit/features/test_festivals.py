"""What festivals do to a shop is expected of them again, as far as it is more than chance."""

from __future__ import annotations

import math
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cadence import HORIZON
from features.festivals import Festivals
from features.grid import WindowGrid
from features.known_days import Festival, known
from features.season import SeasonProfile, context, profile_of

EVE = Festival("Christmas Day", -1)
CHINA = WindowGrid(timezone="Asia/Shanghai", country="CN")


def learnt(*seen: float, noise: float = 0.1) -> Festivals:
    """After two hundred ordinary days of so much noise, and an eve that sold so many times as much."""
    festivals = Festivals()
    for n in range(200):
        festivals.observe(None, sold=math.exp(noise * (-1) ** n), expected=1.0)
    for each in seen:
        festivals.observe(EVE, sold=100 * each, expected=100)
    return festivals


def test_what_never_came_has_no_effect() -> None:
    assert Festivals().effect(EVE) == learnt().effect(EVE) == learnt(3.0).effect(None) == 1
    assert learnt(3.0).effect(Festival("Christmas Day", -2)) == 1


def test_a_large_effect_is_expected_again_and_one_like_chance_is_not() -> None:
    assert learnt(3.0).effect(EVE) == pytest.approx(3.0, rel=0.08)
    assert learnt(1 / 3).effect(EVE) == pytest.approx(1 / 3, rel=0.08)
    assert learnt(1.1).effect(EVE) == pytest.approx(1.0, rel=0.02)
    assert learnt(1.5, noise=0.5).effect(EVE) < 1.1 < learnt(1.5, noise=0.1).effect(EVE)


def test_what_comes_again_is_believed_more_and_the_last_three_times_count_most() -> None:
    once, thrice = learnt(1.4, noise=0.2), learnt(1.4, 1.4, 1.4, noise=0.2)
    assert 1 < once.effect(EVE) < thrice.effect(EVE) < 1.4
    turned = learnt(2.0, 2.0, 2.0, *[0.5] * 9, noise=0.1)
    assert turned.effect(EVE) == pytest.approx(0.5, rel=0.1)


def test_a_shop_above_its_level_for_other_reasons_is_no_effect() -> None:
    festivals = learnt()
    for _ in range(60):
        festivals.observe(None, sold=1.5, expected=1.0)
    festivals.observe(EVE, sold=1.5, expected=1.0)
    assert festivals.effect(EVE) == pytest.approx(1, rel=0.01)


@given(st.lists(st.tuples(st.booleans(), st.floats(1e-9, 1e24), st.floats(1e-9, 1e24)), max_size=30))
def test_no_effect_is_beyond_its_bounds(days: list[tuple[bool, float, float]]) -> None:
    festivals = Festivals()
    for is_eve, sold, expected in days:
        festivals.observe(EVE if is_eve else None, sold=sold, expected=expected)
        assert math.exp(-3) <= festivals.effect(EVE) <= math.exp(3)


def shop(until: date, *, rush: float) -> SeasonProfile:
    """A shop of 100 a day from May 2020, of so many times as much on five days before the spring festival."""
    season = profile_of(CHINA)
    day = date(2020, 5, 1)
    while day < until:
        number = CHINA.number(CHINA.date_start_ms(day))
        festival = known(CHINA, number).festival
        is_rush = festival is not None and festival.name.startswith("Chinese") and -6 <= festival.day < -1
        units = 100.0 * (rush if is_rush else 1)
        season.observe(phase=CHINA.phase(number), lines=50, units=units, festival=festival)
        day += timedelta(days=1)
    return season


def test_the_rush_before_a_moving_festival_is_foreseen_a_year_later() -> None:
    eve = date(2022, 1, 20)
    number = CHINA.number(CHINA.date_start_ms(eve))
    ahead = context(CHINA, shop(eve + timedelta(days=1), rush=3), number, is_open=True).season_next
    assert ahead[5:10] == pytest.approx([3] * 5, rel=0.1)  # 26 to 30 January
    assert np.r_[ahead[:5], ahead[10:]] == pytest.approx(np.ones(HORIZON - 5), rel=0.1)


def test_a_rush_that_was_foreseen_is_no_trend() -> None:
    for year, first in ((2021, date(2021, 2, 11)), (2022, date(2022, 1, 31))):
        rushed, calm = shop(first, rush=3), shop(first, rush=1)
        assert calm.trend == pytest.approx(0, abs=0.01)
        assert abs(rushed.trend) < 0.2, year
        assert rushed.level / rushed.weight == pytest.approx(100, rel=0.1)
