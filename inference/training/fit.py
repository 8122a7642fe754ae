"""Training: random crops of shops' histories, every window an origin, until the windows held out say it is enough."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from inference.training.crops import Timeline, born, draw
from inference.training.holdout import HeldOut, measure
from inference.training.loss import outlook_loss
from inference.training.network import SEES_ALL, Blind, Layout, Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from inference.training.arrays import TrainingArrays
    from inference.training.crops import Crop


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained; the defaults suit some hundred to some thousand SKUs and a few minutes on two cores.

    Every `check_every` iterations the loss on the windows held out is looked at; training ends once it has not got
    better in `patience` looks, and goes on from where it was best. With a patience of None it does not look.
    """

    batch: int = 256
    crop_windows: int = 112
    warm_up_windows: int = 8
    shortest_windows: int = 28
    origin_stride: int = 4
    newborn_share: float = 0.15
    learning_rate: float = 1e-3
    learning_rate_warm_up: int = 30
    averaging: float = 0.98  # of the weights, over iterations: what is measured and kept is their running mean
    weight_decay: float = 1e-4
    clip: float = 1.0
    dropout: float = 0.1
    check_every: int = 20
    patience: int | None = 6
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


@dataclass(frozen=True, slots=True)
class OtherShop:
    """Another shop's history, learnt from whole, and the share of the batches that are drawn from it."""

    arrays: TrainingArrays
    share: float


def fit(  # noqa: PLR0913 - keyword-only but for the arrays
    arrays: TrainingArrays,
    *,
    seed: int,
    until_index: int,
    iterations: int = 800,
    others: Sequence[OtherShop] = (),
    blind_to: Blind = SEES_ALL,
    layout: Layout | None = None,
    recipe: Recipe | None = None,
    season_length: int = 7,
    progress: Callable[[int, int, float], None] | None = None,
) -> FitResult:
    """Train on the windows before `until_index`, in at most `iterations`; nothing from there on is read.

    The last 2 K windows are held out at first, with K origins between the last trained and the first measured one, so
    that no target is shared. They say when to stop, so what is measured on them flatters a little. After measuring, a
    short refresh lets the network see them too. The same seed, arrays and thread count give the same weights.
    `season_length` is the period of the seasonal naive it is compared with. What `blind_to` names has no part in what
    the network says. `progress(done, total, loss)` is called after every iteration. Leaves torch's global generator as
    it was.

    Raises ValueError when there is too little history to train on and hold out.
    """
    recipe = recipe or Recipe()
    layout = layout or Layout(n_features=arrays.n_features, n_calendar=arrays.n_calendar, horizon=arrays.horizon)
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
    arrays = _without(arrays, blind_to)
    early = Timeline(arrays, end=max(until_index - 2 * horizon, 0))
    if not len(early.trainable):
        message = (
            f"no SKU was live early enough: {until_index} windows, of which the last {2 * horizon} are held out "
            f"and {horizon} are targets; train on a longer history"
        )
        raise ValueError(message)
    strangers = [
        (Timeline(_without(other.arrays, blind_to), end=other.arrays.windows), other.share) for other in others
    ]
    own = 1.0 - sum(share for _, share in strangers)
    whole = Timeline(arrays, end=until_index)
    generator = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(layout, dropout=recipe.dropout)
        network.be_blind_to(blind_to)
        held_out = HeldOut(whole, seed=seed, crop_length=recipe.crop_windows)
        total = iterations + round(iterations * recipe.refresh_share)
        run = _Run(network, recipe, generator, total=total, progress=progress)
        best = run.train([(early, own), *strangers], iterations, held_out)
        metrics = measure(
            network, arrays, until_index=until_index, crop_length=recipe.crop_windows, season_length=season_length
        )
        again = round(best * recipe.refresh_share)
        run.total = run.done + again
        if again:
            run.refresh([(whole, own), *strangers], again)
    network.eval()
    return FitResult(network, {**metrics, "iterations": run.done, "final_loss": round(run.loss, 5)})


def _without(arrays: TrainingArrays, blind_to: Blind) -> TrainingArrays:
    """Take inputs out: where nothing is shown, nothing is learnt."""
    if blind_to == SEES_ALL:
        return arrays
    x, calendar = arrays.x.copy(), arrays.calendar.copy()
    x[:, :, list(blind_to.features)] = 0
    calendar[:, list(blind_to.calendar)] = 0
    return replace(arrays, x=x, calendar=calendar)


Shops = Sequence[tuple[Timeline, float]]


class _Run:
    """One network on its way through training and refresh."""

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
        self.total, self._progress = total, progress
        self.done, self.loss = 0, float("nan")

    def train(self, shops: Shops, iterations: int, held_out: HeldOut) -> int:
        """Take at most `iterations` steps, leave the network where it was best, and return after how many that was."""
        recipe, network = self._recipe, self._network
        mean = deepcopy(network)
        least, best, kept = float("inf"), iterations, mean.state_dict()  # of the mean as it is: it moves in place
        optimiser = AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedule = LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / recipe.learning_rate_warm_up))
        for done in range(1, iterations + 1):
            self._learn(shops, optimiser, schedule)
            _average(mean, network, keep=min(recipe.averaging, done / (10 + done)))
            if recipe.patience is not None and (done % recipe.check_every == 0 or done == iterations):
                loss = held_out.loss(mean)
                if loss < least:
                    least, best, kept = loss, done, deepcopy(mean.state_dict())
                elif done - best >= recipe.patience * recipe.check_every:
                    break
        network.load_state_dict(kept)
        return best

    def refresh(self, shops: Shops, iterations: int) -> None:
        """Take `iterations` steps, the learning rate going up to that of a refresh and down to nothing."""
        recipe = self._recipe
        optimiser = AdamW(self._network.parameters(), lr=recipe.refresh_rate, weight_decay=recipe.weight_decay)
        schedule = OneCycleLR(optimiser, max_lr=recipe.refresh_rate, total_steps=max(iterations, 2))
        for _ in range(iterations):
            self._learn(shops, optimiser, schedule)

    def _learn(self, shops: Shops, optimiser: AdamW, schedule: LRScheduler) -> None:
        """Take one step."""
        recipe = self._recipe
        # one shop needs no choice: its crops are those it would have without others
        which = 0 if len(shops) == 1 else int(self._generator.choice(len(shops), p=_shares(shops)))
        history = shops[which][0]
        self._network.train()
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
            self._progress(self.done, self.total, value)

    def _step(self, crop: Crop, history: Timeline) -> Tensor:
        recipe, network = self._recipe, self._network
        encoded, _ = network.encode(crop.x)
        counts = torch.ones(crop.origin.shape, dtype=torch.bool)
        counts[: recipe.warm_up_windows] = torch.from_numpy(born(history, crop))[None, :]
        # neighbouring origins say nearly the same: every fourth, from a random one on, costs a quarter
        rows = slice(int(self._generator.integers(recipe.origin_stride)), None, recipe.origin_stride)
        crop, counts = crop.rows(rows), counts[rows]
        picked = crop.origin & counts
        outlook = network.outlook(encoded[rows][picked], crop.calendar[picked])
        return outlook_loss(outlook, crop, counts, network.layout)


def _shares(shops: Shops) -> NDArray[np.float64]:
    shares = np.array([share for _, share in shops])
    return np.asarray(shares / shares.sum())


def _average(mean: Network, network: Network, *, keep: float) -> None:
    """Move running means of weights, in place, towards the weights of now."""
    with torch.no_grad():
        for old, new in zip(mean.parameters(), network.parameters(), strict=True):
            old.mul_(keep).add_(new, alpha=1.0 - keep)
