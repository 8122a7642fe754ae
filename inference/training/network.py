"""The network: a residual two-layer LSTM with a direct multi-horizon quantile head.

Everything it says is in scaled units: demand divided by nu (the SKU's own level) and by the shop's season index of
the target window; quantiles lie apart in units of the SKU's own noise. The structure follows MQ-RNN (Wen et al. 2017)
with non-crossing increments (Park et al. 2022).

Quantiles of single windows are said twice, by two heads on one encoder: once divided by the shop's season, and once
not. They err in different ways, so their mean, which is served, is better than either. Of windows below a day there is
the first head only: a day's hours are too different.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from features.cadence import HORIZON, LEVELS, SUM_WINDOWS

# how far below zero the median may reach before the floor: lets a quantile be exactly 0, not merely small
MEDIAN_OFFSET = 0.1
STEEPNESS = 1.0


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes of a network and what its outputs mean. `levels` ascend and hold the median.

    noise: which of the features is the logarithm of how much a SKU's windows scatter, in scales: the unit in which
    quantiles lie apart, so that a network that has learnt from restless shops fits a steady one. None: the scale is.
    heads: 2, or 1 without the one that leaves the shop's season out.
    """

    n_features: int
    n_calendar: int = 0
    noise: int | None = None
    hidden: int = 48
    width: int = 128
    horizon: int = HORIZON
    levels: tuple[float, ...] = LEVELS
    sum_windows: tuple[int, ...] = SUM_WINDOWS
    heads: int = 2

    def __post_init__(self) -> None:
        """Refuse levels and spans that the head cannot say."""
        if tuple(sorted(self.levels)) != self.levels or 0.5 not in self.levels:  # noqa: PLR2004 - the median
            message = f"levels must ascend and hold 0.5, not {self.levels}"
            raise ValueError(message)
        if max(self.sum_windows) > self.horizon:
            message = f"sums over {self.sum_windows} windows need a horizon of as many, not {self.horizon}"
            raise ValueError(message)

    @property
    def groups(self) -> int:
        """Count the sets of quantiles, K + S: every step and every sum has its own."""
        return self.horizon + len(self.sum_windows)

    @property
    def sets(self) -> int:
        """Count the sets of quantiles of all heads."""
        return self.groups + (self.horizon if self.heads > 1 else 0)

    @property
    def outward(self) -> Tensor:
        """Build f4[Q]: 0 at the median's place, 1 at those of distances."""
        return torch.tensor([float(level != 0.5) for level in self.levels])  # noqa: PLR2004 - the median

    @property
    def mixing(self) -> Tensor:
        """Build f4[Q, Q]: quantiles = positive parts @ mixing, less MEDIAN_OFFSET.

        The part at the median's place is the median; one further out is the distance to its inner neighbour.
        """
        middle, count = self.levels.index(0.5), len(self.levels)
        mixing = torch.zeros(count, count)
        mixing[middle] = 1.0
        for level in range(middle + 1, count):
            mixing[level, level:] = 1.0
        for level in range(middle):
            mixing[level, : level + 1] = -1.0
        return mixing


class Blind(NamedTuple):
    """Places of inputs that a network does not heed."""

    features: tuple[int, ...] = ()
    calendar: tuple[int, ...] = ()


SEES_ALL = Blind()


class States(NamedTuple):
    """Hidden and cell state, each f4[2, B, H], as torch's LSTM has them."""

    h: Tensor
    c: Tensor


class Outlook(NamedTuple):
    """What is expected after each origin, scaled; quantiles ascend and may lie below 0 (the floor is the server's).

    quantiles [..., K, Q], sums [..., S, Q], mean [..., K] > 0. flat: quantiles [..., K, Q] of the other head, in units
    of nu alone; None without it.
    """

    quantiles: Tensor
    sums: Tensor
    mean: Tensor
    flat: Tensor | None = None

    def units(self, nu: Tensor, season_next: Tensor, season_sums: Tensor) -> tuple[Tensor, Tensor]:
        """Give the quantiles and sums that are served, units, but for the rounding.

        nu: [...]. season_next: [..., K], season_sums: [..., S].
        """
        steps = self.quantiles.clamp_min(0) * season_next[..., None]
        if self.flat is not None:
            steps = (steps + self.flat.clamp_min(0) * (season_next > 0)[..., None]) / 2
        sums = self.sums.clamp_min(0) * season_sums[..., None]
        return steps * nu[..., None, None], sums * nu[..., None, None]


