"""Sums over forecasts that have come true, and the measures made of them: by source, velocity class and step.

Measures are ratios of sums: an average of ratios is none of them, but for RMSSE and MASE, which are means over pairs of
a SKU and an origin. Sources: Hyndman and Koehler 2006 (MASE); Makridakis et al. 2022 (RMSSE, WQL of the M5
competition); Czado et al. 2009 (randomised PIT of counts).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from features.cadence import LEVELS
from inference.aggregation import CLASSES, hits
from inference.scoring import pinball

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inference.arrays import Floats

_PLAIN_FIELDS: Final = ("cells", "units", "squared_units", "absolute", "square", "off_median", "off_mean", "symmetric")
_AT: Final = {name: at for at, name in enumerate((*_PLAIN_FIELDS, "symmetric_cells"))}
_LOSS: Final = slice(len(_AT), len(_AT) + len(LEVELS))
_HIT: Final = slice(_LOSS.stop, _LOSS.stop + len(LEVELS))
_PAIR_FIELDS: Final = 4  # RMSSE and how many, MASE and how many
_MEDIAN: Final = LEVELS.index(0.5)
NAN: Final = float("nan")


@dataclass(frozen=True, slots=True)
class Measures:
    """How good the forecasts of some cells (a SKU, an origin, a step) were; NaN where it is not defined.

    wql: twice the pinball loss, averaged over the levels, by units sold. wape, mae: of the median. mse, rmse, r2: of
    the mean. rmsse: root of the mean squared error by the mean squared change from one open window to the next; mase:
    absolute error by the mean absolute change over a season; both over the SKU's history before the origin. smape: of
    the median, 0 to 2, over the cells in which something was sold or forecast. bias, bias_mean: median and mean less
    what was sold, by units sold. within80, within90: share within the band, by randomised PIT. below90: share below the
    90 % quantile, likewise.
    """

    cells: int
    units: float
    wql: float
    wape: float
    mae: float
    mse: float
    rmse: float
    rmsse: float
    mase: float
    r2: float
    smape: float
    bias: float
    bias_mean: float
    within80: float
    within90: float
    below90: float

    def as_dict(self) -> dict[str, float | None]:
        """Give them by name; None for what is not defined."""
        return {name: None if value != value else value for name, value in asdict(self).items()}  # noqa: PLR0124 - NaN


class Tally:
    """Adds up how far forecasts of some sources were off. steps: K single windows, then sums, one column each."""

    def __init__(self, sources: Sequence[str], steps: int) -> None:
        """Start with nothing added."""
        self.sources = tuple(sources)
        self._sums = np.zeros((len(self.sources), len(CLASSES), steps, _HIT.stop))
        self._pairs = np.zeros((len(self.sources), len(CLASSES), _PAIR_FIELDS))

    def add(
        self, source: str, step: int, classes: NDArray[np.intp], sold: Floats, forecast: tuple[Floats, Floats]
    ) -> None:
        """Add n forecasts of one step. classes, sold: (n,). forecast: quantiles (n, Q) and mean (n,), units."""
        quantiles, mean = forecast
        y, median = sold.astype(np.float64), quantiles[:, _MEDIAN].astype(np.float64)
        size = y + np.abs(median)
        some = size > 0
        fields = [
            np.ones(len(y)),
            y,
            y * y,
            np.abs(y - median),
            (y - mean) ** 2,
            median - y,
            mean - y,
            np.divide(2 * np.abs(y - median), size, out=np.zeros(len(y)), where=some),
            some.astype(np.float64),
            *(2 * pinball(y, quantiles.astype(np.float64))).T,
            *hits(sold.astype(np.float32), quantiles).T,
        ]
        into = self._sums[self.sources.index(source), :, step]
        for at, field in enumerate(fields):
            into[:, at] += np.bincount(classes, field, len(CLASSES))

    def add_pairs(self, source: str, classes: NDArray[np.intp], rmsse: Floats, mase: Floats) -> None:
        """Add the scaled errors of n pairs of a SKU and an origin, (n,) each; NaN is left out."""
        into = self._pairs[self.sources.index(source)]
        for at, values in ((0, rmsse), (2, mase)):
            known = np.isfinite(values)
            into[:, at] += np.bincount(classes[known], values[known], len(CLASSES))
            into[:, at + 1] += np.bincount(classes[known], minlength=len(CLASSES))

    def measures(self, source: str, *, kind: str | None = None, steps: slice | int) -> Measures:
        """Measure a source over one velocity class (None: all) and some steps."""
        which: slice | int = slice(None) if kind is None else CLASSES.index(kind)
        sums = self._sums[self.sources.index(source), which, steps].reshape(-1, _HIT.stop).sum(axis=0)
        pairs = self._pairs[self.sources.index(source), which].reshape(-1, _PAIR_FIELDS).sum(axis=0)
        cells, units, square = (float(sums[_AT[name]]) for name in ("cells", "units", "square"))
        scatter = float(sums[_AT["squared_units"]]) - units * units / cells if cells else 0.0
        hit = sums[_HIT] / cells if cells else np.full(len(LEVELS), NAN)
        q05, q10, q90, q95 = (float(hit[LEVELS.index(level)]) for level in (0.05, 0.1, 0.9, 0.95))
        mse = _ratio(square, cells)
        return Measures(
            cells=int(cells),
            units=units,
            wql=_ratio(float(sums[_LOSS].mean()), units),
            wape=_ratio(float(sums[_AT["absolute"]]), units),
            mae=_ratio(float(sums[_AT["absolute"]]), cells),
            mse=mse,
            rmse=float(np.sqrt(mse)),
            rmsse=_ratio(float(pairs[0]), float(pairs[1])),
            mase=_ratio(float(pairs[2]), float(pairs[3])),
            r2=1 - square / scatter if scatter > 0 else NAN,
            smape=_ratio(float(sums[_AT["symmetric"]]), float(sums[_AT["symmetric_cells"]])),
            bias=_ratio(float(sums[_AT["off_median"]]), units),
            bias_mean=_ratio(float(sums[_AT["off_mean"]]), units),
            within80=q90 - q10,
            within90=q95 - q05,
            below90=q90,
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else NAN
