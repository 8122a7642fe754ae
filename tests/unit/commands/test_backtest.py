"""What a backtest says of how good its forecasts were."""

from __future__ import annotations

from inference.live_loss import LiveLoss
from streams.commands.backtest import accuracy_lines


def test_the_loss_is_told_beside_those_of_plain_forecasts() -> None:
    loss = {"served": 30.0, "lstm": 30.0, "ewnb": 40.0, "seasonal_naive": 60.0}
    live = LiveLoss(loss=loss, units=100.0, covered=9.0, scored=10.0)
    assert list(accuracy_lines(live)) == [
        "one window ahead, lately (half-life 20 windows): WQL 0.300, plain forecast 0.400 (-25%), "
        "seasonal naive 0.600 (-50%); 90.0% within the 90 % band"
    ]
    assert list(accuracy_lines(LiveLoss())) == [], "nothing was sold"
