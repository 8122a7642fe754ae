"""Small shops and untrained networks, for tests of training, bundles and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from features.encoding import CALENDAR, FEATURES, NOISE, fingerprint
from inference.bundle import Bundle, Manifest, Span, load
from inference.training.arrays import TrainingArrays
from inference.training.export import export
from inference.training.network import Layout, Network

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

CALENDAR_OF_SHOP = 3  # what of the windows to come a `weekly_shop` tells
WEEK = np.array([1.2, 0.9, 0.8, 1.0, 1.1, 1.4, 0.0], np.float32)


def weekly_shop(*, windows: int = 160, skus: int = 60, horizon: int = 14, seed: int = 0) -> TrainingArrays:
    """A shop closed on Sundays: Poisson demand around a level of each SKU's own, some SKUs born late; 4 features."""
    rng = np.random.default_rng(seed)
    days = np.arange(windows)
    level = np.exp(rng.normal(0.5, 1.0, skus))
    y = rng.poisson(level * WEEK[days % 7][:, None]).astype(np.float32)
    born = np.where(np.arange(skus) % 3 == 0, rng.integers(0, windows // 3, skus), 0)
    live = days[:, None] >= born
    y[~live] = np.nan
    sold, seen = np.zeros(skus), np.zeros(skus)
    nu = np.ones((windows, skus), np.float32)
    x = np.zeros((windows, skus, 4), np.float32)
    for day in days:
        if WEEK[day % 7] > 0:
            sold += np.nan_to_num(y[day])
            seen += live[day] * WEEK[day % 7]
        nu[day] = np.maximum(sold / np.maximum(seen, 1e-6), 0.1)
        x[day, :, 0] = np.log1p(np.nan_to_num(y[day]) / nu[day])
        x[day, :, 1] = np.log(nu[day]) / 4
        x[day, :, 2] = np.log1p(np.maximum(day - born, 0)) / 6
        x[day, :, 3] = WEEK[day % 7]
    season_next = WEEK[(days[:, None] + 1 + np.arange(horizon)) % 7]
    calendar = season_next[:, :CALENDAR_OF_SHOP].copy()
    return TrainingArrays(x=x, calendar=calendar, nu=nu, season_next=season_next, y=y, live=live)


def untrained(
    *, seed: int = 0, hidden: int = 48, n_features: int = len(FEATURES), n_calendar: int = len(CALENDAR)
) -> Network:
    """A network with random weights, spread out so that its outputs differ between SKUs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(Layout(n_features, n_calendar, noise=NOISE if n_features > NOISE else None, hidden=hidden))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5)
    return network.eval()


def manifest_for(network: Network, **changes: Any) -> Manifest:  # noqa: ANN401 - any of the manifest's fields
    """Describe `network` as trained for this build's features."""
    fields: dict[str, Any] = {
        "name": "test",
        "version": "1",
        "feature_fingerprint": fingerprint(),
        "features": FEATURES,
        "calendar": CALENDAR,
        "window_ms": 86_400_000,
        "horizon": network.layout.horizon,
        "quantile_levels": network.layout.levels,
        "sum_windows": network.layout.sum_windows,
        "hidden": network.layout.hidden,
        "training_span": Span(0, 86_400_000),
        "metrics": {"wql_step": 0.5},
        "created_by": "skutrend tests",
    }
    return Manifest(**(fields | changes))


def bundle_in(directory: Path, *, seed: int = 0, **changes: Any) -> Bundle:  # noqa: ANN401 - as above
    """Export an untrained network to `directory` and load it again."""
    network = untrained(seed=seed)
    export(network, directory, manifest=manifest_for(network, **changes))
    return load(directory, expected_fingerprint=fingerprint())


def step_arrays(n: int, *, seed: int = 0, n_features: int = len(FEATURES)) -> dict[str, Any]:
    """Inputs of `Session.run_step` for n SKUs: all kinds of scales, one closed day a week."""
    rng = np.random.default_rng(seed)
    season_next = WEEK[np.arange(14) % 7]
    return {
        "x": rng.normal(size=(n, n_features)).astype(np.float32),
        "h": np.tanh(rng.normal(size=(n, 2, 48))).astype(np.float32),
        "c": rng.normal(size=(n, 2, 48)).astype(np.float32),
        "calendar": rng.normal(size=len(CALENDAR)).astype(np.float32),
        "scale": np.exp(rng.normal(0, 2, n)).astype(np.float32),
        "season_next": season_next,
        "season_sums": np.array([season_next[:7].sum(), season_next.sum()], np.float32),
        "integer_units": rng.random(n) < 0.5,
    }
