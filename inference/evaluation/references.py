"""Forecasts of others to be held beside ours: AutoETS of each SKU, and one LightGBM over all. Need the extra.

Both know what ours know: AutoETS the open windows of a SKU's own past, LightGBM the inputs of the net.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from features.cadence import LEVELS, RING, spans_of
from features.encoding import NOISE, PROFILE, YEAR, calendar_names
from features.outliers import USUAL_MULTIPLE
from inference.ew_nb import Forecast
from schemas.errors import BadSetting

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from features.season import Context
    from features.table import SkuTable, Slots
    from inference.training.history import History

    Progress = Callable[[int], None]

NAMES: Final = ("autoets", "lightgbm")
_BANDS: Final = (50, 80, 90)  # per cent, whose ends are `LEVELS` beside the median
_LEAST_HISTORY: Final = 2  # seasons
_ROWS: Final = 300_000  # that LightGBM learns from
_LEAST_INDEX: Final = 0.05
_KNOWN: Final = ("open", "holiday", "eve")  # of a window to come, by `calendar_names`


class Reference(Protocol):
    """Something that forecasts SKUs at origins."""

    def observe(self, table: SkuTable, slots: Slots, number: int, *, is_open: bool) -> None:
        """Take window `number` in, which has closed for some SKUs."""

    def forecast(self, table: SkuTable, slots: Slots, context: Context) -> Forecast:
        """Forecast n SKUs as a window has closed; NaN where it has nothing to say. slots: (n,)."""


class AutoEts:
    """Exponential smoothing whose form is chosen for each SKU by AICc: additive errors, any trend and season.

    Windows in which the shop is closed are left out. It has normal bands, cut at zero, and says nothing of sums.
    Source: Hyndman et al. 2002; computed by statsforecast.
    """

    def __init__(self, *, season: int) -> None:
        """Start before the first window; `BadSetting` without statsforecast. season: phases of the shop's season."""
        try:
            from statsforecast.models import AutoETS  # noqa: PLC0415 - the references extra
        except ImportError as error:
            raise _missing(package="statsforecast", said=str(error)) from error
        self._model = AutoETS
        self._season = season
        self._seen: list[tuple[Slots, NDArray[np.float32]]] = []

    def observe(self, table: SkuTable, slots: Slots, number: int, *, is_open: bool) -> None:
        """Take window `number` in, which has closed for some SKUs."""
        if is_open:
            self._seen.append((slots, table["ring"][slots, number % RING].copy()))

    def forecast(self, table: SkuTable, slots: Slots, context: Context) -> Forecast:
        """Fit each of n SKUs, and forecast it."""
        history, horizon = self._history(len(table)), context.cadence.horizon
        ahead = np.flatnonzero(context.season_next > 0)
        season = int((context.season_next[: self._season] > 0).sum()) if self._season <= horizon else self._season
        quantiles = np.full((len(slots), context.cadence.outputs, len(LEVELS)), np.nan, np.float32)
        quantiles[:, :horizon] = 0
        mean = np.zeros((len(slots), horizon), np.float32)
        for row, slot in enumerate(slots.tolist()):
            past = history[slot][np.isfinite(history[slot])]
            length = season if len(past) >= _LEAST_HISTORY * season and season > 1 else 1
            model = self._model(season_length=length, model="ANZ" if length > 1 else "ANN")
            found = model.forecast(past.astype(np.float64), len(ahead), level=list(_BANDS))
            lows, highs = ([found[f"{side}-{band}"] for band in _BANDS] for side in ("lo", "hi"))
            steps = np.stack([*reversed(lows), found["mean"], *highs], axis=1)
            quantiles[row, ahead] = np.maximum(steps, 0)
            mean[row, ahead] = np.maximum(found["mean"], 0)
        return Forecast(quantiles, mean)

    def _history(self, count: int) -> NDArray[np.float32]:
        """Lay out what was sold in open windows, float32 (SKUs, windows); NaN before a SKU's first."""
        found = np.full((count, len(self._seen)), np.nan, np.float32)
        for at, (slots, units) in enumerate(self._seen):
            found[slots, at] = units
        return found


