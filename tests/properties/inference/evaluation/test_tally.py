"""Measures of forecasts are what a computation cell by cell makes them, however the cells were added."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cadence import DAY, LEVELS
from inference.aggregation import CLASSES, groups_of
from inference.evaluation.tally import Tally
from inference.scoring import wql

STEPS = 4


@st.composite
def cells(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Classes, steps, units sold, quantiles and means of up to 30 cells."""
    n = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    sold = np.rint(rng.gamma(0.7, 3, n))
    quantiles = np.rint(np.sort(rng.gamma(0.7, 3, (n, len(LEVELS))), axis=1))
    return rng.integers(0, len(CLASSES), n), rng.integers(0, STEPS, n), sold, quantiles, quantiles.mean(axis=1)


@given(cells(), st.integers(1, 4))
def test_measures_are_those_of_all_cells_together(made: tuple[np.ndarray, ...], parts: int) -> None:
    classes, steps, sold, quantiles, mean = made
    tally = Tally(("ours", "other"), STEPS)
    for part in range(parts):  # however they come
        for step in range(STEPS):
            some = np.flatnonzero((steps == step) & (np.arange(len(sold)) % parts == part))
            tally.add("ours", step, classes[some], sold[some], (quantiles[some].astype(np.float32), mean[some]))
    found = tally.measures("ours", steps=slice(0, STEPS))
    assert found.cells == len(sold)
    assert tally.measures("other", steps=slice(0, STEPS)).cells == 0
    median = quantiles[:, 3]
    same(found.wql, wql(sold, quantiles))
    same(found.mae, np.abs(sold - median).mean())
    same(found.mse, ((sold - mean) ** 2).mean())
    same(found.rmse, math.sqrt(((sold - mean) ** 2).mean()))
    same(found.wape, ratio(np.abs(sold - median).sum(), sold.sum()))
    same(found.bias, ratio((median - sold).sum(), sold.sum()))
    same(found.bias_mean, ratio((mean - sold).sum(), sold.sum()))
    scatter = ((sold - sold.mean()) ** 2).sum()
    if scatter > 1e-6:
        same(found.r2, 1 - ((sold - mean) ** 2).sum() / scatter)
    some = sold + median > 0
    same(found.smape, ratio((2 * np.abs(sold - median)[some] / (sold + median)[some]).sum(), some.sum()))
    assert 0 <= found.within80 <= found.within90 <= 1
    for kind, name in enumerate(CLASSES):
        assert tally.measures("ours", kind=name, steps=slice(0, STEPS)).cells == (classes == kind).sum()
    assert tally.measures("ours", steps=2).cells == (steps == 2).sum()


def ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else math.nan


def same(found: float, wanted: float) -> None:
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9, nan_ok=True)


def test_steps_of_groups_follow_each_other() -> None:
    groups = groups_of(DAY)
    bounds = [(groups.steps(name).start, groups.steps(name).stop) for name in groups.names]
    assert bounds == [(0, 1), (1, 5), (5, 9), (9, 14), (14, 15), (15, 16)]
