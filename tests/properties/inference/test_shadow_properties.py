"""The verdict on a shadow: Student's interval of paired differences, whatever the partitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from features.cadence import LEVELS
from inference.scoring import wql_parts
from inference.shadow import MARGIN, WINDOWS, ShadowScore, verdict

N = 30


@given(st.integers(0, 1 << 32), st.integers(2, 20), st.integers(1, 4))
def test_it_is_the_interval_of_all_skus_however_they_are_spread(seed: int, windows: int, partitions: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [ShadowScore() for _ in range(partitions)]
    home = rng.integers(0, partitions, N)
    differences, losses = [], []
    for number in range(windows):
        sold = rng.poisson(3, N).astype(np.float64)
        shadow, served = (np.sort(rng.gamma(2, 2, (N, len(LEVELS))), axis=1).astype(np.float32) for _ in range(2))
        for which, score in enumerate(scores):
            at = home == which
            score.add(number, sold[at], shadow[at], served[at])
        of_shadow, of_served = (wql_parts(sold, each.astype(np.float64))[0].sum() for each in (shadow, served))
        differences.append(of_shadow - of_served)
        losses.append(of_served)
    found = verdict(scores)
    assert found is not None
    recent = slice(max(0, windows - WINDOWS), None)
    share = np.array(differences)[recent] / np.mean(losses[recent])
    low, high = stats.t.interval(0.95, len(share) - 1, share.mean(), stats.sem(share))
    assert found.windows == len(share)
    assert (found.mean, found.low, found.high) == pytest.approx((share.mean(), low, high), rel=1e-3, abs=1e-4)
    assert found.is_not_worse == (len(share) >= WINDOWS and found.high <= MARGIN)


@given(st.integers(0, 1 << 32))
def test_one_that_is_worse_is_hardly_ever_found_not_to_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = ShadowScore()
    for number in range(WINDOWS):
        sold = rng.poisson(5, 200).astype(np.float64)
        served = np.tile(stats.poisson.ppf(LEVELS, 5), (200, 1)).astype(np.float32)
        score.add(number, sold, served * np.float32(1.5), served)
    found = verdict([score])
    assert found is not None
    assert found.mean > MARGIN
    assert not found.is_not_worse


def test_of_less_than_two_windows_nothing_is_said() -> None:
    assert verdict([]) is None
    score = ShadowScore()
    assert verdict([score]) is None
    some = np.ones((2, len(LEVELS)), np.float32)
    score.add(1, np.ones(2), some, some)
    score.add(2, np.ones(2), some * np.nan, some)
    assert verdict([score]) is None, "of the second window the shadow had said nothing"
