"""Tail probabilities against scipy's distributions, silence and prices against the sums one would do by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import nbinom, poisson

from inference import tail_evidence
from tests.support.judging import DAY_MS, closed, fresh


def observed(
    rows: dict[str, Any], day: int, units: float, *, expected: float = math.nan, **how: float
) -> tail_evidence.TailEvidence:
    """One window of one SKU, `rows` moved on."""
    window = closed(day, units, **how)  # type: ignore[arg-type]
    found, new = tail_evidence.observe(rows, window, np.array([expected]))
    rows |= new
    return found


def grown(units: float = 4.0, days: int = 60) -> dict[str, Any]:
    rows = fresh(1)
    for day in range(days):
        observed(rows, day, units + day % 2, expected=units + day % 2)
    return rows


@pytest.mark.parametrize("mu", [0.01, 0.4, 3.0, 80.0])
@pytest.mark.parametrize("r", [0.05, 0.7, 20.0])
def test_tails_are_the_mid_p_of_scipy(mu: float, r: float) -> None:
    y = np.arange(40.0)
    law = nbinom(r, r / (r + mu))
    up, down = tail_evidence.tails(y, mu=np.full(40, mu), r=np.full(40, r))
    np.testing.assert_allclose(up, law.sf(y) + 0.5 * law.pmf(y), rtol=1e-8, atol=1e-300)
    np.testing.assert_allclose(down, law.cdf(y) - 0.5 * law.pmf(y), rtol=1e-8, atol=1e-300)


def test_infinite_r_is_poisson_and_large_r_nearly() -> None:
    y, mu = np.arange(30.0), np.full(30, 6.0)
    up, down = tail_evidence.tails(y, mu=mu, r=np.full(30, np.inf))
    np.testing.assert_allclose(up, poisson.sf(y, 6) + 0.5 * poisson.pmf(y, 6), rtol=1e-9)
    np.testing.assert_allclose(down, poisson.cdf(y, 6) - 0.5 * poisson.pmf(y, 6), rtol=1e-9)
    np.testing.assert_allclose(tail_evidence.tails(y, mu=mu, r=np.full(30, 1e7))[0], up, rtol=1e-4)


def test_tails_never_underflow() -> None:
    up, down = tail_evidence.tails(
        np.array([1e18, 0.0, 5.0]), mu=np.array([1.0, 1e18, 0.0]), r=np.array([50.0, 50.0, 1.0])
    )
    assert (up >= 1e-300).all()
    assert (down >= 1e-300).all()
    assert up[0] == up[2] == 1e-300


def test_no_tail_is_small_within_the_bound() -> None:
    mu, r = (a.ravel() for a in np.meshgrid(np.geomspace(1e-3, 1e5, 60), np.geomspace(0.01, 50, 25)))
    top = mu + tail_evidence.BOUND_SD * np.sqrt(mu + mu * mu / r)
    assert tail_evidence.tails(top, mu=mu, r=r)[0].min() > 0.01
    assert tail_evidence.tails(np.floor(top), mu=mu, r=r)[0].min() > 0.01


@pytest.mark.parametrize(("true_r", "close"), [(0.5, 0.25), (3.0, 0.5)])
def test_dispersion_finds_the_burstiness(true_r: float, close: float) -> None:
    rng = np.random.default_rng(1)
    n, mu = 400, 8.0
    rows = fresh(n)
    for day in range(200):
        y = rng.negative_binomial(true_r, true_r / (true_r + mu), n)
        rows |= tail_evidence.observe(rows, closed(day, y), np.full(n, mu))[1]
    # shrinkage and the allowance for model error make it lower than the truth, never much higher
    assert (1 - close) * true_r < np.median(tail_evidence.dispersion(rows)) < 1.1 * true_r


def test_level_and_variance_are_means_at_first() -> None:
    rows, sold = fresh(1), [3.0, 5.0, 4.0, 0.0, 2.0]
    for day, units in enumerate(sold):
        observed(rows, day, units, expected=3.0)
    assert rows["level"][0] == pytest.approx(np.mean(sold))
    assert rows["err_var"][0] == pytest.approx(np.sum(np.square(np.array(sold[1:]) - 3.0)) / 5)
    means = np.cumsum(sold)[:-1] / np.arange(1, 5)
    assert rows["own_var"][0] == pytest.approx(np.sum(np.square(np.array(sold[1:]) - means)) / 5)
    assert rows["slow_level"][0] == rows["level"][0]
    assert rows["zero_share"][0] == pytest.approx(0.2)
    assert rows["sale_size"][0] > 2
    assert rows["judged"][0] == 5


def test_a_spike_surprises_only_upwards_and_a_drop_only_downwards() -> None:
    rows = grown(40.0)
    up = observed(dict(rows), 60, 900.0, expected=40.0)
    assert up.p_up[0] < 1e-9
    assert up.p_down[0] == 0.5
    assert up.record[0]
    down = observed(dict(rows), 60, 1.0, expected=40.0)
    assert down.p_down[0] < 1e-3
    assert down.p_up[0] == 0.5
    usual = observed(dict(rows), 60, 40.0, expected=40.0)
    assert (usual.p_up[0], usual.p_down[0], usual.record[0]) == (0.5, 0.5, False)


def test_the_kinder_expectation_counts() -> None:
    rows = grown(40.0)
    assert observed(dict(rows), 60, 900.0, expected=900.0).p_up[0] == 0.5
    # the forecast is far too low, but the SKU's own level is not surprised
    assert observed(dict(rows), 60, 42.0, expected=0.01).p_up[0] == 0.5
    assert observed(dict(rows), 60, 38.0, expected=4000.0).p_down[0] == 0.5


def test_a_forecast_that_errs_more_than_the_level_is_not_held_against_the_window() -> None:
    rng = np.random.default_rng(4)
    rows = fresh(1)
    for day in range(100):
        observed(rows, day, float(rng.poisson(40)), expected=float(rng.uniform(0, 400)))
    found = observed(rows, 100, 500.0, expected=500.0)
    assert found.expected[0] == pytest.approx(40, rel=0.1)
    assert found.p_up[0] < 1e-6


def test_an_outlier_moves_level_and_variance_by_a_bounded_step() -> None:
    rows = grown(4.0)
    before = {name: float(rows[name][0]) for name in ("level", "err_var", "seen_max")}
    observed(rows, 60, 1e12, expected=4.0)
    assert rows["level"][0] < 3 * before["level"]
    assert rows["err_var"][0] < 1000
    assert rows["seen_max"][0] < 500


def test_a_giant_first_order_is_a_surprise_and_does_not_become_usual() -> None:
    rows = fresh(1)
    found = observed(rows, 0, 74_215.0)
    assert found.p_up[0] < 1e-6
    assert rows["level"][0] == tail_evidence.FIRST_CLIP
    assert observed(fresh(1), 0, 30.0).p_up[0] > 1e-4


@pytest.mark.parametrize("how", [{"season": 0.0}, {"observed": False}])
def test_a_closed_shop_and_an_unseen_sku_are_neither_judged_nor_learnt_from(how: dict[str, Any]) -> None:
    rows = grown(40.0)
    before = dict(rows)
    found = observed(rows, 60, 0.0, expected=40.0, **how)
    assert (found.active[0], found.p_up[0], found.silence_log10p[0], found.zero_run[0]) == (False, 0.5, 0.0, 0)
    assert found.p_down[0] == 0.5
    for name in rows:
        np.testing.assert_array_equal(rows[name], before[name], err_msg=name)


def test_silence_adds_up_and_ends_with_a_sale() -> None:
    rows = grown(6.0, days=200)
    r = float(tail_evidence.dispersion(rows)[0])
    level = float(rows["run_level"][0])
    want = 0.0
    for day in range(200, 205):
        r = float(tail_evidence.dispersion(rows)[0])
        want += -r * math.log1p(level / r)
        found = observed(rows, day, 0.0, expected=6.0)
        assert found.silence_log10p[0] == pytest.approx(want / math.log(10), rel=1e-4)
    assert found.zero_run[0] == 5
    assert found.silence_units[0] == pytest.approx(5 * level, rel=1e-5)
    assert found.last_sale_ms[0] == 199 * DAY_MS
    # even on a day on which the shop counts as closed
    found = observed(rows, 205, 1.0, season=0.0)
    assert (found.zero_run[0], found.silence_log10p[0], found.last_sale_ms[0]) == (0, 0.0, 205 * DAY_MS)


def test_silence_is_judged_by_how_often_the_sku_is_silent() -> None:
    rows = fresh(1)
    for day in range(400):  # a large order every fourth day: its mean alone would make three days of nothing a wonder
        observed(rows, day, 40.0 if day % 4 == 0 else 0.0, expected=10.0)
    for day in range(400, 410):
        found = observed(rows, day, 0.0, expected=10.0)
    assert found.zero_run[0] == 13
    assert 13 * math.log10(0.9) > found.silence_log10p[0] > 13 * math.log10(0.7)


def test_a_price_jump_is_held_against_the_usual_moves() -> None:
    calm, lively = fresh(1), fresh(1)
    for day in range(40):
        observed(calm, day, 1.0, price=10.0)
        observed(lively, day, 1.0, price=10.0 if day % 2 else 7.0)
    for rows, usual in ((calm, tail_evidence.MIN_PRICE_MOVE), (lively, math.log(10 / 7))):
        found = observed(rows, 40, 1.0, price=20.0)
        assert found.price_usual[0] == pytest.approx(usual, rel=1e-3)
        assert found.price_log[0] == pytest.approx(math.log(2), rel=1e-6)
        assert found.price_p[0] == pytest.approx(max(math.exp(-math.log(2) / usual), 1e-300), rel=1e-3)
        assert found.price_before[0] == 10.0


@pytest.mark.parametrize("price", [math.nan, 0.0, 10.1])
def test_unknown_free_and_unchanged_prices_are_no_move(price: float) -> None:
    rows = fresh(1)
    observed(rows, 0, 1.0, price=10.1)
    found = observed(rows, 1, 1.0, price=price)
    assert (found.price_log[0], found.price_p[0]) == (0.0, 1.0)
    assert rows["price_ref"][0] == np.float32(10.1)
    assert rows["price_moves"][0] == 0
