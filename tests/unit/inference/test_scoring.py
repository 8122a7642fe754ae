"""Losses of what was served and of what it is compared with."""

from __future__ import annotations

import numpy as np
import pytest

from features.cadence import HORIZON, LEVELS
from inference import scoring
from tests.support.judging import fresh

OK = np.array([True])


def test_pinball_is_its_definition() -> None:
    rng = np.random.default_rng(1)
    y, q = rng.gamma(1, 5, 40), rng.gamma(1, 5, (40, len(LEVELS)))
    for i in range(40):
        for j, tau in enumerate(LEVELS):
            want = tau * (y[i] - q[i, j]) if y[i] >= q[i, j] else (1 - tau) * (q[i, j] - y[i])
            assert scoring.pinball(y, q)[i, j] == pytest.approx(want, rel=1e-6)


def test_wql_of_a_median_forecast_is_wape_at_the_median() -> None:
    y = np.array([4.0, 0.0, 6.0])
    assert scoring.wql(y, np.repeat(y[:, None], len(LEVELS), axis=1)) == 0
    q = np.repeat(np.array([[5.0], [1.0], [6.0]]), len(LEVELS), axis=1)
    # levels are symmetric, so with one value for all of them the mean pinball is half the absolute error
    assert scoring.wql(y, q) == pytest.approx(2 / 10)
    assert np.isnan(scoring.wql(np.zeros(3), q))


@pytest.mark.parametrize("missing", ["next_net", "next_plain", "next_naive", "next_served", "window"])
def test_a_window_counts_only_where_all_sources_forecast_it(missing: str) -> None:
    rows = fresh(1)
    for column in scoring.REFERENCES.values():
        rows[column][:] = 3.0
    assert scoring.losses(rows, np.array([9.0]), active=OK).scored.all()
    if missing != "window":
        rows[missing][0, 2] = np.nan
    found = scoring.losses(rows, np.array([9.0]), active=OK if missing != "window" else ~OK)
    assert not found.scored.any()
    assert not any(loss.any() for loss in found.by_source.values())


def test_each_source_is_scored_by_its_own_quantiles() -> None:
    rows = fresh(2)
    for at, column in enumerate(scoring.REFERENCES.values()):
        rows[column][:] = float(at)
    found = scoring.losses(rows, np.array([3.0, 0.0]), active=np.array([True, True]))
    # levels are symmetric, so with one value for all of them twice the mean pinball is the absolute error
    assert {name: np.round(loss, 5).tolist() for name, loss in found.by_source.items()} == {
        "served": [3, 0], "lstm": [2, 1], "ewnb": [1, 2], "seasonal_naive": [0, 3]
    }  # fmt: skip


def test_broken_and_absurd_forecasts_are_not_served() -> None:
    quantiles = np.ones((5, HORIZON, len(LEVELS)), np.float32)
    mean = np.ones((5, HORIZON), np.float32)
    quantiles[1, 3, 2], mean[2, 5], mean[3, 13] = np.nan, np.inf, 501.0
    ring_max = np.array([10, 10, 10, 10, np.nan], np.float32)
    assert scoring.healthy(quantiles, mean, np.column_stack((ring_max, ring_max / 2))).tolist() == [
        True,
        False,
        False,
        False,
        True,
    ]
