"""A year of a shop of 4,000 sparse SKUs: clean noise raises hardly an alert, what is planted in it is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from tests.support.judging import DAY_MS, Shop

pytestmark = pytest.mark.slow

SKUS, DAYS = 4_000, 374
WEEK = np.array([1.1, 1.2, 1.0, 1.0, 1.3, 0.9, 0.5])
Expect = Callable[[np.random.Generator, NDArray[np.float64], list[NDArray[np.float64]]], ArrayLike]


def net(rng: np.random.Generator, mu: NDArray[np.float64], past: list[NDArray[np.float64]]) -> ArrayLike:
    """A forecast that knows the rate, give or take a third."""
    return mu * np.exp(rng.normal(0, 0.3, len(mu)))


def naive(rng: np.random.Generator, mu: NDArray[np.float64], past: list[NDArray[np.float64]]) -> ArrayLike:
    """What was sold a week ago."""
    return past[-7] if len(past) >= 7 else np.nan


def rates(rng: np.random.Generator, *, burstiness: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means per day (median 0.4, a tenth above 3) and sizes r of negative binomials (median `burstiness`)."""
    return np.exp(rng.normal(np.log(0.4), 1.6, SKUS)), np.exp(rng.normal(np.log(burstiness), 0.8, SKUS))


def a_year(rng: np.random.Generator, mu: NDArray[np.float64], r: NDArray[np.float64], expect: Expect) -> Shop:
    shop = Shop(SKUS)
    past: list[NDArray[np.float64]] = []
    for day in range(DAYS):
        rate = mu * WEEK[day % 7]
        units = rng.negative_binomial(r, r / (r + rate)).astype(float)
        shop.day(units, expect(rng, rate, past), season_index=float(WEEK[day % 7]))
        past = [*past[-6:], units]
    return shop


@pytest.mark.parametrize("expect", [net, naive])
@pytest.mark.parametrize("burstiness", [0.4, 2.0])
def test_clean_noise_opens_fewer_than_ten_alerts_a_month(expect: Expect, burstiness: float) -> None:
    rng = np.random.default_rng(20_111)
    shop = a_year(rng, *rates(rng, burstiness=burstiness), expect)
    opened = [c for c in shop.changes if c.status == "open"]
    assert len(opened) / ((DAYS - 28) / 30) < 10
    assert sum(c.severity == "page" for c in opened) <= 6


@pytest.mark.parametrize("expect", [net, naive])
def test_planted_spikes_and_dead_listings_are_found(expect: Expect) -> None:
    rng = np.random.default_rng(7)
    shop = Shop(SKUS)
    past: list[NDArray[np.float64]] = []
    mu, r = rates(rng, burstiness=4.0)
    # what twenty times the rate or a month of nothing can tell at all: not SKUs that sell once a month or in bursts
    able = np.flatnonzero((mu >= 1) & (r >= 1.5))
    spiked, dead = np.split(rng.permutation(able)[:200], 2)
    for day in range(230):
        rate = mu * WEEK[day % 7]
        units = rng.negative_binomial(r, r / (r + rate)).astype(float)
        units[spiked] = np.where(day == 150, np.ceil(20 * rate), units)[spiked]
        units[dead] = np.where(day >= 200, 0.0, units)[dead]
        shop.day(units, expect(rng, rate, past), season_index=float(WEEK[day % 7]))
        past = [*past[-6:], units]
    opened = [c for c in shop.changes if c.status == "open"]
    found = {c.row for c in opened if c.kind == "demand_spike" and c.window_start_ms == 150 * DAY_MS}
    assert len(found & set(spiked.tolist())) >= 0.95 * len(spiked)
    mute = {c.row for c in opened if c.kind in ("silence", "demand_drop") and c.window_start_ms >= 200 * DAY_MS}
    assert len(mute & set(dead.tolist())) >= 0.95 * len(dead)
