"""Directions and their probability."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from features.cadence import LEVELS
from inference.trend import Belief, exceeds, trend

LADDER = np.array([[5.0, 10, 25, 50, 75, 90, 95]])


@pytest.mark.parametrize(
    ("value", "want"),
    [(5, 0.95), (50, 0.5), (60, 0.4), (95, 0.05), (0, 1.0), (2.5, 0.975), (115, 0.025), (135, 0.0), (1e9, 0.0)],
)
def test_the_distribution_is_the_quantiles_read_backwards(value: float, want: float) -> None:
    assert exceeds(LADDER, np.array([float(value)]))[0] == pytest.approx(want, abs=1e-6)


def test_it_is_close_to_the_law_the_quantiles_came_from() -> None:
    x = np.linspace(60, 140, 81)
    q = np.tile(np.asarray(norm.ppf(LEVELS, 100, 15)), (len(x), 1))
    np.testing.assert_allclose(exceeds(q, x), norm.sf(x, 100, 15), atol=0.03)


def test_a_sku_that_sells_nothing_is_flat() -> None:
    got = trend(np.zeros((1, 7)), last7=np.zeros(1), mean7=np.zeros(1), usual7=np.zeros(1), price=np.ones(1))
    assert (got.direction[0], got.probability[0]) == (0, 0.5)
    assert np.isnan(got.change_pct[0])


def test_equal_quantiles_are_a_point_mass_counted_half() -> None:
    q = np.array([[0.0, 0, 2, 2, 2, 5, 9]])
    # 2 holds the levels .25 to .75: .25 above it and half of the .5 on it
    assert exceeds(q, np.array([2.0]))[0] == pytest.approx(0.5)
    assert exceeds(q, np.array([0.0]))[0] == pytest.approx(0.95)


def test_directions_and_percentages() -> None:
    q = np.repeat(LADDER, 4, axis=0)
    last7 = np.array([100.0, 10, 50, 0])
    mean7, price = np.array([50.0, 20, 50, 50]), np.array([2.0, 0.5, 3, np.nan])
    got = trend(q, last7=last7, mean7=mean7, usual7=np.array([60.0, 15, 50, 1]), price=price)
    assert got.direction.tolist() == [-1, 1, 0, 1]
    assert got.change_pct[:3].tolist() == [-50, 100, 0]
    assert np.isnan(got.change_pct[3])
    assert got.change_units.tolist() == [-50, 10, 0, 50]
    assert got.change_money[:3].tolist() == [-100, 5, 0]
    assert np.isnan(got.change_money[3]), "nobody knows what it costs"
    assert got.usual_change_units.tolist() == [-10, 5, 0, 49]
    assert got.usual_change_money[:3].tolist() == [-20, 2.5, 0]
    assert np.isnan(got.usual_change_money[3])


def test_directions_are_claimed_of_what_is_believed() -> None:
    q, last7 = np.repeat(LADDER, 3, axis=0), np.array([10.0, 10, 95])
    rest = {"last7": last7, "mean7": np.full(3, 50.0), "usual7": np.full(3, 50.0), "price": np.ones(3)}
    surely, hardly = trend(q, **rest), trend(q, **rest, belief=Belief(np.array([1.0, 0.4, 0.4])))
    assert surely.direction.tolist() == [1, 1, -1]
    assert hardly.direction.tolist() == [1, 0, 0]
    assert hardly.probability[0] == surely.probability[0]
    assert 0.5 < hardly.probability[1] < surely.probability[1]
    assert surely.probability[2] < hardly.probability[2] < 0.5


def test_what_no_float_holds_is_bounded() -> None:
    got = trend(LADDER, last7=np.zeros(1), mean7=np.array([1e30]), usual7=np.zeros(1), price=np.array([1e30]))
    assert np.isfinite(got.change_money).all()


def test_no_quantile_is_certain() -> None:
    got = trend(
        np.full((1, 7), 12.0), last7=np.array([12.0]), mean7=np.array([12.0]), usual7=np.zeros(1), price=np.ones(1)
    )
    assert (got.direction[0], got.change_pct[0], got.probability[0]) == (0, 0, 0.5)
