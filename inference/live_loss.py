"""How good recent one-step forecasts were, over all SKUs of a partition: what the metrics tell of each source."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference.live_state import LiveState
from inference.scoring import REFERENCES, Losses

_KEEP = 2 ** (-1 / 20)  # of a sum after one more window


@dataclass
class LiveLoss:
    """How good recent one-step forecasts were: sums with a half-life of 20 windows.

    loss: quantile loss by source, units; units: what the scored SKUs sold. covered: how many of the `scored` windows of
    SKUs sold within the 90 % band that was served.
    """

    loss: dict[str, float] = field(default_factory=lambda: dict.fromkeys(REFERENCES, 0.0))
    units: float = 0.0
    covered: float = 0.0
    scored: float = 0.0

    def fade(self, windows: int = 1) -> None:
        """Let so many more windows pass."""
        for name in self.loss:
            self.loss[name] = _faded(self.loss[name], windows)
        for name in ("units", "covered", "scored"):
            setattr(self, name, _faded(getattr(self, name), windows))

    def add(self, found: Losses, units: NDArray[np.float64], served: NDArray[np.float32]) -> None:
        """Add the scored forecasts of some SKUs: what these sold, (n,), and the quantiles that were served, (n, Q)."""
        for name, loss in found.by_source.items():
            self.loss[name] += float(loss.sum(dtype=np.float64))
        self.units += float(units[found.scored].sum())
        sold = units.astype(np.float32)  # as exact as the band is
        self.covered += float(((sold >= served[:, 0]) & (sold <= served[:, -1]) & found.scored).sum())
        self.scored += float(found.scored.sum())

    def coverage(self) -> float:
        """Give the share of windows within the 90 % band; NaN before anything was scored."""
        return self.covered / self.scored if self.scored > 0 else float("nan")

    def state(self) -> LiveState:
        """Give what is stored of it."""
        return LiveState(loss=dict(self.loss), units=self.units, covered=self.covered, scored=self.scored)

    def restore(self, stored: LiveState) -> None:
        """Go on where the stored sums stand; a source that they do not know starts at nothing."""
        self.loss |= {name: stored.loss[name] for name in self.loss.keys() & stored.loss.keys()}
        self.units, self.covered, self.scored = stored.units, stored.covered, stored.scored

    def wql(self, source: str) -> float:
        """Give the loss per unit sold; NaN before anything was."""
        return self.loss[source] / self.units if self.units > 0 else float("nan")


def _faded(value: float, windows: int) -> float:
    """Fade a sum window by window, to the last bit, until there is nothing left that fades."""
    for _ in range(windows):
        faded = value * _KEEP
        if faded == value:
            break
        value = faded
    return value
