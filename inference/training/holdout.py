"""How good a network is on windows it has not seen, beside seasonal naive on the same cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inference.scoring import pinball
from inference.training.crops import Timeline
from inference.training.loss import lead_sums, outlook_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.training.arrays import TrainingArrays
    from inference.training.crops import Crop
    from inference.training.network import Layout, Network

NAIVE_LOOK = 84
SKUS_AT_ONCE = 512
JUDGES = 256


def origins_held_out(*, horizon: int, until_index: int) -> range:
    """Name the last K + 1 origins whose K targets all lie in the last 2 K windows before `until_index`."""
    return range(until_index - 2 * horizon - 1, until_index - horizon)


@dataclass
class _Tally:
    """Pinball of a method and of seasonal naive over the same cells, and the units sold in them."""

    model: float = 0.0
    naive: float = 0.0
    units: float = 0.0
    cells: int = 0

    def add(
        self,
        y: NDArray[np.float64],
        model: NDArray[np.float64],
        naive: NDArray[np.float64],
        levels: NDArray[np.float64],
    ) -> None:
        self.model += float(pinball(y, model, levels).mean(axis=1).sum())
        self.naive += float(pinball(y, naive, levels).mean(axis=1).sum())
        self.units += float(y.sum())
        self.cells += len(y)

    def report(self, name: str) -> dict[str, float]:
        sold = max(self.units, 1e-9)
        return {
            f"wql_{name}": round(2 * self.model / sold, 5),
            f"wql_{name}_seasonal_naive": round(2 * self.naive / sold, 5),
            f"cells_{name}": self.cells,
        }


def measure(
    network: Network, arrays: TrainingArrays, *, until_index: int, crop_length: int, season_length: int
) -> dict[str, float]:
    """Measure the weighted quantile loss, 2 x pinball / units, of the network and of seasonal naive.

    Per step and per lead sum. Quantiles are served ones: floored at 0, in units, rounded for SKUs sold by the piece.
    Only live SKUs, open windows and origins of `origins_held_out`; state is carried for `crop_length` windows before
    the first of them.
    """
    layout = network.layout
    origins = origins_held_out(horizon=layout.horizon, until_index=until_index)
    history = Timeline(arrays, end=until_index)
    levels = np.array(layout.levels)
    tallies = {"step": _Tally(), **{f"sum{windows}": _Tally() for windows in layout.sum_windows}}
    naive = SeasonalNaive(arrays, layout, until_index=until_index, season_length=season_length)
    integer_units = arrays.whole_units(until_index=until_index)
    alive = _alive(history, origins)
    network.eval()
    for begin in range(0, len(alive), SKUS_AT_ONCE):
        skus = alive[begin : begin + SKUS_AT_ONCE]
        crop = _cut(history, skus, origins, crop_length=crop_length)
        picked = crop.origin.numpy() & (crop.window >= origins.start) & (crop.window < origins.stop)
        model = _served(network, crop, picked, integer_units)
        row, column = np.nonzero(picked)
        basis = naive.at(crop.window[row, column], skus[column])
        y = crop.y.numpy()[picked].astype(np.float64)
        known = np.isfinite(y)
        tallies["step"].add(y[known], model[0][known], basis[0][known], levels)
        season_next = crop.season_next[torch.from_numpy(picked)]
        missing = lead_sums(torch.from_numpy(~known) & (season_next > 0), layout.sum_windows).numpy()
        sums = lead_sums(torch.from_numpy(y), layout.sum_windows).numpy()
        for index, windows in enumerate(layout.sum_windows):
            whole = missing[:, index] == 0
            tallies[f"sum{windows}"].add(sums[whole, index], model[1][whole, index], basis[1][whole, index], levels)
    return {key: value for name, tally in tallies.items() for key, value in tally.report(name).items()}


def _alive(history: Timeline, origins: range) -> NDArray[np.intp]:
    """Find the SKUs that have some of the origins."""
    return np.flatnonzero((history.last_origin >= origins.start) & (history.first_origin < origins.stop))


def _cut(history: Timeline, skus: NDArray[np.intp], origins: range, *, crop_length: int) -> Crop:
    """Cut SKUs, at least one, over the origins and `crop_length` windows before them."""
    starts = np.maximum(history.first_live[skus], max(0, origins.start - crop_length))
    return history.cut(skus, starts, origins.stop - int(starts.min()))


def _served(
    network: Network, crop: Crop, picked: NDArray[np.bool_], integer_units: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quantiles [M, K, Q] and sums [M, S, Q] in units of the M picked origins."""
    mask = torch.from_numpy(picked)
    with torch.no_grad():
        outlook = network.outlook(network.encode(crop.x)[0][mask], crop.calendar[mask])
    nu, season_next = crop.nu[mask], crop.season_next[mask]
    season_sums = lead_sums(season_next, network.layout.sum_windows)
    units = torch.cat(outlook.units(nu, season_next, season_sums), dim=1)
    by_piece = torch.from_numpy(integer_units[crop.skus[np.nonzero(picked)[1]]])
    units = torch.where(by_piece[:, None, None], units.round(), units)
    served = units.numpy().astype(np.float64)
    return served[:, : season_next.shape[1]], served[:, season_next.shape[1] :]