class LightGbm:
    """Boosted trees, one model per quantile level for all SKUs, steps and sums, on the inputs of the net.

    What is learnt is units by the SKU's scale and the shop's index of the target; each row weighs as much as that, so
    that the loss is in units. Source: Ke et al. 2017; the direct multi-step form that won the M5 competition.
    """

    def __init__(self, history: History, *, until: int, seed: int = 1, rounds: int = 250) -> None:
        """Learn from the windows of `history` before its window `until`; `BadSetting` without lightgbm."""
        try:
            import lightgbm  # noqa: PLC0415 - the references extra
        except (ImportError, OSError) as error:  # the latter where the system has no libgomp
            raise _missing(package="lightgbm", said=str(error)) from error
        self._arrays, self._starts = history.arrays, history.starts_ms
        self._horizon = history.arrays.horizon
        self._spans, self._names = spans_of(self._horizon), calendar_names(self._horizon)
        self._outputs = self._horizon + len(self._spans)
        self._row_of = {sku: row for row, sku in enumerate(history.skus)}
        rows, target, scale = self._learn_from(until, np.random.default_rng(seed))
        data = lightgbm.Dataset(rows, target, weight=scale, free_raw_data=False)
        shared = {
            "verbosity": -1, "seed": seed, "deterministic": True, "num_leaves": 63, "learning_rate": 0.05,
            "min_data_in_leaf": 100, "feature_fraction": 0.7, "bagging_fraction": 0.7, "bagging_freq": 1,
        }  # fmt: skip
        self._quantiles: list[Any] = [
            lightgbm.train(shared | {"objective": "quantile", "alpha": level}, data, rounds) for level in LEVELS
        ]
        self._mean: Any = lightgbm.train(shared | {"objective": "tweedie"}, data, rounds)

    def observe(self, table: SkuTable, slots: Slots, number: int, *, is_open: bool) -> None:
        """Nothing: all it needs is in its history."""

    def forecast(self, table: SkuTable, slots: Slots, context: Context) -> Forecast:
        """Forecast n SKUs, in units; whole ones where a SKU is sold by the piece."""
        t = int(np.searchsorted(self._starts, context.start_ms))
        skus = table.skus
        at = np.array([self._row_of[skus[slot]] for slot in slots.tolist()], np.intp)
        quantiles = np.zeros((len(slots), self._outputs, len(LEVELS)), np.float32)
        mean = np.zeros((len(slots), self._outputs), np.float32)
        for output in range(self._outputs):
            index = self._index(t, output)
            if index <= 0:
                continue
            rows = self._rows(np.full(len(at), t), at, np.full(len(at), output))
            scale = (self._arrays.nu[t, at] * index)[:, None]
            said = np.stack([model.predict(rows) for model in self._quantiles], axis=1)
            quantiles[:, output] = np.maximum(np.sort(said, axis=1), 0) * scale
            mean[:, output] = np.maximum(self._mean.predict(rows), 0) * scale[:, 0]
        whole = table["fractional"][slots] == 0
        quantiles[whole] = np.rint(quantiles[whole])
        return Forecast(quantiles, mean[:, : self._horizon])

    def _learn_from(self, until: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
        """Draw what is learnt from: inputs (n, F), targets and scales (n,)."""
        arrays = self._arrays
        t, sku = np.nonzero(arrays.live[: max(until - self._horizon, 0)])
        pick = rng.integers(0, max(len(t), 1), min(_ROWS, len(t) * self._outputs))
        t, sku, output = t[pick], sku[pick], rng.integers(0, self._outputs, len(pick))
        target, index = np.full(len(t), np.nan), np.zeros(len(t))
        sold = np.nan_to_num(arrays.y)
        for each in range(self._outputs):
            some = np.flatnonzero(output == each)
            last = t[some] + (each + 1 if each < self._horizon else self._spans[each - self._horizon])
            if each < self._horizon:
                target[some] = arrays.y[last, sku[some]]
            else:
                steps = range(self._spans[each - self._horizon])
                target[some] = np.sum([sold[last - back, sku[some]] for back in steps], axis=0)
            index[some] = self._indices(each)[t[some]]
        fine = np.isfinite(target) & (index > _LEAST_INDEX)
        t, sku, output = t[fine], sku[fine], output[fine]
        scale = arrays.nu[t, sku] * index[fine]
        # one order of 80,000 pieces would make every mean a multiple of what is sold
        return self._rows(t, sku, output), np.minimum(target[fine] / scale, USUAL_MULTIPLE), scale

    def _rows(self, t: NDArray[Any], sku: NDArray[Any], output: NDArray[Any]) -> NDArray[np.float32]:
        """Lay out inputs: those of the SKU and of the time of year, then the step and what is known of it."""
        own, calendar = self._arrays.x[t, sku], self._arrays.calendar
        of_step = np.empty((len(t), 3 + len(_KNOWN)), np.float32)
        for each in np.unique(output).tolist():
            some = np.flatnonzero(output == each)
            is_step = each < self._horizon
            steps = [each] if is_step else list(range(self._spans[each - self._horizon]))
            of_step[some, 0], of_step[some, 1] = each, self._indices(each)[t[some]]
            # how the SKU's own season differs from the shop's, in the phase of the step
            of_step[some, 2] = own[some, NOISE + 1 + each % PROFILE] if is_step else 0
            for column, name in enumerate(_KNOWN, 3):
                at = [self._names.index(f"{name}_{step + 1}") for step in steps]
                of_step[some, column] = calendar[t[some]][:, at].mean(axis=1)
        year = calendar[t][:, [self._names.index(name) for name in YEAR]]
        return np.concatenate([own, year, of_step], axis=1)

    def _index(self, t: int, output: int) -> float:
        return float(self._indices(output)[t])

    def _indices(self, output: int) -> NDArray[np.float32]:
        """Give the shop's index of a step, or its sum, as known after each window; float32 (T,)."""
        ahead = self._arrays.season_next
        found: NDArray[np.float32] = (
            ahead[:, output] if output < self._horizon else ahead[:, : self._spans[output - self._horizon]].sum(axis=1)
        )
        return found


def _missing(*, package: str, said: str) -> BadSetting:
    return BadSetting(f"forecasts of others beside ours need {package} ({said}): install `skutrend[references]`")
