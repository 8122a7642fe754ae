"""The `train` command: event files -> the serving code's own vectors -> network -> checked bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from features.admission import Columns
from features.cadence import DAY_MS, HOUR_MS, LEVELS, MINUTE_MS
from features.currency import ShopCurrency
from features.encoding import FEATURES, NOISE, calendar_names, fingerprint
from features.grid import WindowGrid
from features.offline import windows_between
from features.sku_state import SkuState
from inference.bundle import Manifest, Span, describe, load
from schemas.errors import BadInput, BadSetting
from schemas.inputs import InputName
from streams.events import tables as event_tables
from streams.observe.progress import track_progress
from streams.state import directories

if TYPE_CHECKING:
    from inference.training.fit import FitResult, OtherShop
    from inference.training.history import History

DEFAULT_ITERATIONS, ITERATIONS_OF_MANY_SHOPS = 600, 800


def local_ms(day: datetime, grid: WindowGrid) -> int:
    """Give the first millisecond of a shop-local date."""
    return grid.date_start_ms(day.date())


def length_name(window_ms: int) -> str:
    """Name a window length briefly.

    >>> [length_name(ms) for ms in (86_400_000, 604_800_000, 3_600_000, 900_000)]
    ['1d', '7d', '1h', '15min']
    """
    for unit_ms, unit in ((DAY_MS, "d"), (HOUR_MS, "h")):
        if window_ms % unit_ms == 0:
            return f"{window_ms // unit_ms}{unit}"
    return f"{window_ms // MINUTE_MS}min"


def train_bundle(  # noqa: PLR0913 - the command's options, all by name
    files: Mapping[InputName, Path],
    *,
    out: Path,
    until: datetime | None,
    grid: WindowGrid,
    iterations: int | None,
    seed: int,
    any_shop: bool = False,
    money: ShopCurrency | None = None,
) -> None:
    """Train on what happened before `until` and write a bundle to `out`; `BadInput` where there is too little.

    any_shop: learn from remixed and synthetic shops, too, for one that will be served without a training of its own.
    """
    money = money or ShopCurrency()
    try:
        from inference.training.export import export  # noqa: PLC0415 - the train extra
    except ImportError as error:
        msg = "training needs PyTorch: install `skutrend[train]`"
        raise BadSetting(msg) from error

    directories.prepare(out, what=f"the directory {out} (--out)", error=BadInput)  # now, not after the training
    console = Console(stderr=True)
    until_ms = local_ms(until, grid) if until else None
    events = event_tables.load_with_progress(files)
    history = _collect(events, grid, money, until_ms=until_ms)
    for line in money.told():
        console.print(line, highlight=False)
    console.print(f"{history.arrays.windows} windows of {len(history.skus)} SKUs")
    others = _others(events, grid, seed=seed, until_ms=until_ms) if any_shop else []
    result = _fit(
        history,
        grid,
        others,
        iterations=iterations or (ITERATIONS_OF_MANY_SHOPS if any_shop else DEFAULT_ITERATIONS),
        seed=seed,
    )
    with track_progress("exporting and checking"):
        export(result.network, out, manifest=_manifest(history, result, grid))
    for line in describe(load(out, expected_fingerprint=fingerprint())):
        console.print(line, highlight=False)


def _collect(events: Mapping[int, Columns], grid: WindowGrid, money: ShopCurrency, *, until_ms: int | None) -> History:
    from inference.training.history import collect  # noqa: PLC0415 - the train extra

    windows = windows_between(grid, events, until_ms=until_ms)
    with track_progress("replaying windows through the serving code", windows) as progress:
        return collect(SkuState(grid, money=money), events, until_ms=until_ms, progress=progress.reach)


def _others(events: Mapping[int, Columns], grid: WindowGrid, *, seed: int, until_ms: int | None) -> list[OtherShop]:
    from inference.training import any_shop  # noqa: PLC0415 - the train extra

    if grid.window_ms != DAY_MS:
        msg = f"synthetic shops have day windows, not {grid.window_ms} ms; leave --any-shop out"
        raise BadInput(msg)
    shops = any_shop.REMIXES + any_shop.SYNTHETIC_SHOPS
    with track_progress("making other shops", shops) as progress:
        return any_shop.others(
            events, grid, seed=seed, until_ms=until_ms, progress=lambda done: progress.at(done, total=shops)
        )


def _fit(history: History, grid: WindowGrid, others: Sequence[OtherShop], *, iterations: int, seed: int) -> FitResult:
    from inference.training.fit import Recipe, fit  # noqa: PLC0415 - the train extra
    from inference.training.network import Layout  # noqa: PLC0415 - the train extra
    from inference.training.unheeded import unheeded  # noqa: PLC0415 - the train extra

    arrays = history.arrays
    # what many shops teach is not over when one of them has learnt enough
    recipe = Recipe(patience=None) if others else Recipe()
    span_ms = history.ends_ms - int(history.starts_ms[0])
    with track_progress("training, iterations") as progress:
        try:
            return fit(
                arrays,
                seed=seed,
                until_index=arrays.windows,
                layout=Layout(
                    n_features=arrays.n_features,
                    n_calendar=arrays.n_calendar,
                    noise=NOISE,
                    horizon=arrays.horizon,
                    sum_windows=grid.cadence.spans,
                    heads=1 if grid.window_ms < DAY_MS else 2,
                ),
                recipe=recipe,
                others=others,
                blind_to=unheeded(span_ms=span_ms, any_shop=bool(others), horizon=arrays.horizon),
                season_length=grid.season_windows,
                progress=lambda done, total, loss: progress.at(done, total=total, detail=f"loss {loss:.4f}"),
                iterations=iterations,
            )
        except ValueError as error:
            raise BadInput(str(error)) from error


def _manifest(history: History, result: FitResult, grid: WindowGrid) -> Manifest:
    return Manifest(
        name=f"lstm-{length_name(grid.window_ms)}",
        version=f"{version('skutrend')}.{history.ends_ms // DAY_MS}",
        feature_fingerprint=fingerprint(),
        features=FEATURES,
        calendar=calendar_names(grid.cadence.horizon),
        window_ms=grid.window_ms,
        windows=grid.signature,
        horizon=grid.cadence.horizon,
        quantile_levels=LEVELS,
        sum_windows=grid.cadence.spans,
        hidden=result.network.layout.hidden,
        training_span=Span(start_ms=int(history.starts_ms[0]), end_ms=history.ends_ms),
        metrics=result.metrics,
        created_by=f"skutrend {version('skutrend')}, torch {version('torch')}",
    )