class HeldOut:
    """The loss on some SKUs and origins that are held out: says when to stop."""

    def __init__(self, history: Timeline, *, seed: int, crop_length: int) -> None:
        """Choose at most `JUDGES` SKUs that have such origins; there may be none."""
        self._origins = origins_held_out(horizon=history.horizon, until_index=history.end)
        skus = np.random.default_rng(seed).permutation(_alive(history, self._origins))[:JUDGES]
        self._crop = _cut(history, skus, self._origins, crop_length=crop_length) if len(skus) else None

    def loss(self, network: Network) -> float:
        """Give what the network would be punished for; NaN where nothing is held out."""
        if self._crop is None:
            return float("nan")
        crop = self._crop
        picked = torch.from_numpy((crop.window >= self._origins.start) & (crop.window < self._origins.stop))
        network.eval()
        with torch.no_grad():
            at = crop.origin & picked
            outlook = network.outlook(network.encode(crop.x)[0][at], crop.calendar[at])
            return float(outlook_loss(outlook, crop, picked, network.layout))


class SeasonalNaive:
    """The same window one season back, plus the empirical quantiles of that difference over the last 84 windows.

    A sum is the sum of its steps plus the quantiles of differences between back-to-back past sums. Closed or unknown
    windows are filled from a season earlier, so a weekday that is closed today does not predict zero for ever.
    """

    def __init__(self, arrays: TrainingArrays, layout: Layout, *, until_index: int, season_length: int) -> None:
        """Look at the windows of `arrays` before `until_index` only."""
        self._layout, self._period = layout, season_length
        y = arrays.y[:until_index].astype(np.float64)
        is_open = np.concatenate(([True], arrays.season_next[: until_index - 1, 0] > 0))
        filled = np.where(is_open[:, None], y, np.nan)
        for window in range(season_length, until_index):
            gap = np.isnan(filled[window])
            filled[window, gap] = filled[window - season_length, gap]
        self._filled = np.nan_to_num(filled)
        self._open = is_open
        self._season_next = arrays.season_next
        self._cache: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def at(
        self, windows: NDArray[np.int64], skus: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Forecast quantiles [M, K, Q] and sums [M, S, Q] after `windows[i]` of SKU `skus[i]`."""
        layout = self._layout
        quantiles = np.empty((len(windows), layout.horizon, len(layout.levels)))
        sums = np.empty((len(windows), len(layout.sum_windows), len(layout.levels)))
        for window in np.unique(windows):
            here = np.flatnonzero(windows == window)
            quantiles[here], sums[here] = self._forecast(int(window), skus[here])
        return quantiles, sums

    def _forecast(self, window: int, skus: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        layout, now = self._layout, window + 1
        past = self._filled[:now][:, skus]
        is_open = self._season_next[window] > 0
        lags = [-(-step // self._period) * self._period for step in range(1, layout.horizon + 1)]
        back = [max(0, window + step - lag) for step, lag in enumerate(lags, start=1)]
        point = np.where(is_open[None, :], past[back].T, 0.0)
        spread = {lag: self._spread(past, lag) for lag in set(lags)}
        quantiles = np.stack([point[:, [i]] + spread[lag] for i, lag in enumerate(lags)], axis=1)
        sums = np.stack(
            [point[:, :w].sum(axis=1)[:, None] + self._sum_spread(past, w) for w in layout.sum_windows], axis=1
        )
        return np.maximum(quantiles, 0.0), np.maximum(sums, 0.0)

    def _spread(self, past: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
        begin = max(lag, len(past) - NAIVE_LOOK)
        return self._quantiles(
            past[begin:][self._open[begin : len(past)]]
            - past[begin - lag : len(past) - lag][self._open[begin : len(past)]]
        )

    def _sum_spread(self, past: NDArray[np.float64], windows: int) -> NDArray[np.float64]:
        recent = np.where(self._open[: len(past), None], past, 0.0)[-NAIVE_LOOK - windows :]
        total = np.cumsum(np.vstack((np.zeros((1, past.shape[1])), recent)), axis=0)
        sums = total[windows:] - total[:-windows]
        return self._quantiles(sums[windows:] - sums[:-windows])

    def _quantiles(self, differences: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(differences):
            return np.zeros((differences.shape[1], len(self._layout.levels)))
        return np.quantile(differences, self._layout.levels, axis=0).T
