"""Forecasts at origins are held against what was sold, and only those of SKUs that sell."""

from __future__ import annotations

import numpy as np
import pytest

from features.cadence import HORIZON, LEVELS, RING, SUM_WINDOWS
from features.closing import COLUMNS
from features.table import SkuTable
from inference.evaluation.origins import Origins, sells
from inference.evaluation.scales import Scales
from inference.ew_nb import Forecast

OUTPUTS = HORIZON + len(SUM_WINDOWS)
SEASON = 7


class Shop:
    """Units by SKU and window, (n, T); NaN: closed."""

    def __init__(self, units: np.ndarray) -> None:
        self.units = units.astype(np.float32)
        self.table = SkuTable(COLUMNS)
        self.slots = self.table.add([f"s{i}" for i in range(len(units))])

    def close(self, number: int) -> None:
        self.table["ring"][self.slots, number % RING] = self.units[:, number]
        self.table["age"][self.slots] += 1


def constant(n: int, units: float) -> Forecast:
    """Forecast the same of every window."""
    quantiles = np.full((n, OUTPUTS, len(LEVELS)), units, np.float32)
    for at, span in enumerate(SUM_WINDOWS, HORIZON):
        quantiles[:, at] *= span
    return Forecast(quantiles, np.full((n, HORIZON), units, np.float32))


def run(shop: Shop, origin: int, forecast: Forecast, *, horizon: int = HORIZON, windows: int | None = None) -> Origins:
    trial = Origins(("served",), horizon=horizon, season=SEASON)
    for number in range(windows or shop.units.shape[1]):
        shop.close(number)
        trial.scales.observe(shop.table, shop.slots, number)
        if number == origin - 1:
            trial.announce(number, shop.table, shop.slots, {"served": forecast})
        trial.come_true(number, shop.table)
    trial.end()
    return trial


def test_forecasts_that_come_true_cost_nothing_and_others_what_they_are_off() -> None:
    shop = Shop(np.full((3, 80), 4.0))
    exact = run(shop, 60, constant(3, 4)).tally.measures("served", steps=slice(0, HORIZON))
    assert (exact.cells, exact.units, exact.wql, exact.mae) == (3 * HORIZON, 3 * HORIZON * 4, 0, 0)
    off = run(Shop(np.full((3, 80), 4.0)), 60, constant(3, 5)).tally
    steps, week = off.measures("served", steps=slice(0, HORIZON)), off.measures("served", steps=HORIZON)
    assert (steps.wape, steps.bias, steps.mse) == (0.25, 0.25, 1)
    assert (week.cells, week.units, week.wape) == (3, 3 * 28, 0.25)


def test_closed_windows_do_not_count_and_add_nothing_to_sums() -> None:
    units = np.full((2, 80), 4.0)
    units[:, 61] = np.nan
    trial = run(Shop(units), 60, constant(2, 4))
    assert trial.tally.measures("served", steps=slice(0, HORIZON)).cells == 2 * (HORIZON - 1)
    assert trial.tally.measures("served", steps=HORIZON).units == 2 * 4 * 6


def test_what_reaches_beyond_the_last_window_counts_as_far_as_it_came_true() -> None:
    trial = run(Shop(np.full((2, 80), 4.0)), 60, constant(2, 4), windows=70)
    assert trial.tally.measures("served", steps=slice(0, HORIZON)).cells == 2 * 10
    assert trial.tally.measures("served", steps=HORIZON).cells == 2, "seven windows have closed"
    assert trial.tally.measures("served", steps=HORIZON + 1).cells == 0, "fourteen have not"
    short = run(Shop(np.full((2, 80), 4.0)), 60, constant(2, 4), horizon=3)
    assert short.tally.measures("served", steps=slice(0, HORIZON)).cells == 2 * 3
    assert short.tally.measures("served", steps=HORIZON).cells == 0


def test_skus_that_do_not_sell_are_left_out() -> None:
    units = np.zeros((4, 60))
    units[0, ::5] = 1  # sells
    units[1, [10, 20, 25]] = 1  # too seldom
    units[2, 5:30] = 1  # not any more
    units[3, 59] = 9  # not yet
    shop = Shop(units)
    for number in range(60):
        shop.close(number)
    assert sells(shop.table, shop.slots, 59).tolist() == [True, False, False, False]
    shop.table["age"][0] = 27
    assert not sells(shop.table, shop.slots, 59).any(), "too young"


def test_scales_are_those_of_the_whole_history() -> None:
    rng = np.random.default_rng(1)
    units = rng.poisson(3, (5, 90)).astype(float)
    units[:, 13::7] = np.nan  # closed on one day of the week
    shop, scales = Shop(units), Scales(SEASON)
    for number in range(90):
        shop.close(number)
        scales.observe(shop.table, shop.slots, number)
    squares, changes = scales.of(shop.slots)
    for row in range(5):
        opened = units[row][np.isfinite(units[row])]
        assert squares[row] == pytest.approx((np.diff(opened) ** 2).mean())
        season = np.abs(units[row][SEASON:] - units[row][:-SEASON])
        assert changes[row] == pytest.approx(np.nanmean(season))


def test_scaled_errors_are_means_over_skus() -> None:
    units = np.tile([[2.0, 4.0], [20.0, 40.0]], (1, 45))
    found = run(Shop(units), 60, constant(2, 0)).tally.measures("served", steps=slice(0, HORIZON))
    # errors of 2 and 4 against changes of 2 each window, whatever the unit
    assert found.rmsse == pytest.approx(np.sqrt((4 + 16) / 2) / 2)
    assert found.mase == pytest.approx(3 / 2)
