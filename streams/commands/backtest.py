"""The `backtest` command: what live would have served, at rolling origins, from event files.

The same SKU state, model, live scoring and choice of source as in the worker; only Kafka, RocksDB and the clock are
missing; windows are those that the bundle has learnt, if no others are wished for. An origin is the start of the first
forecast window; the forecast there is made when the window before it closes, from that and earlier windows alone. Which
days the shop is closed is known in advance, as the calendar is. What came true is held against it, as far as the events
reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from features import closing, dates, season
from features.admission import Columns
from features.cadence import LEVELS
from features.currency import ShopCurrency
from features.encoding import fingerprint
from features.grid import WindowGrid
from features.offline import feed, windows_between
from features.sku_state import SkuState
from inference import aggregation
from inference import bundle as bundles
from inference.aggregation import Aggregation
from inference.evaluation.origins import SERVED, Origins, sells
from inference.evaluation.references import Reference
from inference.ew_nb import Forecast
from inference.live_loss import LiveLoss
from inference.outputs import WindowOutputs
from inference.pipeline import WindowPipeline, columns
from inference.session import Session
from inference.trend_calls import DOWN, UP, TrendCalls
from schemas.errors import BadInput
from schemas.inputs import InputName
from streams.commands import backtest_tables
from streams.commands.train import local_ms
from streams.events import tables as event_tables
from streams.observe.progress import track_progress
from streams.state import directories

_FEW = 100  # cases of a tenth of which nothing can be said
QUANTILES = tuple(f"q{round(100 * level):02d}" for level in LEVELS)


def run(  # noqa: PLR0913 - the command's options, all by name
    files: Mapping[InputName, Path],
    *,
    out: Path,
    bundle: Path | None,
    first_origin: datetime,
    every: int,
    count: int,
    horizon: int | None,
    grid: WindowGrid,
    window_ms: int | None = None,
    references: Sequence[str] = (),
    scores: Path | None = None,
    money: ShopCurrency | None = None,
) -> None:
    """Write the forecasts at `count` origins, `every` windows apart, to Parquet (`BadInput` if none can be made).

    horizon: steps to write, None for all. window_ms: None: those that the bundle has learnt; of others there are plain
    forecasts, without the net.
    references: of `references.NAMES`, to be held beside ours. scores: JSON file for every measure.
    """
    if not out.parent.is_dir():
        msg = f"there is no directory {out.parent} to write {out.name} to"
        raise BadInput(msg)
    directories.probe(out.parent, what=f"the directory {out.parent} (--out)", error=BadInput)
    console = Console(stderr=True)
    if scores is not None:
        directories.probe(scores.parent, what=f"the directory {scores.parent} (--scores)", error=BadInput)
    session = Session(bundles.load(bundle, expected_fingerprint=fingerprint()), threads=2)
    grid = replace(grid, window_ms=window_ms or session.bundle.manifest.window_ms)
    grid = replace(grid, horizon=session.horizon_for(grid))
    horizon = _steps(horizon, grid)
    events = event_tables.load_with_progress(files)
    money = money or ShopCurrency()
    sku_state = SkuState(grid, extra_columns=columns(session), money=money)
    pipeline = WindowPipeline(sku_state, session)
    first = grid.number(local_ms(first_origin, grid))
    origins = {first + i * every for i in range(count)}
    tables, calls = [], TrendCalls()
    last = max(origins) - 1
    others = _references(references, grid, events, money, first=first, last=last)
    experts = [name for name in aggregation.EXPERTS if pipeline.net_fits or name != "lstm"]
    trial = Origins((SERVED, *experts, *others), grid.cadence, horizon=horizon, season=grid.season_windows)
    until_ms = grid.end_ms(last + horizon)
    with track_progress("closing windows", windows_between(grid, events, until_ms=until_ms)) as progress:
        for number in feed(sku_state, events, until_ms=until_ms, cross=pipeline.cross):
            pipeline.shows_experts = number + 1 in origins
            for closed in pipeline.close(number, emitted_ms=grid.end_ms(number)):
                made = closed.forecasts
                assert made is not None  # noqa: S101 - a pipeline with a session forecasts
                if first <= number + 1 <= last + 1:
                    calls.announce(number, made.sku, made.direction, made.probability)
                _observe(closed, number, sku_state, trial, others)
                if closed.experts is not None:
                    tables.append(forecast_rows(closed, origin_ms=grid.start_ms(number + 1), horizon=horizon))
                    _announce(closed, number, sku_state, trial, others)
            calls.come_true(number, sku_state.table)
            trial.come_true(number, sku_state.table)
            progress.reach(number, dates.short_day(grid.start_ms(number), grid.timezone))
    trial.end()
    for line in money.told():
        console.print(line, highlight=False)
    if not tables:
        msg = (
            f"no origin lies within the events: the first is {first_origin.date()}, "
            "the events do not reach it or begin after it"
        )
        raise BadInput(msg)
    pq.write_table(pa.concat_tables(tables), out)
    console.print(f"{sum(map(len, tables)):,} forecasts at {len(origins)} origins in {out}")
    console.print(
        f"held against what was sold: {trial.pairs:,} forecasts of SKUs that sell, {trial.zeros:,} of their windows "
        "without a sale",
        highlight=False,
        soft_wrap=True,
    )
    wide = Console(stderr=True, width=max(console.width, backtest_tables.WIDTH))
    for table in backtest_tables.tables(trial):
        wide.print(table)
    if scores is not None:
        scores.write_bytes(orjson.dumps(backtest_tables.scores(trial), option=orjson.OPT_INDENT_2))
    for line in (*accuracy_lines(pipeline.live), *calibration_lines(pipeline.aggregation), *call_lines(calls)):
        console.print(line, highlight=False, soft_wrap=True)


def _steps(wanted: int | None, grid: WindowGrid) -> int:
    """Write so many steps, or all (`BadInput` where there are fewer)."""
    most = grid.cadence.horizon
    if wanted is not None and wanted > most:
        msg = f"--horizon is {wanted}, but {most} of these windows are forecast; see SKUTREND_HORIZON"
        raise BadInput(msg)
    return wanted or most


def _references(
    names: Sequence[str],
    grid: WindowGrid,
    events: Mapping[int, Columns],
    money: ShopCurrency,
    *,
    first: int,
    last: int,
) -> dict[str, Reference]:
    """Make those that are to be held beside ours. first: window to be forecast. last: before the last origin."""
    if not names:
        return {}
    from inference.evaluation.references import AutoEts, LightGbm  # noqa: PLC0415 - their packages take seconds

    found: dict[str, Reference] = {}
    if "autoets" in names:
        found["autoets"] = AutoEts(season=grid.season_windows)
    if "lightgbm" in names:
        from inference.training.history import collect  # noqa: PLC0415 - holds all inputs in memory

        until_ms = grid.end_ms(last + 1)
        with track_progress("inputs for LightGBM", windows_between(grid, events, until_ms=until_ms)) as progress:
            history = collect(SkuState(grid, money=money), events, until_ms=until_ms, progress=progress.reach)
        until = int(np.searchsorted(history.starts_ms, grid.start_ms(first)))
        with track_progress("training LightGBM"):
            found["lightgbm"] = LightGbm(history, until=until)
    return found


def _observe(
    closed: WindowOutputs, number: int, sku_state: SkuState, trial: Origins, others: Mapping[str, Reference]
) -> None:
    """Let what errors are measured by, and the references, take a chunk of a closed window in."""
    table = sku_state.table
    is_open = closing.was_open(table["ring"][closed.slots], number)
    trial.scales.observe(table, closed.slots, number)
    for reference in others.values():
        reference.observe(table, closed.slots, number, is_open=is_open)


def _announce(
    closed: WindowOutputs, number: int, sku_state: SkuState, trial: Origins, others: Mapping[str, Reference]
) -> None:
    """Remember what all said at the origin behind window `number`; the references only of the SKUs that count."""
    made, table = closed.forecasts, sku_state.table
    assert made is not None  # noqa: S101 - a pipeline with a session forecasts
    assert closed.experts is not None  # noqa: S101 - they were asked for
    served = Forecast(np.concatenate([made.quantiles, made.sums], axis=1), made.mean)
    by_source = {SERVED: served} | {name: said for name, said in closed.experts.items() if name in trial.tally.sources}
    if others:
        selling = sells(table, closed.slots, number)
        context = season.context(sku_state.grid, sku_state.season, number, is_open=True)
        for name, reference in others.items():
            found = reference.forecast(table, closed.slots[selling], context)
            by_source[name] = Forecast(*(_spread(part, selling) for part in found))
    trial.announce(number, table, closed.slots, by_source)


def _spread(part: NDArray[np.float32], at: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Put rows where they belong among n; the others are NaN."""
    whole = np.full((len(at), *part.shape[1:]), np.nan, np.float32)
    whole[at] = part
    return whole


