"""What a backtest prints of how its forecasts came true: ours beside every expert and reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from inference.aggregation import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference.evaluation.origins import Origins
    from inference.evaluation.tally import Measures

WIDTH = 112
"""Characters that the widest table needs."""

_NAMES = {
    "served": "served",
    "lstm": "net alone",
    "ewnb": "plain (EW-NB)",
    "ewnb_fast": "plain, fast",
    "window_quantiles": "window quantiles",
    "seasonal_naive": "seasonal naive",
    "autoets": "AutoETS",
    "lightgbm": "LightGBM",
}
_MEASURES = ("WQL", "/ plain", "WAPE", "MAE", "RMSE", "RMSSE", "MASE", "sMAPE", "R2", "bias", "in 80 %", "below 90 %")
_PLAIN = ("ewnb", "window_quantiles")  # the better of them is what has to be beaten


def tables(origins: Origins) -> Iterator[Table]:
    """Give the tables to print: all measures, then WQL by velocity class, then by step."""
    groups, steps = origins.groups, slice(0, origins.groups.horizon)
    overall = {source: origins.tally.measures(source, steps=steps) for source in origins.tally.sources}
    if not any(made.cells for made in overall.values()):
        return
    yield _all(overall)
    kinds = {
        kind: {source: origins.tally.measures(source, kind=kind, steps=steps) for source in overall} for kind in CLASSES
    }
    yield _wql("WQL by velocity class", kinds)
    by_group = {
        name: {source: origins.tally.measures(source, steps=groups.steps(name)) for source in overall}
        for name in groups.names
    }
    yield _wql("WQL by step, and of sums", by_group)


def scores(origins: Origins) -> list[dict[str, Any]]:
    """Give every measure by source, velocity class and step, to be written as JSON."""
    found, groups = [], origins.groups
    for source in origins.tally.sources:
        for kind in (None, *CLASSES):
            for group in (None, *groups.names):
                steps = slice(0, groups.horizon) if group is None else groups.steps(group)
                made = origins.tally.measures(source, kind=kind, steps=steps)
                found.append({"source": source, "class": kind or "all", "steps": group or "all", **made.as_dict()})
    return found


def _all(overall: dict[str, Measures]) -> Table:
    table = _table("all steps")
    for name in _MEASURES:
        table.add_column(name, justify="right")
    plain = min((overall[name].wql for name in _PLAIN if overall[name].cells), default=float("nan"))
    for source, made in overall.items():
        if made.cells:
            figures = [made.wql, made.wql / plain if plain else float("nan"), made.wape]
            table.add_row(
                _NAMES[source],
                *(f"{value:.3f}" for value in figures),
                *(f"{value:.2f}" for value in (made.mae, made.rmse, made.rmsse, made.mase, made.smape, made.r2)),
                *(f"{value:+.0%}" for value in (made.bias_mean,)),
                *(f"{value:.0%}" for value in (made.within80, made.below90)),
            )
    return table


def _wql(title: str, by_column: dict[str, dict[str, Measures]]) -> Table:
    table = _table(title)
    columns = {name: by_source for name, by_source in by_column.items() if any(m.cells for m in by_source.values())}
    for name in columns:
        table.add_column(name, justify="right")
    for source in next(iter(columns.values()), {}):
        figures = [by_source[source] for by_source in columns.values()]
        if any(made.cells for made in figures):
            table.add_row(_NAMES[source], *(f"{made.wql:.3f}" if made.cells else "" for made in figures))
    return table


def _table(title: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, no_wrap=True)
    return table
