"""What a forecast is punished for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from inference.training.crops import Crop
    from inference.training.network import Layout, Outlook

# Served quantiles have a floor at 0. A slope below it keeps the gradient alive where a quantile has sunk too low.
FLOOR_SLOPE = 0.1
SUM_SHARE = 1.5
MEAN_SHARE = 0.05
# a single cell may not outweigh a crop: beyond this many times the SKU's level the mean learns nothing more
MEAN_CAP = 100.0


def pinball(y: Tensor, quantiles: Tensor, levels: Tensor) -> Tensor:
    """Average over the levels max(tau (y - q), (tau - 1)(y - q)): y [...], quantiles [..., Q] -> [...]."""
    error = y[..., None] - quantiles
    return torch.maximum(levels * error, (levels - 1.0) * error).mean(dim=-1)


def lead_sums(values: Tensor, sum_windows: tuple[int, ...]) -> Tensor:
    """Sum the first 7, 14, ... of [..., K], NaN counting as 0 -> [..., S]."""
    filled = torch.nan_to_num(values)
    return torch.stack([filled[..., :windows].sum(dim=-1) for windows in sum_windows], dim=-1)


def outlook_loss(outlook: Outlook, crop: Crop, counts: Tensor, layout: Layout) -> Tensor:
    """Punish, as one scalar, the outlook of the origins where `counts` (bool [L, B]) and `crop.origin` hold.

    Pinball of ln(1 + units of nu) per step, where quantiles are the same and no spike rules, weighted nu^.5 so that
    neither the few fast SKUs nor the many slow ones do; lead sums alike, per open window; and a Poisson deviance for
    the mean. Both heads are punished alike, each in its own units. Closed windows have no part in any of it. A sum
    counts only where all of its open windows are known.
    """
    levels = torch.tensor(layout.levels)
    picked = crop.origin & counts
    nu, season_next, y = crop.nu[picked], crop.season_next[picked], crop.y[picked]
    if not len(nu):
        return torch.zeros((), requires_grad=True)
    weight = nu.sqrt()[:, None]
    known = torch.isfinite(y)
    cell = weight * known
    whole = cell.sum().clamp_min(1e-6)

    def of_steps(quantiles: Tensor, factors: Tensor) -> Tensor:
        ratio = torch.where(known, y / (nu[:, None] * factors), 0.0)
        return (cell * pinball(torch.log1p(ratio), log_quantiles(quantiles), levels)).sum() / whole

    steps = of_steps(outlook.quantiles, season_next)
    if outlook.flat is not None:
        steps = steps + of_steps(outlook.flat, torch.ones(()))

    season_sums = lead_sums(season_next, layout.sum_windows)
    complete = lead_sums((~known & (season_next > 0)).float(), layout.sum_windows) == 0
    sums_cell = weight * (complete & (season_sums > 0))
    sums_ratio = lead_sums(y, layout.sum_windows) / (nu[:, None] * season_sums).clamp_min(1e-6)
    sums_loss = (sums_cell * pinball(torch.log1p(sums_ratio), log_quantiles(outlook.sums), levels)).sum()
    sums_loss = sums_loss / sums_cell.sum().clamp_min(1e-6)

    capped = torch.where(known, y / (nu[:, None] * season_next), 0.0).clamp(max=MEAN_CAP)
    deviance = outlook.mean - torch.xlogy(capped, outlook.mean)
    return steps + SUM_SHARE * sums_loss + MEAN_SHARE * (cell * deviance).sum() / whole


def log_quantiles(quantiles: Tensor) -> Tensor:
    """Take ln(1 + q), which goes on below 0 as a straight line of a small slope."""
    return torch.where(quantiles > 0, torch.log1p(quantiles.clamp_min(0.0)), FLOOR_SLOPE * quantiles)
