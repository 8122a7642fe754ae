"""Each rule for outliers at its bound, below it and above it."""

from __future__ import annotations

import numpy as np
import pytest

from features.outliers import MOST_CLICKS, MOST_UNITS, cap_clicks, cap_squarable, cap_units, in_scales, is_absurd


@pytest.mark.parametrize(("usual", "bound"), [(4.0, 80.0), (1.0, 20.0), (0.02, 20.0)])
def test_units_count_up_to_twenty_times_the_usual_and_that_is_one_at_least(usual: float, bound: float) -> None:
    units = np.array([[0.0, bound, bound + 1, np.nan]], np.float32)
    found = cap_units(units, np.array([usual], np.float32))
    np.testing.assert_array_equal(found, np.array([[0.0, bound, bound, np.nan]], np.float32))
    assert found.dtype == np.float32
    assert cap_units(units[0, 2:3], np.array([usual], np.float32)).tolist() == [bound]


def test_the_largest_units_have_a_square_and_the_largest_clicks_are_a_billion() -> None:
    units = cap_squarable(np.array([5.0, 1e30], np.float32))
    assert units.tolist() == [5.0, np.float32(MOST_UNITS)]
    assert np.isfinite(units * units).all()
    assert cap_clicks(np.array([5, 1 << 62])).tolist() == [5, MOST_CLICKS]


def test_the_model_is_shown_units_between_none_and_twenty_scales() -> None:
    units, scale = np.array([-1.0, 0.0, 39.0, 41.0, 1.0]), np.array([2.0, 2.0, 2.0, 2.0, 0.05])
    assert in_scales(units, scale).tolist() == [0.0, 0.0, 19.5, 20.0, 20.0]


@pytest.mark.parametrize(("largest", "bound"), [(10.0, 500.0), (0.5, 50.0), (np.nan, 50.0)])
def test_a_forecast_is_absurd_beyond_fifty_times_the_largest_window_and_that_is_one_at_least(
    largest: float, bound: float
) -> None:
    ring = np.array([[np.nan, largest], [np.nan, largest]])
    mean = np.array([[1.0, bound], [bound + 1, 1.0]])
    assert is_absurd(mean, ring).tolist() == [False, True]
