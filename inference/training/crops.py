"""Stretches of history, cut so that a network sees them as a worker would: from a zero state, never past an end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.training.arrays import TrainingArrays


@dataclass(frozen=True, slots=True)
class Crop:
    """B SKUs over L windows, left-aligned at their own starts.

    x f4[L, B, F]; calendar f4[L, B, C]; nu f4[L, B]; season, y f4[L, B, K] of the K windows after each row (y NaN where
    there is nothing to compare with: closed, not live, past the end); origin bool[L, B]: rows that count; skus i8[B];
    window i8[L, B].
    """

    x: Tensor
    calendar: Tensor
    nu: Tensor
    season_next: Tensor
    y: Tensor
    origin: Tensor
    skus: NDArray[np.int64]
    window: NDArray[np.int64]

    def rows(self, picked: slice) -> Crop:
        """Keep a part of the rows as origins; x stays whole, for the encoder needs every step."""
        return Crop(
            self.x,
            self.calendar[picked],
            self.nu[picked],
            self.season_next[picked],
            self.y[picked],
            self.origin[picked],
            self.skus,
            self.window[picked],
        )


class Timeline:
    """The windows before `end` of some arrays, and nothing after: later rows are cut off, not masked.

    Origins are the live windows t with t + horizon < end, so every target is known before `end`.
    """

    def __init__(self, arrays: TrainingArrays, *, end: int) -> None:
        """Cut `arrays` before window `end`."""
        self._x = torch.from_numpy(np.ascontiguousarray(arrays.x[:end])).flatten(0, 1)
        self._nu = torch.from_numpy(np.ascontiguousarray(arrays.nu[:end])).flatten()
        self._calendar = torch.from_numpy(np.ascontiguousarray(arrays.calendar[:end]))
        self._season_next = torch.from_numpy(np.ascontiguousarray(arrays.season_next[:end]))
        self._y = torch.from_numpy(np.ascontiguousarray(arrays.y[:end])).flatten()
        self.end, self.skus, self.horizon = end, arrays.y.shape[1], arrays.horizon
        self._live = arrays.live[:end]
        origins = np.zeros_like(self._live)
        last = max(0, end - self.horizon)
        origins[:last] = self._live[:last]
        self._origins = origins
        self.first_live = np.where(self._live.any(axis=0), self._live.argmax(axis=0), end)
        self.first_origin = np.where(origins.any(axis=0), origins.argmax(axis=0), end)
        self.last_origin = np.where(origins.any(axis=0), end - 1 - origins[::-1].argmax(axis=0), -1)
        self.trainable = np.flatnonzero(origins.any(axis=0))

    def cut(self, skus: NDArray[np.int64], starts: NDArray[np.int64], length: int) -> Crop:
        """Cut `length` windows of each SKU from its start; rows past the end repeat the last one and are no origins."""
        asked = starts[None, :] + np.arange(length)[:, None]
        window = np.minimum(asked, self.end - 1)
        flat = torch.from_numpy(window * self.skus + skus[None, :])
        x = self._x[flat]
        # a SKU that is not live has no features yet: zeros, as a worker's empty state has
        live = torch.from_numpy(self._live[window, skus[None, :]])
        x = torch.where(live[..., None], x, torch.zeros(()))
        at = torch.from_numpy(window)
        calendar, season_next = self._calendar[at], self._season_next[at]
        origin = torch.from_numpy(self._origins[window, skus[None, :]] & (asked == window))
        return Crop(
            x, calendar, self._nu[flat], season_next, self._targets(asked, skus, season_next), origin, skus, asked
        )

    def _targets(self, asked: NDArray[np.int64], skus: NDArray[np.int64], season_next: Tensor) -> Tensor:
        length = asked.shape[0]
        ahead = asked[0][None, :] + np.arange(1, length + self.horizon)[:, None]
        known = torch.from_numpy(ahead < self.end)
        flat = torch.from_numpy(np.minimum(ahead, self.end - 1) * self.skus + skus[None, :])
        later = torch.where(known, self._y[flat], torch.nan).unfold(0, self.horizon, 1)
        return torch.where(season_next > 0, later, torch.nan)


def draw(
    history: Timeline, generator: np.random.Generator, *, batch: int, length: int, newborn: float, shortest: int
) -> Crop:
    """Draw random crops of random SKUs that have an origin.

    A share `newborn` of them begins where the SKU was born, where a zero state is the truth; the others begin
    anywhere that leaves at least `shortest` windows before the last origin.
    """
    skus = generator.choice(history.trainable, size=batch)
    first, last = history.first_live[skus], history.last_origin[skus]
    latest = np.maximum(first, last - shortest + 1)
    starts = generator.integers(first, latest + 1)
    starts = np.where(generator.random(batch) < newborn, first, starts)
    return history.cut(skus, starts, length)


def born(history: Timeline, crop: Crop) -> NDArray[Any]:
    """Tell which crops begin no later than their SKU's first live window: bool[B]."""
    begins: NDArray[Any] = crop.window[0] <= history.first_live[crop.skus]
    return begins
