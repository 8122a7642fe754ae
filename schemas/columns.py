"""Batches as columns: what decoding makes of fetched records, and what encoding makes records of.

All columns of one object have the same length; arrays are one-dimensional unless a shape is given.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Rows = NDArray[np.int32]
Codes = NDArray[np.int8]
Flags = NDArray[np.bool_]
AnyArray = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one record cannot be used.

    `row` is its position in the fetched batch; `code` one of schemas/refusals.py's; `error` a sentence for a person.
    """

    row: int
    code: str
    error: str


@dataclass(frozen=True, slots=True)
class OrderColumns:
    """The usable order lines of a batch; `row` ascends and says where in the batch each one came from."""

    row: Rows
    event_id: list[str]
    sku: list[str]
    quantity: Floats
    unit_price: Floats
    event_time_ms: Ints
    currency: list[str]


@dataclass(frozen=True, slots=True)
class ClickColumns:
    """The usable clicks of a batch; `kind` counts within schemas.clicks.CLICK_KINDS (0 view, 1 cart, 2 purchase)."""

    row: Rows
    event_id: list[str]
    sku: list[str]
    kind: Codes
    event_time_ms: Ints


@dataclass(frozen=True, slots=True)
class PriceColumns:
    """The usable price changes of a batch."""

    row: Rows
    event_id: list[str]
    sku: list[str]
    price: Floats
    event_time_ms: Ints
    currency: list[str]


InputColumns = OrderColumns | ClickColumns | PriceColumns


def take(columns: InputColumns, rows: NDArray[np.intp]) -> InputColumns:
    """Pick rows of decoded columns; (n,) indices."""
    picked: dict[str, Any] = {}
    for item in fields(columns):
        value = getattr(columns, item.name)
        picked[item.name] = value[rows] if isinstance(value, np.ndarray) else [value[row] for row in rows.tolist()]
    return type(columns)(**picked)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowColumns:
    """One closed window of n SKUs, as in schemas.windows.WindowClosed; `price` is NaN where none is known."""

    sku: list[str]
    window_start_ms: int
    window_end_ms: int
    revision: int
    order_lines: Ints
    units: Floats
    revenue: Floats
    returned_units: Floats
    free_units: Floats
    views: Ints
    carts: Ints
    price: Floats
    observed: Flags

    def take(self, at: NDArray[np.intp]) -> Self:
        """Pick some SKUs, (m,) of 0..n-1."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        picked: dict[str, Any] = {
            name: column[at] for name, column in columns.items() if isinstance(column, np.ndarray)
        }
        return replace(self, sku=[self.sku[i] for i in at.tolist()], **picked)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastColumns:
    """The forecasts of n SKUs after one closed window, as in schemas.forecasts.Forecast; K steps, Q levels, S sums.

    quantiles (n, K, Q) and sums (n, S, Q), ascending along Q, and mean (n, K) are in units. `step_ms` is nominal;
    `step_starts_ms` are the K starts of the forecast windows. `direction` is -1 down, 0 flat, 1 up; `change_pct` NaN
    where there is nothing to compare with, `change_money` and `usual_change_money` NaN where no price is known; `shift`
    is -1 down, 0 none, 1 up; `source` counts within schemas.forecasts.SOURCES.
    """

    sku: list[str]
    window_start_ms: int
    window_end_ms: int
    revision: int
    actual_units: Floats
    step_ms: int
    step_starts_ms: tuple[int, ...]
    quantile_levels: tuple[float, ...]
    quantiles: Singles
    mean: Singles
    sum_windows: tuple[int, ...]
    sums: Singles
    direction: Codes
    change_pct: Singles
    change_units: Singles
    change_money: Singles
    usual_change_units: Singles
    usual_change_money: Singles
    shift: Codes
    probability: Singles
    source: Codes
    model: str
    provider: str
    emitted_ms: int
