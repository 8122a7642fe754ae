"""What the demo says at the end: how good the forecasts were, what trends, what was alerted, where everything is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from features import dates
from features.cadence import LEVELS
from inference.scoring import wql
from schemas.forecasts import Forecast
from schemas.printable import printable
from streams.demo.collector import Collector

_BARS = "▁▂▃▄▅▆▇█"
_MEDIAN = LEVELS.index(0.5)
_WEEK = 7
_HISTORY = 14
_SHOWN = 8
_TREND_MIN_UNITS = 10.0
_SKU_WIDTH = 10
_GROUPED_BELOW = 9_999.5
_SHIFTS = {"up": "▲", "down": "▼", None: ""}


@dataclass(frozen=True)
class Score:
    """Errors over all cells of one comparison: WQL and WAPE of the forecasts, and of seasonal naive."""

    name: str
    cells: int
    wql: float
    wape: float
    naive: float  # a point forecast's quantile loss is its WAPE
    covered: float  # share of actuals within the 5 % to 95 % band


def scores(seen: Collector, *, from_number: int) -> list[Score]:
    """Score all forecasts made from window `from_number` on, against what then happened."""
    actual = seen.actual.astype(np.float64)
    first = max(from_number - seen.first, _WEEK)
    cumulated = np.cumsum(np.nan_to_num(actual), axis=1)
    last = _last_column(actual)
    days = np.arange(first, last)
    next_day = _score("next day", actual[:, days + 1], seen.next_day[:, days], actual[:, days + 1 - _WEEK])
    weeks = np.arange(first, last - _WEEK + 1)
    week = cumulated[:, weeks + _WEEK] - cumulated[:, weeks]
    before = cumulated[:, weeks] - cumulated[:, weeks - _WEEK]
    next_week = _score("next 7 days", week, seen.next_week[:, weeks], before)
    return [s for s in (next_day, next_week) if s is not None]


def _last_column(actual: NDArray[np.float64]) -> int:
    known = np.flatnonzero(np.isfinite(actual).any(axis=0))
    return int(known[-1]) if len(known) else 0


def _score(
    name: str, actual: NDArray[np.float64], quantiles: NDArray[np.float32], naive: NDArray[np.float64]
) -> Score | None:
    fine = np.isfinite(actual) & np.isfinite(quantiles).all(axis=-1) & np.isfinite(naive)
    y, q, n = actual[fine], quantiles[fine].astype(np.float64), naive[fine]
    total = y.sum()
    if total <= 0:
        return None
    return Score(
        name=name,
        cells=len(y),
        wql=wql(y, q),
        wape=float(np.abs(y - q[:, _MEDIAN]).sum() / total),
        naive=float(np.abs(y - n).sum() / total),
        covered=float(((y >= q[:, 0]) & (y <= q[:, -1])).mean()),
    )


def sparkline(values: NDArray[np.floating[Any]]) -> str:
    """Draw one character per value, the largest full height.

    >>> sparkline(np.array([0.0, 4.0, 8.0]))
    '▁▅█'
    """
    known = np.nan_to_num(values)
    top = float(known.max(initial=0)) or 1.0
    return "".join(_BARS[round(float(v) / top * (len(_BARS) - 1))] for v in known)


def trending(seen: Collector) -> Iterator[tuple[Forecast, NDArray[np.float32]]]:
    """Pick the SKUs whose sure increase is worth most, of those that sell enough to matter, with their last weeks."""
    found = [msgspec.json.decode(raw, type=Forecast) for raw in seen.latest.values()]
    rising = [f for f in found if f.trend.direction == "up" and sum(f.mean[:_WEEK]) >= _TREND_MIN_UNITS]
    rising.sort(key=lambda f: -(f.trend.change_money or 0.0))
    for forecast in rising[:_SHOWN]:
        row = seen.skus[forecast.sku]
        last = seen.grid.number(forecast.window_start_ms) - seen.first
        yield forecast, seen.actual[row, max(0, last - _HISTORY + 1) : last + 1]


def show(console: Console, seen: Collector, *, out: Path, trained_until_ms: int, throughput: str) -> None:
    """Print the summary."""
    console.rule("[bold]what is trending")
    _show_trending(console, seen)
    console.rule("[bold]what was alerted, and why")
    _show_alerts(console, seen.alerts)
    console.rule("[bold]how good the forecasts were")
    _show_scores(console, seen, trained_until_ms)
    console.rule("[bold]where everything is")
    console.print(throughput, highlight=False)
    for name, what in (
        ("forecasts.jsonl", "latest forecast of every SKU, as published"),
        ("alerts.jsonl", "every alert as published, in order"),
        ("worker.log", "what the worker logged"),
        ("state/", "its RocksDB state"),
    ):
        console.print(f"  {out / name}  {what}", highlight=False, soft_wrap=True)
    sku = next(iter(seen.skus), "SKU")
    console.print(
        "\nNext: look at a SKU's state\n"
        f"  SKUTREND_STATE_DIR={out}/state SKUTREND_TIMEZONE={seen.grid.timezone} \\\n"
        f"    skutrend state show {sku}\n"
        "serve your own Kafka\n"
        "  export SKUTREND_BROKERS=host:9092\n"
        "  skutrend topics create && skutrend worker\n"
        "train on your own sales\n"
        "  skutrend train --orders orders.parquet --out my-bundle",
        highlight=False,
        soft_wrap=True,
    )


def short(units: float) -> str:
    """Write a number of units in at most 5 characters, up to a billion.

    >>> short(463.4), short(1939.0), short(12_345.0), short(999_999.0), short(2_500_000.0)
    ('463', '1,939', '12.3k', '1.0M', '2.5M')
    """
    for size, suffix in ((1_000, "k"), (1_000_000, "M")):
        if units >= _GROUPED_BELOW and units < 999.5 * size:
            shown = units / size
            return f"{shown:.1f}{suffix}" if shown < 99.95 else f"{shown:.0f}{suffix}"  # noqa: PLR2004 - what rounds to 100
    return f"{units:,.0f}"


def _table(*columns: str) -> Table:
    """Make a table; with what the demo puts in, it fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for at, name in enumerate(columns):
        table.add_column(name, no_wrap=True, justify="left" if at == 0 else "right")
    return table


