"""A shop of made-up SKUs, put through the judging as a worker does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features import closing
from features.grid import WindowGrid
from inference import alerting, baselines, scoring, tail_evidence
from inference.alerting import AlertChange, AlertRules

DAY_MS = 86_400_000


def fresh(n: int) -> dict[str, NDArray[Any]]:
    """Columns of all judging modules for n new SKUs, and those statistics that judging reads, too."""
    specs = [spec for module in (tail_evidence, alerting, scoring, baselines) for spec in module.COLUMNS]
    shared = [c for c in closing.COLUMNS if c.name in (*tail_evidence.SHARED, "price")]
    columns = {name: np.full((n, *shape), fill, dtype) for name, dtype, shape, fill in specs}
    return columns | {c.name: np.full((n, *c.shape), c.fill, c.dtype) for c in shared}


def closed(
    day: int, units: ArrayLike, *, price: ArrayLike = 5.0, season_index: float = 1.0, observed: bool = True
) -> tail_evidence.ClosedWindow:
    """Window number `day`, a UTC day, of as many SKUs as `units` has."""
    y = np.atleast_1d(np.asarray(units, np.float64))
    return tail_evidence.ClosedWindow(
        start_ms=day * DAY_MS,
        units=y,
        price_before=np.full(len(y), np.nan),
        price=np.broadcast_to(np.asarray(price, np.float64), y.shape),
        views=np.zeros(len(y)),
        usual_views=np.zeros(len(y)),
        observed=np.full(len(y), observed),
        season_index=season_index,
    )


def observe(
    rows: Mapping[str, NDArray[Any]], window: tail_evidence.ClosedWindow, expected: ArrayLike = np.nan
) -> tuple[tail_evidence.TailEvidence, dict[str, NDArray[Any]]]:
    """Judge a window whose price before it is that of `rows`; the new columns include the shared statistics."""
    window = dataclasses.replace(window, price_before=rows["price"])
    units = np.asarray(window.units)
    found, new = tail_evidence.observe(rows, window, np.broadcast_to(np.asarray(expected, np.float64), units.shape))
    active = window.observed & (window.season_index > 0)
    new["opens"] = (rows["opens"] + active).astype(np.int32)
    new["unsold"] = np.where(active, np.where(units > 0, 0, rows["unsold"] + 1), rows["unsold"]).astype(np.int32)
    new["price"] = np.where(np.isfinite(window.price), window.price, rows["price"])
    return found, new


class Shop:
    """n SKUs; `day()` closes one window of all of them and keeps every alert change."""

    def __init__(self, n: int, *, rules: AlertRules | None = None, skus: list[str] | None = None) -> None:
        self.rows, self.day_no, self.n, self.rules = fresh(n), 0, n, rules
        self.skus = skus or [f"S{i}" for i in range(n)]
        self.changes: list[AlertChange] = []

    def day(
        self, units: ArrayLike, expected: ArrayLike = np.nan, *, price: ArrayLike = 5.0, season_index: float = 1.0
    ) -> list[AlertChange]:
        """Close one window: observe, judge, remember; returns what changed."""
        window = closed(self.day_no, np.broadcast_to(units, (self.n,)), price=price, season_index=season_index)
        mean = np.broadcast_to(np.asarray(expected, np.float64), (self.n,))
        before = {name: column.copy() for name, column in self.rows.items()}
        found, learnt = observe(self.rows, window, mean)
        evidence = evidence_of(window, found, skus=self.skus, age=self.day_no, mean=mean)
        changes, new = alerting.judge(evidence, self.rows, self.rules)
        assert_same(self.rows, before)  # neither may write into what it was given
        self.rows |= learnt | new
        self.changes += changes
        self.day_no += 1
        return changes

    def days(self, count: int, units: Callable[[int], ArrayLike], expected: ArrayLike = np.nan) -> list[AlertChange]:
        """Close `count` windows; `units` gets the number of the day."""
        return [change for _ in range(count) for change in self.day(units(self.day_no), expected)]


def evidence_of(
    window: tail_evidence.ClosedWindow,
    found: tail_evidence.TailEvidence,
    *,
    skus: list[str],
    age: int,
    mean: NDArray[np.float64],
) -> alerting.Evidence:
    """What the alerts are shown of a window."""
    n = len(skus)
    unknown = np.full(n, np.nan)
    return alerting.Evidence(
        grid=WindowGrid(),
        skus=skus,
        currencies=["GBP"] * n,
        window_start_ms=window.start_ms,
        window_end_ms=window.start_ms + DAY_MS,
        age=np.full(n, age),
        units=window.units,
        low=unknown,
        high=unknown,
        price=window.price,
        units7=7 * np.nan_to_num(mean, nan=1.0),
        season_index=window.season_index,
        tail_evidence=found,
    )


def assert_same(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> None:
    """Assert that two sets of columns are equal, NaN for NaN."""
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
