"""The `train` command: event files -> the serving code's own vectors -> network -> checked bundle."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from features.currency import ShopCurrency
from features.encoding import FEATURES, fingerprint
from features.grid import DAY_MS, WindowGrid
from features.horizon import HORIZON, LEVELS, SUM_WINDOWS
from features.sku_state import SkuState
from inference.bundle import Manifest, Span, describe, load
from schemas.errors import BadInput, BadSetting
from streams.events import tables as event_tables
from streams.events.files import Kind

DEFAULT_ITERATIONS = 800


def local_ms(day: datetime, grid: WindowGrid) -> int:
    """Give the first millisecond of a shop-local date."""
    return int(day.replace(tzinfo=ZoneInfo(grid.timezone)).timestamp() * 1000)


def train_bundle(  # noqa: PLR0913 - the command's options, all by name
    files: Mapping[Kind, Path],
    *,
    out: Path,
    until: datetime | None,
    timezone: str,
    iterations: int | None,
    seed: int,
    money: ShopCurrency | None = None,
) -> None:
    """Train on what happened before `until` and write a bundle to `out`; `BadInput` where there is too little."""
    money = money or ShopCurrency()
    try:
        import torch  # noqa: PLC0415 - the train extra
    except ImportError as error:
        msg = "training needs PyTorch: install `skutrend[train]`"
        raise BadSetting(msg) from error
    from inference.training.export import export  # noqa: PLC0415
    from inference.training.fit import fit  # noqa: PLC0415
    from inference.training.history import collect  # noqa: PLC0415

    console = Console(stderr=True)
    grid = WindowGrid(window_ms=DAY_MS, timezone=timezone)
    until_ms = local_ms(until, grid) if until else None
    with console.status("reading events"):
        events = event_tables.load(files)
    with console.status("replaying them through the serving code"):
        history = collect(SkuState(grid, money=money), events, until_ms=until_ms)
    for line in money.told():
        console.print(line, highlight=False)
    arrays = history.arrays
    console.print(f"{arrays.windows} windows of {len(history.skus)} SKUs")
    bars = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*bars, console=console) as progress:
        task = progress.add_task("training", total=None, loss=float("nan"))
        try:
            result = fit(
                arrays,
                seed=seed,
                until_index=arrays.windows,
                season_length=grid.season,
                progress=lambda done, total, loss: progress.update(task, completed=done, total=total, loss=loss),
                iterations=iterations or DEFAULT_ITERATIONS,
            )
        except ValueError as error:
            raise BadInput(str(error)) from error
    manifest = Manifest(
        name=f"lstm-{grid.window_ms // DAY_MS}d",
        version=f"{version('skutrend')}.{history.ends_ms // DAY_MS}",
        feature_fingerprint=fingerprint(),
        features=FEATURES,
        window_ms=grid.window_ms,
        horizon=HORIZON,
        quantile_levels=LEVELS,
        sum_windows=SUM_WINDOWS,
        hidden=result.network.layout.hidden,
        training_span=Span(start_ms=int(history.starts_ms[0]), end_ms=history.ends_ms),
        metrics=result.metrics,
        created_by=f"skutrend {version('skutrend')}, torch {torch.__version__}",
    )
    with console.status("exporting and checking"):
        export(result.network, out, manifest=manifest)
    for line in describe(load(out, expected_fingerprint=fingerprint())):
        console.print(line, highlight=False)
