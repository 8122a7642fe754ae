"""Event files as decoded columns, for everything that works offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from features.ledger import CLICKS, ORDERS, PRICES, Columns
from schemas.clicks import CLICK_KINDS
from schemas.columns import ClickColumns, OrderColumns, PriceColumns
from schemas.errors import BadInput
from streams.files import Kind, read, schema

_SOURCES: Mapping[Kind, int] = {"orders": ORDERS, "clicks": CLICKS, "price-changes": PRICES}


def load(files: Mapping[Kind, Path]) -> dict[int, Columns]:
    """Read event files whole: {input: columns}. Rows that the worker would refuse are left out, as there.

    Raises `BadInput` where a file cannot be read or holds no usable row.
    """
    return {_SOURCES[kind]: _columns(kind, path) for kind, path in files.items()}


def _columns(kind: Kind, path: Path) -> Columns:
    table = pa.Table.from_batches(read(path, kind), schema=schema(kind))
    times = table["event_time_ms"].combine_chunks().to_numpy(zero_copy_only=False)
    values = {c: table[c].combine_chunks() for c in table.column_names}

    def floats(column: str) -> np.ndarray:
        return np.asarray(values[column].to_numpy(zero_copy_only=False), np.float64)

    keep = np.array([bool(sku) and not sku.isspace() for sku in cast("list[str]", values["sku"].to_pylist())], np.bool_)
    if kind == "orders":
        quantity, price = floats("quantity"), floats("unit_price")
        keep &= np.isfinite(quantity) & np.isfinite(price) & (price >= 0)
    elif kind == "price-changes":
        price = floats("price")
        keep &= np.isfinite(price) & (price > 0)
    rows = np.flatnonzero(keep)
    if not len(rows):
        msg = f"{path} holds no usable {kind}"
        raise BadInput(msg)
    at, order = rows.astype(np.int32), rows

    def texts(column: str) -> list[str]:
        return cast("list[str]", values[column].take(pa.array(order, pa.int64())).to_pylist())

    if kind == "orders":
        return OrderColumns(
            at, texts("event_id"), texts("sku"), quantity[rows], price[rows], times[rows], texts("currency")
        )
    if kind == "clicks":
        codes = np.array([CLICK_KINDS.index(k) for k in texts("kind")], np.int8)
        return ClickColumns(at, texts("event_id"), texts("sku"), codes, times[rows])
    return PriceColumns(at, texts("event_id"), texts("sku"), price[rows], times[rows], texts("currency"))
