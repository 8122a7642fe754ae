"""Change points: rarely claimed where there are none, found where demand doubles for good."""

from __future__ import annotations

import numpy as np
import pytest

from features.cadence import RING
from inference.level_shift import shifts

N = 20_000
OLD = np.full(N, RING)


def negative_binomial(rng: np.random.Generator, mean: float, size: float) -> np.ndarray:
    return rng.poisson(mean * rng.gamma(size, 1 / size, (N, RING))).astype(np.float32)


@pytest.mark.parametrize(("mean", "size"), [(0.1, 100), (1, 100), (20, 100), (1, 0.3), (10, 1), (50, 10)])
def test_of_skus_on_one_level_it_is_hardly_ever_claimed(mean: float, size: float) -> None:
    found = shifts(negative_binomial(np.random.default_rng(1), mean, size), age=OLD)
    assert (found != 0).mean() < 0.004


def test_it_is_found_where_fast_skus_sell_twice_or_half_as_much_for_two_weeks() -> None:
    rng = np.random.default_rng(2)
    units = negative_binomial(rng, 50, 10)
    more, less = units.copy(), units.copy()
    more[:, -14:] += negative_binomial(rng, 50, 10)[:, -14:]
    less[:, :-14] += negative_binomial(rng, 50, 10)[:, :-14]
    assert (shifts(more, age=OLD) == 1).mean() > 0.95
    assert (shifts(less, age=OLD) == -1).mean() > 0.5


def test_one_week_is_a_spike_and_no_level() -> None:
    units = np.full((1, RING), 10.0)
    units[:, -7:] = 100
    assert shifts(units, age=np.array([RING])).tolist() == [0]
    units[:, -14:] = 100
    assert shifts(units, age=np.array([RING])).tolist() == [1]
    assert shifts(units, age=np.array([RING - 1])).tolist() == [0], "nobody knows what it sold before"


def test_closed_days_are_no_change_and_the_first_sales_no_new_level() -> None:
    units = np.full((2, RING), 10.0)
    units[:, 6::7] = np.nan
    units[1] = 0
    units[1, [-1, -8]] = 1
    assert shifts(units, age=np.full(2, RING)).tolist() == [0, 0]
