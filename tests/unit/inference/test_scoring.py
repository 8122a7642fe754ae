"""Losses, and which source they earn a SKU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.horizon import HORIZON, LEVELS
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


def test_losses_are_plain_means_first_and_weighted_ones_later() -> None:
    rng = np.random.default_rng(2)
    rows = fresh(1)
    seen: list[float] = []
    want = 0.0
    for t in range(60):
        rows["next_net"][:] = np.sort(rng.gamma(1, 3, len(LEVELS)))
        rows["next_naive"][:] = 1.0
        y = np.array([float(rng.poisson(2))])
        loss = float(scoring.wql_parts(y, rows["next_net"].astype(float))[0][0]) / 4.0
        seen.append(loss)
        want += max(1 / 28, 1 / (t + 1)) * (loss - want)
        rows |= scoring.learn(rows, scoring.losses(rows, y, active=OK), nu=np.array([4.0], np.float32))
        if t == 6:
            assert rows["loss_net"][0] == pytest.approx(np.mean(seen), rel=1e-5)
    assert rows["loss_net"][0] == pytest.approx(want, rel=1e-4)
    assert rows["scored"][0] == 60


@pytest.mark.parametrize("missing", ["next_net", "next_naive", "window"])
def test_a_window_counts_only_where_both_sources_forecast_it(missing: str) -> None:
    rows = fresh(1)
    rows["next_net"][:] = rows["next_naive"][:] = 3.0
    active = OK
    if missing == "window":
        active = ~OK
    else:
        rows[missing][0, 2] = np.nan
    new = scoring.learn(rows, scoring.losses(rows, np.array([9.0]), active=active), nu=np.ones(1, np.float32))
    assert (new["scored"][0], new["loss_net"][0], new["loss_naive"][0]) == (0, 0, 0)


def state(net: float, naive: float, *, scored: int = 20, source: int = scoring.LSTM) -> dict[str, NDArray[Any]]:
    rows = fresh(1)
    rows["loss_net"][:], rows["loss_naive"][:] = net, naive
    rows["scored"][:], rows["source"][:] = scored, source
    return rows


@pytest.mark.parametrize(
    ("rows", "net_ok", "want"),
    [
        (state(0.5, 1.0, scored=6), True, scoring.SEASONAL_NAIVE),
        (state(0.5, 1.0, scored=7), True, scoring.LSTM),
        (state(1.01, 1.0), True, scoring.LSTM),
        (state(1.03, 1.0), True, scoring.SEASONAL_NAIVE),
        (state(1.01, 1.0, source=scoring.SEASONAL_NAIVE), True, scoring.SEASONAL_NAIVE),
        (state(1.0, 1.0, source=scoring.SEASONAL_NAIVE), True, scoring.LSTM),
        (state(0.0, 0.0), True, scoring.LSTM),
        (state(0.1, 1.0), False, scoring.SEASONAL_NAIVE),
    ],
)
def test_the_net_serves_while_it_is_no_worse(rows: dict[str, NDArray[Any]], net_ok: bool, want: int) -> None:
    assert scoring.choose_source(rows, net_ok=np.array([net_ok])).tolist() == [want]


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


def test_what_was_served_follows_the_source() -> None:
    rows = fresh(2)
    rows["next_net"][:], rows["next_naive"][:] = 1.0, 2.0
    rows["source"][:] = [scoring.LSTM, scoring.SEASONAL_NAIVE]
    assert scoring.served_next(rows)[:, 0].tolist() == [1.0, 2.0]
