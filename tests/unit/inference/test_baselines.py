"""The seasonal naive against the computation one would do by hand."""

from __future__ import annotations

import numpy as np
import pytest

from features.horizon import HORIZON, LEVELS, SUM_WINDOWS
from inference import baselines
from tests.support.judging import fresh

WEEK = np.arange(1.0, 8.0, dtype=np.float32)[None, :]
OPEN = np.ones(HORIZON, np.float32)
YES, NO = np.array([True]), np.array([False])


def test_the_next_windows_repeat_the_last_season() -> None:
    got = baselines.forecast(fresh(1), WEEK, OPEN, integer_units=YES)
    assert got.mean[0].tolist() == [1, 2, 3, 4, 5, 6, 7] * 2
    assert (got.quantiles[0] == got.mean[0][:, None]).all()
    assert got.sums[0, :, 3].tolist() == [28, 56]


def test_what_was_not_seen_is_the_mean_of_what_was() -> None:
    season = np.array([[np.nan, 2, np.nan, 4, 6, np.nan, np.nan], [np.nan] * 7], np.float32)
    assert baselines.values(season).tolist() == [[4, 2, 4, 4, 6, 4, 4] * 2, [0] * 14]


def test_a_shop_closed_on_sundays_sells_nothing_on_sundays() -> None:
    rows = fresh(1)
    rows["naive_theta"][0] = [-2, -1, -0.5, 0, 1, 3, 5]
    season = OPEN.copy()
    season[[6, 13]] = 0
    got = baselines.forecast(rows, WEEK, season, integer_units=NO)
    assert not got.quantiles[0, [6, 13]].any()
    assert not got.mean[0, [6, 13]].any()
    np.testing.assert_allclose(got.sums[0, 0], 21 + np.sqrt(6) * rows["naive_theta"][0], rtol=1e-6)
    np.testing.assert_allclose(got.sums[0, 1], 42 + np.sqrt(12) * rows["naive_theta"][0], rtol=1e-6)


def test_one_step_is_the_first_step() -> None:
    rng = np.random.default_rng(1)
    rows = fresh(50)
    rows["naive_theta"] = rng.normal(size=(50, len(LEVELS))).astype(np.float32)
    season = rng.poisson(3, (50, 7)).astype(np.float32)
    integer_units = rng.random(50) < 0.5
    whole = baselines.forecast(rows, season, OPEN, integer_units=integer_units)
    np.testing.assert_array_equal(baselines.one_step(rows, season, integer_units=integer_units), whole.quantiles[:, 0])
    assert whole.quantiles.shape == (50, HORIZON, len(LEVELS))
    assert whole.sums.shape == (50, len(SUM_WINDOWS), len(LEVELS))
    np.testing.assert_array_equal(whole.quantiles[integer_units], np.rint(whole.quantiles[integer_units]))
    assert (whole.quantiles[~integer_units] % 1 != 0).any()


def test_a_new_sku_whose_only_sale_was_absurd_gets_no_absurd_forecast_and_a_band() -> None:
    rows, usual = fresh(1), np.array([17.0], np.float32)
    week = np.array([[np.nan] * 6 + [80_995.0]], np.float32)
    before = baselines.tame(np.full((1, 7), np.nan, np.float32), usual)
    rows |= baselines.update(rows, baselines.tame(week[:, -1], usual), before, active=YES)
    got = baselines.forecast(rows, baselines.tame(week, usual), OPEN, integer_units=YES)
    assert got.mean[0].tolist() == [*[17] * 6, 340] * 2
    assert (got.quantiles[0, :, 0] < got.quantiles[0, :, -1]).all()
    assert got.sums[0, 0, 0] < got.sums[0, 0, 3] < got.sums[0, 0, -1]


def test_tracking_equals_the_loop_over_one_sku() -> None:
    rng = np.random.default_rng(2)
    n, windows = 5, 60
    sold = rng.negative_binomial(0.7, 0.2, (n, windows)).astype(np.float32)
    active = rng.random((windows, n)) < 0.9
    rows = fresh(n)
    for t in range(7, windows):
        rows |= baselines.update(rows, sold[:, t], sold[:, t - 7 : t], active=active[t])
    for i in range(n):
        theta, spread, seen = np.zeros(len(LEVELS)), 0.0, 0
        for t in range(7, windows):
            if not active[t, i]:
                continue
            r = float(sold[i, t] - sold[i, t - 7])
            spread += max(1 / 28, 1 / (seen + 1)) * (abs(r) - spread)
            for j, tau in enumerate(LEVELS):
                if seen < 4:
                    theta[j] = spread * (np.log(2 * tau) if tau <= 0.5 else -np.log(2 * (1 - tau)))
                else:
                    theta[j] += max(0.05, 2 / (seen + 2)) * spread * (tau - (r <= theta[j]))
            seen += 1
        assert rows["naive_n"][i] == seen
        np.testing.assert_allclose(rows["naive_spread"][i], spread, rtol=1e-4)
        np.testing.assert_allclose(rows["naive_theta"][i], theta, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [0.01, 1.0, 1e6])
def test_tracked_quantiles_cover_as_often_as_they_say_at_any_scale(scale: float) -> None:
    rng = np.random.default_rng(3)
    n, windows = 300, 250
    rows, season = fresh(n), np.zeros((n, 7), np.float32)
    hits, scored = np.zeros(len(LEVELS)), 0
    for t in range(windows):
        r = scale * rng.laplace(size=n)
        if t >= 20:
            hits += (r[:, None] <= rows["naive_theta"]).mean(axis=0)
            scored += 1
        rows |= baselines.update(rows, r, season, active=np.ones(n, np.bool_))
    np.testing.assert_allclose(hits / scored, LEVELS, atol=0.03)


def test_a_closed_shop_and_a_sku_without_a_past_teach_nothing() -> None:
    rows = fresh(2)
    season = np.concatenate((WEEK, np.full((1, 7), np.nan, np.float32)))
    for name, new in baselines.update(rows, np.array([9.0, 9.0]), season, active=np.array([False, True])).items():
        np.testing.assert_array_equal(new, rows[name])
