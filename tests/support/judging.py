"""A shop of made-up SKUs, put through the judging as a worker does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference import alerting, baselines, scoring, tail_evidence
from inference.alerting import AlertChange, AlertRules

DAY_MS = 86_400_000


def fresh(n: int) -> dict[str, NDArray[Any]]:
    """Columns of all judging modules for n new SKUs."""
    specs = [spec for module in (tail_evidence, alerting, scoring, baselines) for spec in module.COLUMNS]
    return {name: np.full((n, *shape), fill, dtype) for name, dtype, shape, fill in specs}


def closed(
    day: int, units: ArrayLike, *, price: ArrayLike = 5.0, season: float = 1.0, observed: bool = True
) -> tail_evidence.ClosedWindow:
    """Window number `day`, a UTC day, of as many SKUs as `units` has."""
    y = np.atleast_1d(np.asarray(units, np.float64))
    return tail_evidence.ClosedWindow(
        start_ms=day * DAY_MS,
        units=y,
        price=np.broadcast_to(np.asarray(price, np.float64), y.shape),
        views=np.zeros(len(y)),
        observed=np.full(len(y), observed),
        season=season,
    )


class Shop:
    """n SKUs; `day()` closes one window of all of them and keeps every alert change."""

    def __init__(self, n: int, *, rules: AlertRules | None = None, skus: list[str] | None = None) -> None:
        self.rows, self.day_no, self.n, self.rules = fresh(n), 0, n, rules
        self.skus = skus or [f"S{i}" for i in range(n)]
        self.changes: list[AlertChange] = []

    def day(
        self, units: ArrayLike, expected: ArrayLike = np.nan, *, price: ArrayLike = 5.0, season: float = 1.0
    ) -> list[AlertChange]:
        """Close one window: observe, judge, remember; returns what changed."""
        window = closed(self.day_no, np.broadcast_to(units, (self.n,)), price=price, season=season)
        mean = np.broadcast_to(np.asarray(expected, np.float64), (self.n,))
        before = {name: column.copy() for name, column in self.rows.items()}
        found, learnt = tail_evidence.observe(self.rows, window, mean)
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
        season=window.season,
        tail_evidence=found,
    )


def assert_same(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> None:
    """Assert that two sets of columns are equal, NaN for NaN."""
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
