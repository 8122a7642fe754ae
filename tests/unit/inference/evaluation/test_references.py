"""References forecast what they are told, and say what they need."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from features import season
from features.cadence import DAY_MS, HORIZON, LEVELS, RING
from features.closing import COLUMNS
from features.encoding import CALENDAR, FEATURES
from features.grid import WindowGrid
from features.season import Context, SeasonProfile
from features.table import SkuTable
from inference.evaluation.references import AutoEts, LightGbm
from inference.training.arrays import TrainingArrays
from inference.training.history import History
from schemas.errors import BadSetting

GRID = WindowGrid()
FIRST = GRID.number(1_300_060_800_000)  # a Monday
PROFILE = np.array([1.0, 1, 1, 1, 1, 2, 0])  # closed on Sundays


def a_shop(windows: int, levels: np.ndarray) -> tuple[SkuTable, np.ndarray, SeasonProfile, np.ndarray]:
    rng = np.random.default_rng(3)
    phases = np.array([GRID.phase(FIRST + t) for t in range(windows)])
    units = rng.poisson(levels[:, None] * PROFILE[phases]).astype(np.float32)
    profile = SeasonProfile(GRID.season_length)
    for t, phase in enumerate(phases.tolist()):
        sold = float(units[:, t].sum())
        profile.observe(phase=phase, lines=sold, units=sold)
    table = SkuTable(COLUMNS)
    slots = table.add([f"s{i}" for i in range(len(levels))])
    units[:, PROFILE[phases] == 0] = np.nan
    return table, slots, profile, units


def test_autoets_finds_the_level_and_the_season_of_each_sku() -> None:
    levels = np.array([5.0, 50.0])
    table, slots, profile, units = a_shop(140, levels)
    ets = AutoEts(season=7)
    for t in range(140):
        table["ring"][slots, (FIRST + t) % RING] = units[:, t]
        ets.observe(table, slots, FIRST + t, is_open=bool(np.isfinite(units[0, t])))
    context = a_context(profile, 139)
    found = ets.forecast(table, slots, context)
    steps = found.quantiles[:, :HORIZON]
    assert (np.diff(steps, axis=-1) >= 0).all()
    assert np.isnan(found.quantiles[:, HORIZON:]).all(), "it knows nothing of sums"
    ahead = np.array([PROFILE[GRID.phase(FIRST + 140 + k)] for k in range(HORIZON)])
    assert (steps[:, ahead == 0] == 0).all()
    np.testing.assert_allclose(found.mean[1], 50 * ahead, rtol=0.25, atol=1)
    np.testing.assert_allclose(found.mean[0], 5 * ahead, rtol=0.5, atol=1.5)


def a_context(profile: SeasonProfile, t: int) -> Context:
    return season.context(GRID, profile, FIRST + t, is_open=True)


@pytest.mark.slow
def test_lightgbm_learns_the_level_of_each_sku_and_the_index_of_each_step() -> None:
    try:
        import lightgbm  # noqa: F401, PLC0415
    except OSError:
        if os.environ.get("CI"):
            raise
        pytest.skip("this machine has no libgomp")
    levels = np.geomspace(0.5, 40, 120)
    windows = 150
    table, slots, profile, units = a_shop(windows, levels)
    index = np.stack([a_context(profile, t).season_next for t in range(windows)])
    x = np.zeros((windows, len(levels), len(FEATURES)), np.float32)
    arrays = TrainingArrays(
        x=x,
        calendar=np.zeros((windows, len(CALENDAR)), np.float32),
        nu=np.tile(levels.astype(np.float32), (windows, 1)),
        season_next=index.astype(np.float32),
        y=units.T.copy(),
        live=np.ones((windows, len(levels)), np.bool_),
    )
    starts = np.array([GRID.start_ms(FIRST + t) for t in range(windows)], np.int64)
    history = History(arrays, list(table.skus), starts, np.isfinite(units[0]), int(starts[-1]) + DAY_MS)
    model = LightGbm(history, until=130, rounds=100)
    context = a_context(profile, 135)
    found = model.forecast(table, slots, context)
    assert found.quantiles.shape == (len(levels), HORIZON + 2, len(LEVELS))
    assert (np.diff(found.quantiles, axis=-1) >= 0).all()
    assert (found.quantiles == np.rint(found.quantiles)).all(), "pieces"
    closed = context.season_next == 0
    assert (found.quantiles[:, :HORIZON][:, closed] == 0).all()
    expected = levels[:, None] * PROFILE[[GRID.phase(FIRST + 136 + k) for k in range(HORIZON)]]
    off = np.abs(found.mean - expected).sum() / expected.sum()
    assert off < 0.15, off


@pytest.mark.parametrize(("package", "make"), [
    ("statsforecast.models", lambda: AutoEts(season=7)),
    ("lightgbm", lambda: LightGbm(None, until=1)),
])  # fmt: skip
def test_without_its_package_the_extra_is_named(package: str, make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadSetting, match=r"skutrend\[references\]"):
        make()  # type: ignore[operator]
