"""How good recent forecasts were, as it is stored."""

from __future__ import annotations

import msgspec


class LiveState(msgspec.Struct):
    """How good the recent forecasts of a partition were, as it is stored: the sums of `live_loss.LiveLoss`."""

    loss: dict[str, float]
    units: float
    covered: float
    scored: float
