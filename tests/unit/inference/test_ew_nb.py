"""The plain forecast: level by season, a negative binomial about it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.cadence import DAY, HORIZON
from features.grid import WindowGrid
from features.season import Context, SeasonProfile, context
from inference import ew_nb
from inference.nb_quantiles import quantiles

WEEK = (1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 0.0)


def day_of(number: int, season: SeasonProfile, *, is_open: bool = True) -> Context:
    return context(WindowGrid(), season, number, is_open=is_open)


def fresh(n: int) -> dict[str, NDArray[Any]]:
    return {name: np.full((n, *shape), fill, dtype) for name, dtype, shape, fill in ew_nb.COLUMNS}


def learnt(
    units: list[list[float]], *, week: tuple[float, ...] = (1.0,) * 7
) -> tuple[dict[str, NDArray[Any]], Context]:
    """Statistics of SKUs that sold `units` (days, SKUs) in a shop whose weekdays sell as `week` says; 0: closed."""
    season, rows = SeasonProfile(7), fresh(len(units[0]))
    for _ in range(12):
        for day, factor in enumerate(week):
            season.observe(phase=(day + 4) % 7, lines=100.0 * factor, units=1_000.0 * factor)
    opens = 0
    for number, sold in enumerate(units):
        found = day_of(number, season, is_open=week[number % 7] > 0)
        assert found.phase == (number + 4) % 7
        opens += found.is_open
        nu = np.full(len(sold), 10.0, np.float32)
        counts = np.full(len(sold), opens, np.int32)
        rows |= ew_nb.update(rows, np.array(sold), found, opens=counts, nu=nu)
    return rows, found


def forecast(rows: dict[str, NDArray[Any]], found: Context, opens: int, which: int = 0, **more: Any) -> ew_nb.Forecast:  # noqa: ANN401
    n = len(rows["plain_level"])
    given = {"prior_nu": 1.0, "fractional": np.zeros(n, np.bool_)} | more
    return ew_nb.forecast(rows, which, found, opens=np.full(n, opens, np.int32), **given)


def test_a_level_is_the_weighted_mean_of_what_was_sold() -> None:
    units = [[float(day % 5)] for day in range(40)]
    rows, _ = learnt(units)
    for at, memory in enumerate(DAY.plain_memories):
        weights = (1 - 1 / memory) ** np.arange(39, -1, -1)
        wanted = np.average([day % 5 for day in range(40)], weights=weights)
        level, _ = ew_nb._shrunk(rows, at, np.array([40_000], np.int32), 1.0, DAY)  # noqa: SLF001 - no prior left
        corrected = rows["plain_level"][0, at] / (1 - (1 - 1 / memory) ** 40)
        assert corrected == pytest.approx(wanted, rel=1e-4)
        assert level[0] == pytest.approx(rows["plain_level"][0, at], rel=1e-3)


def test_quantiles_are_those_of_the_law_and_sums_of_their_own() -> None:
    dice = np.random.default_rng(4)
    rows, found = learnt(dice.poisson(6, (200, 1)).astype(float).tolist())
    made = forecast(rows, found, 200)
    level, spread = ew_nb._shrunk(rows, 0, np.array([200], np.int32), 1.0, DAY)  # noqa: SLF001
    demand = found.demand_next
    for at, factor in ((0, demand[0]), (13, demand[13]), (HORIZON, demand[:7].sum()), (HORIZON + 1, demand.sum())):
        mean, variance = level * factor, spread * factor
        size = mean * mean / np.maximum(variance - mean, 1e-3 * mean)
        np.testing.assert_array_equal(made.quantiles[:, at], quantiles(mean, size))
    np.testing.assert_allclose(made.mean[0], level[0] * demand, rtol=1e-6)
    assert 5 < level[0] < 7


def test_the_weekday_is_taken_out_and_put_back_and_closed_days_sell_nothing() -> None:
    rows, found = learnt([[6.0 * WEEK[day % 7]] for day in range(84)], week=WEEK)
    made = forecast(rows, found, 72)
    sells = [WEEK[(84 + step) % 7] for step in range(HORIZON)]
    np.testing.assert_allclose(made.mean[0], [6.0 * factor for factor in sells], rtol=0.1)
    closed = np.array(sells) == 0
    assert not made.quantiles[0, :HORIZON][closed].any()
    assert made.quantiles[0, :HORIZON, 3][~closed].all()
    spread = rows["plain_spread"][0, 0]
    assert spread < 1.0, "what the season explains is no noise"


def test_a_young_sku_is_drawn_towards_what_is_typical_and_never_a_grown_one() -> None:
    rows, found = learnt([[9.0, 0.0]])
    young = forecast(rows, found, 1, prior_nu=1.0)
    weight = ew_nb.PRIOR_WINDOWS
    np.testing.assert_allclose(young.mean[:, 0], (np.array([9.0, 0.0]) + weight) / (1 + weight), rtol=1e-5)
    unseen = forecast(fresh(1), found, 0, prior_nu=2.0)
    np.testing.assert_allclose(unseen.mean[0], 2.0 * found.demand_next, rtol=1e-6)
    assert unseen.quantiles[0, 0, -1] > 2.0
    rows, found = learnt([[9.0]] * 300)
    assert forecast(rows, found, 300, prior_nu=0.1).mean[0, 0] == pytest.approx(9.0, rel=0.02)


def test_what_is_sold_in_fractions_is_forecast_in_tenths() -> None:
    dice = np.random.default_rng(5)
    rows, found = learnt(dice.gamma(2, 0.7, (120, 1)).tolist())
    made = forecast(rows, found, 120, fractional=np.ones(1, np.bool_)).quantiles
    assert (made != np.rint(made)).any()
    np.testing.assert_allclose(10 * made, np.rint(10 * made), atol=1e-4)


def test_a_giant_order_moves_a_level_by_what_outliers_count() -> None:
    rows, _ = learnt([[10.0]] * 50 + [[1e12]])
    assert rows["plain_level"][0, 0] < 10.0 + 200.0 / DAY.plain_memories[0]


def test_a_day_on_which_the_shop_is_closed_says_nothing() -> None:
    season = SeasonProfile(7)
    assert (
        ew_nb.update(fresh(1), np.ones(1), day_of(0, season, is_open=False), opens=np.ones(1, np.int32), nu=np.ones(1))
        == {}
    )


def test_the_lag_of_a_growing_shop_s_mean_is_made_up_for() -> None:
    season = SeasonProfile(7)
    for day in range(140):
        season.observe(phase=day % 7, lines=100.0, units=1_000.0 * 1.01**day)
    found = dataclasses.replace(day_of(0, season))
    assert (found.demand_next > 1.15).all()
    assert found.demand == pytest.approx(1.0, abs=0.05)
