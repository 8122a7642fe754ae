"""A shop's season against the means one would take of its list of windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.season import SeasonProfile
from tests.support.closings import ewma
from tests.support.examples import examples

phases = st.integers(0, 6)
amounts = st.one_of(st.just(0.0), st.integers(0, 60).map(float), st.sampled_from([1e-9, 1e12, 1e24]))


@examples(100)
@given(st.lists(st.tuples(phases, amounts, amounts), max_size=60))
def test_index_and_trend_stay_within_their_bounds_whatever_is_sold(story: list[tuple[int, float, float]]) -> None:
    season = SeasonProfile(7)
    for phase, lines, units in story:
        assert season.observe(phase=phase, lines=lines, units=units) or lines == 0
        index = season.index(np.arange(7))
        assert ((index == 0) | ((index >= np.float32(0.2)) & (index <= 5))).all()
        assert (index[season.visits == 0] == 1).all()
        assert -2 <= season.trend <= 2
        assert season.fast >= 0
        assert season.slow >= 0


def phase_mean(values: list[float]) -> float:
    """Plain mean of the first six, from there each new one counts a sixth."""
    first, rest = values[:6], values[6:]
    return (5 / 6) ** len(rest) * sum(first) / len(first) + ewma(rest, 1 / 6)


@examples(60)
@given(st.lists(st.tuples(phases, st.integers(1, 60), st.integers(0, 60)), max_size=120))
def test_a_phase_is_the_mean_of_its_own_windows(story: list[tuple[int, int, int]]) -> None:
    season = SeasonProfile(7)
    history: dict[int, list[tuple[int, int]]] = {}
    for phase, lines, units in story:
        season.observe(phase=phase, lines=lines, units=units)
        history.setdefault(phase, []).append((lines, units))
    assert season.open_windows == len(story)
    for phase in range(7):
        own = history.get(phase, [])
        assert season.visits[phase] == len(own)
        for found, at in ((season.lines, 0), (season.units, 1)):
            want = phase_mean([float(window[at]) for window in own]) if own else 0.0
            assert found[phase] == pytest.approx(want, rel=1e-9, abs=1e-12)


@examples(60)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_without_a_season_the_levels_are_means_of_the_open_windows(units: list[int]) -> None:
    season = SeasonProfile(1)
    for sold in units:
        season.observe(phase=0, lines=10, units=sold)
        # one phase is its own average: nothing to take out
        assert season.index(np.zeros(1, np.int64))[0] == 1
    first = units[:5]
    fast = (4 / 5) ** len(units[5:]) * sum(first) / len(first) + ewma([float(u) for u in units[5:]], 1 / 5)
    assert season.fast == pytest.approx(fast, rel=1e-6, abs=1e-9)
    assert season.slow == pytest.approx(sum(units) / len(units), rel=1e-6, abs=1e-9)
