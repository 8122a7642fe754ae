"""What windows of each length need."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from features import cadence
from features.cadence import DAY, DAY_MS, HOUR, HOUR_MS, MINUTE_MS, MONTH, WEEK, WEEK_MS, Cadence, cadence_of
from features.closing import gains
from features.grid import WindowGrid
from inference.alerting import AlertRules


@pytest.mark.parametrize(
    ("window_ms", "expected", "season_length"),
    [
        (5 * MINUTE_MS, HOUR, 7 * 48),
        (HOUR_MS, HOUR, 7 * 24),
        (6 * HOUR_MS, HOUR, 7 * 4),
        (DAY_MS, DAY, 7),
        (WEEK_MS, WEEK, 1),
        (28 * DAY_MS, MONTH, 1),
        (31 * DAY_MS, MONTH, 1),
    ],
)
def test_each_length_has_its_cadence_and_season(window_ms: int, expected: Cadence, season_length: int) -> None:
    grid = WindowGrid(window_ms)
    assert cadence_of(window_ms) is grid.cadence is expected
    assert grid.season_length == season_length


def test_a_running_mean_takes_one_in_its_memory_of_the_newest_window() -> None:
    assert gains(DAY).tolist() == np.array([1 / 2.5, 1 / 7, 1 / 28, 1 / 90], np.float32).tolist()


def test_alert_rules_are_those_of_the_cadence() -> None:
    with mock.patch.object(cadence, "HOUR", replace(HOUR, alert_age=7, calm_windows=2)):
        rules = AlertRules.of(WindowGrid(HOUR_MS).cadence, min_impact=9.0)
    assert (rules.min_age, rules.calm_windows, rules.min_impact) == (7, 2, 9.0)
    assert AlertRules.of(DAY) == AlertRules()
