"""Forecasts made at origins wait until they have come true, and are counted then.

Counted are SKUs that sell at the origin: live for 28 windows, with a sale in five of the last 56 open windows and in
one of the last 28. One that sells nothing after that counts as zeros; windows in which the shop was closed count for
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from features import closing
from features.cadence import DAY, LEVELS, RING
from inference.aggregation import class_of, groups_of
from inference.evaluation.scales import Scales
from inference.evaluation.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from features.cadence import Cadence
    from features.table import SkuTable, Slots
    from inference.ew_nb import Forecast

SERVED: Final = "served"
_LEAST_AGE, _LEAST_SALES, _RECENT = 28, 5, 28


@dataclass
class _Waiting:
    """Forecasts of n SKUs made at one origin. sold: float32 (n, K), NaN: not known, or closed. scales: (n,) each."""

    slots: Slots
    classes: NDArray[np.intp]
    by_source: Mapping[str, Forecast]
    sold: NDArray[np.float32]
    scales: tuple[NDArray[np.float64], NDArray[np.float64]]
    windows: int = 0


class Origins:
    """Holds forecasts of some sources against what was sold.

    cadence: of the windows. groups: of its steps and sums. horizon: steps that count. season: see `Scales`.
    """

    def __init__(self, sources: Sequence[str], cadence: Cadence = DAY, *, horizon: int, season: int) -> None:
        """Start with nothing forecast."""
        self.tally = Tally(sources, cadence.outputs)
        self.groups = groups_of(cadence)
        self.scales = Scales(season)
        self.pairs = self.zeros = 0
        self._cadence, self._horizon = cadence, horizon
        self._waiting: dict[int, list[_Waiting]] = {}

    def announce(self, number: int, table: SkuTable, slots: Slots, by_source: Mapping[str, Forecast]) -> None:
        """Remember what sources forecast of n SKUs at the close of window `number`. slots: (n,)."""
        selling = sells(table, slots, number)
        at = np.flatnonzero(selling)
        picked = {name: type(made)(*(part[at] for part in made)) for name, made in by_source.items()}
        recent = closing.last_windows({"ring": table["ring"][slots[at]]}, number, RING)
        known = np.isfinite(recent)
        level = np.where(known, recent, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        waiting = _Waiting(
            slots=slots[at],
            classes=class_of(level.astype(np.float32)),
            by_source=picked,
            sold=np.full((len(at), self._cadence.horizon), np.nan, np.float32),
            scales=self.scales.of(slots[at]),
        )
        self._waiting.setdefault(number, []).append(waiting)

    def come_true(self, number: int, table: SkuTable) -> None:
        """Let window `number`, which has closed, tell what was sold in it."""
        for made in list(self._waiting):
            step = number - made
            if not 1 <= step <= self._cadence.horizon:
                continue
            for each in self._waiting[made]:
                each.sold[:, step - 1] = table["ring"][each.slots, number % RING]
                each.windows = step
            if step == self._cadence.horizon:
                self._count(self._waiting.pop(made))

    def end(self) -> None:
        """Count what has come true of forecasts that reach beyond the last window."""
        for made in sorted(self._waiting):
            self._count(self._waiting.pop(made))

    def _count(self, waiting: list[_Waiting]) -> None:
        for each in waiting:
            each.sold[:, self._horizon :] = np.nan
            known = np.isfinite(each.sold)
            self.pairs += len(each.slots)
            self.zeros += int((each.sold == 0).sum())
            for source, made in each.by_source.items():
                for step in range(self._horizon):
                    forecast = made.quantiles[:, step], made.mean[:, step]
                    self._add(source, step, each, each.sold[:, step], forecast)
                for at, span in enumerate(self._cadence.spans, self._cadence.horizon):
                    if span <= min(self._horizon, each.windows):
                        sold = np.nansum(each.sold[:, :span], axis=1)
                        sold[~known[:, :span].any(axis=1)] = np.nan
                        self._add(source, at, each, sold, (made.quantiles[:, at], made.mean[:, :span].sum(axis=1)))
                self.tally.add_pairs(source, each.classes, *_scaled(each, made))

    def _add(
        self, source: str, step: int, each: _Waiting, sold: NDArray[np.float32], forecast: tuple[Any, Any]
    ) -> None:
        quantiles, mean = forecast
        some = np.flatnonzero(np.isfinite(sold) & np.isfinite(quantiles).all(axis=1))
        if len(some):
            self.tally.add(source, step, each.classes[some], sold[some], (quantiles[some], mean[some]))


def sells(table: SkuTable, slots: Slots, number: int) -> NDArray[np.bool_]:
    """Tell which SKUs sell as window `number` has closed; bool (n,)."""
    sold = np.nan_to_num(closing.last_windows({"ring": table["ring"][slots]}, number, RING)) > 0
    found: NDArray[np.bool_] = (sold.sum(axis=1) >= _LEAST_SALES) & sold[:, -_RECENT:].any(axis=1)
    found &= table["age"][slots] >= _LEAST_AGE
    return found


def _scaled(each: _Waiting, made: Forecast) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give RMSSE and MASE of each SKU, (n,), NaN where not defined."""
    known = np.isfinite(each.sold)
    count = np.maximum(known.sum(axis=1), 1)
    square = np.where(known, (each.sold - made.mean) ** 2, 0).sum(axis=1, dtype=np.float64) / count
    median = made.quantiles[:, : each.sold.shape[1], LEVELS.index(0.5)]
    absolute = np.where(known, np.abs(each.sold - median), 0).sum(axis=1, dtype=np.float64) / count
    squares, changes = each.scales
    usable = known.any(axis=1) & np.isfinite(squares) & np.isfinite(changes)
    with np.errstate(invalid="ignore"):
        rmsse, mase = np.sqrt(square / squares), absolute / changes
    return np.where(usable, rmsse, np.nan), np.where(usable, mase, np.nan)
