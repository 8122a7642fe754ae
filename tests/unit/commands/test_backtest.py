"""What a backtest says of how good its forecasts were."""

from __future__ import annotations

import numpy as np

from inference.aggregation import Aggregation
from inference.live_loss import LiveLoss
from inference.trend_calls import TrendCalls
from streams.commands.backtest import accuracy_lines, calibration_lines, call_lines


def test_the_loss_is_told_beside_those_of_plain_forecasts() -> None:
    loss = {"served": 30.0, "lstm": 30.0, "ewnb": 40.0, "seasonal_naive": 60.0}
    live = LiveLoss(loss=loss, units=100.0, covered=9.0, scored=10.0)
    assert list(accuracy_lines(live)) == [
        "one window ahead, lately (half-life 20 windows): WQL 0.300, plain forecast 0.400 (-25%), "
        "seasonal naive 0.600 (-50%); 90.0% within the 90 % band"
    ]
    assert list(accuracy_lines(LiveLoss())) == [], "nothing was sold"


def test_it_is_told_how_often_the_band_held() -> None:
    blend = Aggregation()
    assert list(calibration_lines(blend)) == [], "nothing has come true"
    blend.seen[:] = 10
    blend.hit[:] = np.array([0, 1, 2, 5, 7, 9, 10])
    (line,) = calibration_lines(blend)
    assert line.endswith("80% of 1, 80% of 2-5, 80% of 6-9, 80% of 10-14, 80% of sum7, 80% of sum14")


def test_it_is_told_how_often_calls_came_true() -> None:
    calls = TrendCalls()
    assert list(call_lines(calls)) == [], "nothing was called"
    direction = np.repeat([1, 0, -1], [120, 100, 120]).astype(np.int8)
    probability = np.repeat(np.array([0.85, 0.5, 0.15], np.float32), [120, 100, 120])
    now = np.concatenate([np.repeat([2, 0], [90, 30]), np.full(100, 2), np.repeat([0, 1], [108, 12])])
    calls.add(direction, probability, last=np.ones(340), now=now)
    assert list(call_lines(calls)) == [
        "up or down, the next 7 windows against the last 7: 240 calls of 340, 82% right; "
        "up: precision 75%, recall 47%; down: precision 90%, recall 78%",
        "the probability to go up, and the share that did, by tenths: 0.15 0.05, 0.50 1.00, 0.85 0.75",
    ]
