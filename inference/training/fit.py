"""Training: random crops of a shop's history, every window an origin, one cycle of the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from inference.training.crops import Timeline, born, draw
from inference.training.holdout import measure
from inference.training.loss import outlook_loss
from inference.training.network import Layout, Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from inference.training.arrays import TrainingArrays
    from inference.training.crops import Crop


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained; the defaults suit some thousand SKUs and a minute or two on two cores."""

    batch: int = 256
    crop_windows: int = 112
    warm_up_windows: int = 8
    shortest_windows: int = 28
    origin_stride: int = 4
    newborn_share: float = 0.2
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    clip: float = 1.0
    dropout: float = 0.1
    # after the honest measurement: this share of the iterations again, on everything before `until_index`
    refresh_share: float = 0.2
    refresh_rate: float = 5e-4


@dataclass(frozen=True, slots=True)
class FitResult:
    """A trained network, in eval mode, and how well it did on windows held out *before* the last refresh.

    metrics: wql_step, wql_step_seasonal_naive, cells_step; the same for sum7, sum14; iterations; final_loss.
    """

    network: Network
    metrics: dict[str, float]


def fit(  # noqa: PLR0913 - keyword-only but for the arrays
    arrays: TrainingArrays,
    *,
    seed: int,
    until_index: int,
    iterations: int = 600,
    layout: Layout | None = None,
    recipe: Recipe | None = None,
    season_length: int = 7,
    progress: Callable[[int, int, float], None] | None = None,
) -> FitResult:
    """Train on the windows before `until_index`; nothing from there on is read.

    The last 2 K windows are held out at first, with K origins between the last trained and the first measured one, so
    that no target is shared; after measuring, a short refresh lets the network see them too. The same seed, arrays and
    thread count give the same weights. `season_length` is the period of the seasonal naive it is compared with.
    `progress(done, total, loss)` is called after every iteration. Leaves torch's global generator as it was.

    Raises ValueError when there is too little history to train on and hold out.
    """
    recipe = recipe or Recipe()
    layout = layout or Layout(n_features=arrays.n_features, horizon=arrays.horizon)
    horizon = layout.horizon
    if (layout.n_features, horizon) != (arrays.n_features, arrays.horizon):
        message = (
            f"layout of {layout.n_features} features, {horizon} steps; "
            f"arrays have {arrays.n_features}, {arrays.horizon}"
        )
        raise ValueError(message)
    if until_index > arrays.windows:
        message = f"until_index is {until_index}, but there are only {arrays.windows} windows"
        raise ValueError(message)
    early = Timeline(arrays, end=max(until_index - 2 * horizon, 0))
    if not len(early.trainable):
        message = (
            f"no SKU was live early enough: {until_index} windows, of which the last {2 * horizon} are held out "
            f"and {horizon} are targets; train on a longer history"
        )
        raise ValueError(message)
    again = round(iterations * recipe.refresh_share)
    generator = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(layout, dropout=recipe.dropout)
        run = _Run(network, recipe, generator, total=iterations + again, progress=progress)
        run.train(early, iterations, peak=recipe.learning_rate)
        metrics = measure(
            network, arrays, until_index=until_index, crop_length=recipe.crop_windows, season_length=season_length
        )
        if again:
            run.train(Timeline(arrays, end=until_index), again, peak=recipe.refresh_rate)
    network.eval()
    return FitResult(network, {**metrics, "iterations": run.done, "final_loss": round(run.loss, 5)})


class _Run:
    """One network on its way through several learning-rate cycles."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        generator: np.random.Generator,
        *,
        total: int,
        progress: Callable[[int, int, float], None] | None,
    ) -> None:
        self._network, self._recipe, self._generator = network, recipe, generator
        self._total, self._progress = total, progress
        self.done, self.loss = 0, float("nan")

    def train(self, history: Timeline, iterations: int, *, peak: float) -> None:
        """Take `iterations` steps over `history`, the learning rate going up to `peak` and down to nothing."""
        recipe = self._recipe
        optimiser = AdamW(self._network.parameters(), lr=peak, weight_decay=recipe.weight_decay)
        schedule = OneCycleLR(optimiser, max_lr=peak, total_steps=max(iterations, 2))
        self._network.train()
        for _ in range(iterations):
            crop = draw(
                history,
                self._generator,
                batch=recipe.batch,
                length=recipe.crop_windows,
                newborn=recipe.newborn_share,
                shortest=recipe.shortest_windows,
            )
            loss = self._step(crop, history)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            clip_grad_norm_(self._network.parameters(), recipe.clip)
            optimiser.step()
            schedule.step()
            self.done, value = self.done + 1, float(loss.detach())
            self.loss = value if np.isnan(self.loss) else 0.95 * self.loss + 0.05 * value
            if self._progress is not None:
                self._progress(self.done, self._total, value)

    def _step(self, crop: Crop, history: Timeline) -> Tensor:
        recipe, network = self._recipe, self._network
        encoded, _ = network.encode(crop.x)
        counts = torch.ones(crop.origin.shape, dtype=torch.bool)
        counts[: recipe.warm_up_windows] = torch.from_numpy(born(history, crop))[None, :]
        # neighbouring origins say nearly the same: every fourth, from a random one on, costs a quarter
        rows = slice(int(self._generator.integers(recipe.origin_stride)), None, recipe.origin_stride)
        crop, counts = crop.rows(rows), counts[rows]
        outlook = network.outlook(encoded[rows][crop.origin & counts])
        return outlook_loss(outlook, crop, counts, network.layout)
