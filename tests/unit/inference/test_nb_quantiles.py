"""The table of negative binomial quantiles against the exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nbinom

from features.cadence import LEVELS
from inference.nb_quantiles import quantiles


def exact(mean: np.ndarray, size: np.ndarray) -> np.ndarray:
    return nbinom.ppf(np.array(LEVELS), size[:, None], (size / (size + mean))[:, None])


@pytest.mark.parametrize(("low", "high", "share"), [(0.01, 5, 0.999), (5, 100, 0.97), (100, 1e4, 0.6)])
def test_nearly_all_are_exact_and_the_others_close(low: float, high: float, share: float) -> None:
    dice = np.random.default_rng(3)
    mean = np.exp(dice.uniform(np.log(low), np.log(high), 20_000))
    size = np.exp(dice.uniform(np.log(0.05), np.log(1e3), 20_000))
    found, wanted = quantiles(mean.astype(np.float32), size.astype(np.float32)), exact(mean, size)
    assert (found == wanted).mean() > share
    assert np.quantile(np.abs(found - wanted) / np.maximum(wanted, 10), 0.9999) < 0.15


def test_a_law_without_spread_beyond_chance_is_poisson_s() -> None:
    found = quantiles(np.float32([4.0]), np.float32([1e9]))
    assert found.tolist() == [[1, 2, 3, 4, 5, 7, 8]]


def test_means_beyond_the_table_are_scaled() -> None:
    within, beyond = quantiles(np.float32([1e6]), np.float32([2])), quantiles(np.float32([1e9]), np.float32([2]))
    np.testing.assert_allclose(beyond, 1e3 * within, rtol=1e-4)


@given(st.floats(0, 2.0**127, width=32), st.floats(0, 2.0**127, width=32))
def test_whatever_is_asked_quantiles_are_whole_ascending_and_finite(mean: float, size: float) -> None:
    found = quantiles(np.float32([mean]), np.float32([size]))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    assert (found >= 0).all()
    assert mean > 1e6 or (found == np.rint(found)).all()
