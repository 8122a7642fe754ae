"""Empirical quantiles of the last windows, and of their overlapping sums."""

from __future__ import annotations

import numpy as np
import pytest

from features.cadence import HORIZON, LEVELS, RING, SUM_WINDOWS
from features.grid import WindowGrid
from features.season import SeasonProfile, context
from inference.window_quantiles import forecast


@pytest.mark.parametrize("age", [1, 3, 7, 10, 14, 40, 56, 300])
def test_they_are_numpy_s_of_what_the_sku_has_lived(age: int) -> None:
    dice = np.random.default_rng(age)
    number, lived = 1_000, min(age, RING)
    ring = np.full((3, RING), np.nan, np.float32)
    history = dice.poisson(3, (3, lived)).astype(np.float32)
    history[1, dice.random(lived) < 0.3] = np.nan  # days on which the shop was closed
    ring[:, np.arange(number - lived + 1, number + 1) % RING] = history
    season = SeasonProfile(7)
    for day in range(28):
        season.observe(phase=day % 7, lines=0.0 if day % 7 == 2 else 50.0, units=100.0)
    found = context(WindowGrid(), season, number, is_open=True)
    made = forecast({"ring": ring, "age": np.full(3, age, np.int32), "nu": np.full(3, 3.0, np.float32)}, found)
    is_open = found.season_next > 0
    assert 0 < is_open.sum() < HORIZON
    for row in range(3):
        known = history[row][np.isfinite(history[row])]
        window = np.quantile(known, LEVELS) if len(known) else np.zeros(len(LEVELS))
        for step in range(HORIZON):
            np.testing.assert_allclose(made.quantiles[row, step], window * is_open[step], atol=1e-4)
        for at, span in enumerate(SUM_WINDOWS, HORIZON):
            spans = [np.nansum(history[row, start : start + span]) for start in range(lived - span + 1)]
            wanted = np.quantile(spans, LEVELS) if age >= span else window * is_open[:span].sum()
            np.testing.assert_allclose(made.quantiles[row, at], wanted, atol=1e-3)
        mean = known.mean() if len(known) else 0.0
        np.testing.assert_allclose(made.mean[row], mean * is_open, atol=1e-4)


def test_an_absurd_order_is_no_quantile() -> None:
    ring = np.full((1, RING), 3.0, np.float32)
    ring[0, 5:8] = 1e15
    rows = {"ring": ring, "age": np.full(1, RING, np.int32), "nu": np.full(1, 3.0, np.float32)}
    made = forecast(rows, context(WindowGrid(), SeasonProfile(7), 1_000, is_open=True))
    assert made.quantiles.max() <= 3 * 60.0 + 11 * 3.0
    assert made.mean.max() < 7.0