def accuracy_lines(live: LiveLoss) -> Iterator[str]:
    """Say how good forecasts of the next window were up to the last origin, as a worker's metrics do."""
    plain, naive = live.wql("ewnb"), live.wql("seasonal_naive")
    if live.scored > 0 and plain > 0 and naive > 0:
        served = live.wql("served")
        yield (
            f"one window ahead, lately (half-life 20 windows): WQL {served:.3f}, plain forecast {plain:.3f} "
            f"({served / plain - 1:+.0%}), seasonal naive {naive:.3f} ({served / naive - 1:+.0%}); "
            f"{live.coverage():.1%} within the 90 % band"
        )


def calibration_lines(blend: Aggregation) -> Iterator[str]:
    """Say how often the 80 % band held, by the randomised PIT of the panel, as a worker's metrics do."""
    shares = blend.hit_shares()
    if blend.seen.all():
        held = shares[:, LEVELS.index(0.9)] - shares[:, LEVELS.index(0.1)]
        said = ", ".join(
            f"{share:.0%} of {name}" for name, share in zip(blend.groups.names, held.tolist(), strict=True)
        )
        yield f"within the 80 % band, by steps and sums, lately (half-life 60 windows): {said}"


def call_lines(calls: TrendCalls) -> Iterator[str]:
    """Say how often up and down calls came true, all that were made from the first origin on, and their odds."""
    made = int(calls.counts[[0, 2]].sum())
    if made:
        each = "; ".join(
            f"{name}: precision {calls.precision(which):.0%}, recall {calls.recall(which):.0%}"
            for name, which in (("up", UP), ("down", DOWN))
        )
        said = f"{made:,} calls of {int(calls.counts.sum()):,}, {calls.accuracy():.0%} right"
        yield f"up or down, the next 7 windows against the last 7: {said}; {each}"
    told = calls.seen >= _FEW
    if told.any():
        announced, risen = calls.announced[told] / calls.seen[told], calls.risen[told] / calls.seen[told]
        pairs = ", ".join(f"{p:.2f} {r:.2f}" for p, r in zip(announced.tolist(), risen.tolist(), strict=True))
        yield f"the probability to go up, and the share that did, by tenths: {pairs}"


def forecast_rows(closed: WindowOutputs, *, origin_ms: int, horizon: int) -> pa.Table:
    """Lay the forecasts of one chunk out as rows: a step 1..horizon, or -7, -14 for the sums over so many windows."""
    made = closed.forecasts
    assert made is not None  # noqa: S101 - a pipeline with a session forecasts
    n = len(made.sku)
    parts = [(step, made.quantiles[:, step - 1], made.mean[:, step - 1]) for step in range(1, horizon + 1)]
    for at, span in enumerate(made.sum_windows):
        if span <= horizon:
            parts.append((-span, made.sums[:, at], made.mean[:, :span].sum(axis=1)))
    tables = []
    for step, quantiles, mean in parts:
        columns_: dict[str, Any] = {
            "sku": pa.array(made.sku),
            "origin_ms": pa.array(np.full(n, origin_ms, np.int64)),
            "step": pa.array(np.full(n, step, np.int32)),
            **{name: pa.array(quantiles[:, i]) for i, name in enumerate(QUANTILES)},
            "mean": pa.array(mean),
        }
        tables.append(pa.table(columns_))
    return pa.concat_tables(tables)