def _show_trending(console: Console, seen: Collector) -> None:
    table = _table("SKU", f"last {_HISTORY} days | next {_WEEK}", "7 days→next", "90 % band", "usual", "P(up)", "worth")
    for forecast, history in trending(seen):
        band = forecast.sums["7"]
        table.add_row(
            printable(forecast.sku, _SKU_WIDTH),
            f"{sparkline(history)}|{sparkline(np.array(forecast.mean[:_WEEK]))}",
            f"{short(float(np.nansum(history[-_WEEK:])))}→{short(band[_MEDIAN])}",
            f"{short(band[0])}-{short(band[-1])}",
            _usual(forecast),
            f"{forecast.trend.probability:.2f}",
            "" if forecast.trend.change_money is None else short(forecast.trend.change_money),
        )
    console.print(table)
    console.print(
        "usual: what 7 such days sell on the SKU's usual level; ▲ or ▼: for two weeks it has sold on another one. "
        "worth: the expected change against the last 7 days, in money.",
        highlight=False,
    )


def _usual(forecast: Forecast) -> str:
    """Say what the next week would sell on the SKU's usual level, and whether it has left that."""
    more = forecast.trend.usual_change_units
    usual = "" if more is None else short(max(sum(forecast.mean[:_WEEK]) - more, 0.0))
    return usual + _SHIFTS[forecast.trend.shift]


def _show_alerts(console: Console, alerts: list[dict[str, Any]]) -> None:
    opened = [a for a in alerts if a["status"] == "open"]
    kinds = Counter(f"{a['kind']} ({a['severity']})" for a in opened)
    resolved = sum(a["status"] == "resolved" for a in alerts)
    console.print(
        f"{len(opened):,} opened, {resolved:,} resolved: " + ", ".join(f"{n:,} {k}" for k, n in kinds.most_common()),
        highlight=False,
    )
    newest = max((a["window_start_ms"] for a in opened), default=0)
    recent = [a for a in opened if a["window_start_ms"] > newest - 28 * 86_400_000]
    for kind in ("demand_spike", "demand_drop", "silence", "price_jump"):
        for alert in sorted((a for a in recent if a["kind"] == kind), key=lambda a: -(a["impact"] or 0))[:2]:
            console.print(f"  [bold]{alert['severity']}[/bold]  {alert['summary']}", highlight=False)


def _show_scores(console: Console, seen: Collector, trained_until_ms: int) -> None:
    table = _table("forecast of", "cells", "WQL", "WAPE", "seasonal naive", "change", "in 90 % band")
    for s in scores(seen, from_number=seen.grid.number(trained_until_ms)):
        errors = (f"{value:.3f}" for value in (s.wql, s.wape, s.naive))
        table.add_row(
            s.name, f"{s.cells:,}", *errors, f"{s.wql / s.naive - 1:+.0%}" if s.naive else "n/a", f"{s.covered:.1%}"
        )
    console.print(table)
    share = ", ".join(f"{source} {n / sum(seen.sources.values()):.0%}" for source, n in seen.sources.most_common())
    console.print(
        "WQL: weighted quantile loss; WAPE: of the median. A point forecast's WQL is its WAPE. "
        f"Only days from {dates.day(trained_until_ms, seen.grid.timezone)} on are counted, when the model's training "
        f"had ended; every SKU and day, most of them zero. Served by: {share}.",
        highlight=False,
    )