def positive(x: Tensor) -> Tensor:
    """Map smoothly onto (0, inf) by squareplus (Barron 2021): softplus's shape, far cheaper in ONNX Runtime."""
    return (x + torch.sqrt(x * x + STEEPNESS)) * 0.5


class Network(nn.Module):
    """Encoder and head; `layout` holds the sizes. Fresh states are zeros."""

    mixing: Tensor
    outward: Tensor

    def __init__(self, layout: Layout, *, dropout: float = 0.0) -> None:
        """Draw initial weights from torch's global generator; `dropout` is a share and acts in training only."""
        super().__init__()
        self.layout = layout
        self.dropout = nn.Dropout(dropout)
        self.lstm1 = nn.LSTM(layout.n_features, layout.hidden)
        self.lstm2 = nn.LSTM(layout.hidden, layout.hidden)
        self.inner = nn.Linear(layout.hidden + layout.n_features + layout.n_calendar, layout.width)
        self.parts = nn.Linear(layout.width, layout.sets * len(layout.levels))
        self.mean = nn.Linear(layout.width, layout.horizon)
        self.register_buffer("mixing", layout.mixing, persistent=False)
        self.register_buffer("outward", layout.outward, persistent=False)
        self._start_gently()

    def _start_gently(self) -> None:
        """Forget gates open, quantiles spread around 1 (= the SKU's own level), so that step 0 is a plain forecast."""
        hidden, middle = self.layout.hidden, self.layout.levels.index(0.5)
        with torch.no_grad():
            for lstm in (self.lstm1, self.lstm2):
                lstm.get_parameter("bias_ih_l0")[hidden : 2 * hidden] = 1.0
            bias = self.parts.bias.view(self.layout.sets, -1)
            bias.fill_(-0.75)  # squareplus: 0.25 between neighbours
            bias[:, middle] = 0.7  # squareplus: 0.96
            self.mean.bias.fill_(0.75)  # squareplus: 1

    def be_blind_to(self, inputs: Blind) -> None:
        """Let some inputs weigh nothing; it stays so in a training that shows zeros there."""
        own = self.layout.hidden
        shared = own + self.layout.n_features
        read = [own + place for place in inputs.features] + [shared + place for place in inputs.calendar]
        with torch.no_grad():
            self.inner.weight[:, read] = 0.0
            self.lstm1.get_parameter("weight_ih_l0")[:, list(inputs.features)] = 0.0

    def encode(self, x: Tensor, states: States | None = None) -> tuple[Tensor, States]:
        """Encode x [T, B, F] -> what the head reads [T, B, H + F], and the states after the last step."""
        first = second = None
        if states is not None:
            first, second = ((states.h[i : i + 1], states.c[i : i + 1]) for i in (0, 1))
        out1, (h1, c1) = self.lstm1(x, first)
        out2, (h2, c2) = self.lstm2(self.dropout(out1), second)
        return torch.cat((out2 + out1, x), dim=-1), States(torch.cat((h1, h2)), torch.cat((c1, c2)))

    def outlook(self, encoded: Tensor, calendar: Tensor) -> Outlook:
        """Turn encoded origins [..., H + F], and what is known after each [..., C], into their outlook."""
        layout = self.layout
        read = torch.cat((encoded, calendar), dim=-1)
        inner = self.dropout(torch.relu(self.inner(self.dropout(read))))
        parts = positive(self.parts(inner))
        parts = parts.reshape(*parts.shape[:-1], layout.sets, len(layout.levels))
        if layout.noise is not None:
            noise = torch.exp(encoded[..., layout.hidden + layout.noise])[..., None, None]
            parts = parts * (noise * self.outward + (1.0 - self.outward))
        quantiles = parts @ self.mixing - MEDIAN_OFFSET
        steps, rest = quantiles[..., : layout.horizon, :], quantiles[..., layout.horizon :, :]
        sums, flat = rest[..., : len(layout.sum_windows), :], rest[..., len(layout.sum_windows) :, :]
        return Outlook(steps, sums, positive(self.mean(inner)), flat if layout.heads > 1 else None)

    def forward(self, x: Tensor, calendar: Tensor, states: States | None = None) -> tuple[Outlook, States]:
        """Read x [T, B, F], calendar [T, B, C], states -> the outlook after every step, the states after the last."""
        encoded, after = self.encode(x, states)
        return self.outlook(encoded, calendar), after
