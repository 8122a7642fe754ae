"""Columns to the bytes of output records, one record per SKU, the same as encoding the struct of each row.

Numbers that JSON cannot say never leave: infinity raises ValueError anywhere, NaN everywhere but in the columns
that may hold it (`price`, `change_pct`, money), where it becomes null. ValueError also tells of columns of
other shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final

import msgspec
import numpy as np
import orjson

from schemas.alerts import Alert
from schemas.columns import AnyArray, ForecastColumns, WindowColumns
from schemas.forecasts import DIRECTIONS, SHIFTS, SOURCES
from schemas.numerals import json_arrays

Part = bytes | list[bytes]
"""A piece of a record: the same for all, or one per record."""

_encode = msgspec.json.Encoder().encode
_DIRECTION_TEXTS: Final = [_encode(direction) for direction in DIRECTIONS]
_SHIFT_TEXTS: Final = [_encode(shift) for shift in SHIFTS]
_SOURCE_TEXTS: Final = [_encode(source) for source in SOURCES]


def openings(c: WindowColumns | ForecastColumns) -> list[bytes]:
    """Write how the record of each SKU begins: one for those who encode windows and forecasts of the same close."""
    ids = b'/%d/%d","sku":' % (c.window_start_ms, c.revision)
    rest = _constants(window_start_ms=c.window_start_ms, window_end_ms=c.window_end_ms, revision=c.revision)
    skus = [_encode(sku) for sku in c.sku]
    return [b"".join((b'{"id":', sku[:-1], ids, sku, rest)) for sku in skus]


def encode_windows(c: WindowColumns, opened: list[bytes] | None = None) -> list[bytes]:
    """One value of topic `windows` per SKU, in order of the columns. opened: `openings(c)`, if at hand."""
    n = len(c.sku)
    parts: list[Part] = [
        openings(c) if opened is None else opened,
        *(b',"order_lines":', _numbers("order_lines", c.order_lines, n)),
        *(b',"units":', _numbers("units", c.units, n)),
        *(b',"revenue":', _numbers("revenue", c.revenue, n)),
        *(b',"returned_units":', _numbers("returned_units", c.returned_units, n)),
        *(b',"free_units":', _numbers("free_units", c.free_units, n)),
        *(b',"views":', _numbers("views", c.views, n)),
        *(b',"carts":', _numbers("carts", c.carts, n)),
        *(b',"price":', _numbers("price", c.price, n, nan_is_null=True)),
        *(b',"observed":', _numbers("observed", c.observed, n)),
        b"}",
    ]
    return _records(parts)


def encode_forecasts(c: ForecastColumns, opened: list[bytes] | None = None) -> list[bytes]:
    """One value of topic `forecasts` per SKU, in order of the columns. opened: `openings(c)`, if at hand."""
    n, steps, levels = len(c.sku), c.quantiles.shape[1:2], len(c.quantile_levels)
    if steps != (len(c.step_starts_ms),):
        message = f"step_starts_ms must have one start for each of {list(steps)} steps, found {len(c.step_starts_ms)}"
        raise ValueError(message)
    direction = _texts("direction", c.direction, n, texts=_DIRECTION_TEXTS, first=-1)
    source = _texts("source", c.source, n, texts=_SOURCE_TEXTS, first=0)
    parts: list[Part] = [
        openings(c) if opened is None else opened,
        *(b',"actual_units":', _numbers("actual_units", c.actual_units, n)),
        _constants(step_ms=c.step_ms, step_starts_ms=c.step_starts_ms, quantile_levels=c.quantile_levels),
        *(b',"quantiles":', _arrays("quantiles", c.quantiles, (n, *steps, levels))),
        *(b',"mean":', _arrays("mean", c.mean, (n, *steps))),
        *(b',"sums":{', *_sums(c, n), b"}"),
        *(b',"trend":{"direction":', direction),
        *(b',"change_pct":', _numbers("change_pct", c.change_pct, n, nan_is_null=True)),
        *(b',"probability":', _numbers("probability", c.probability, n)),
        *(b',"change_units":', _numbers("change_units", c.change_units, n)),
        *(b',"change_money":', _numbers("change_money", c.change_money, n, nan_is_null=True)),
        *(b',"usual_change_units":', _numbers("usual_change_units", c.usual_change_units, n)),
        *(b',"usual_change_money":', _numbers("usual_change_money", c.usual_change_money, n, nan_is_null=True)),
        *(b',"shift":', _texts("shift", c.shift, n, texts=_SHIFT_TEXTS, first=-1), b"}"),
        *(b',"source":', source),
        _constants(model=c.model, provider=c.provider, emitted_ms=c.emitted_ms),
        b"}",
    ]
    return _records(parts)


def encode_alert(alert: Alert) -> bytes:
    """Value of one record of topic `alerts`; ValueError if it holds a number that JSON cannot say."""
    _refuse_unsayable(alert)
    return _encode(alert)


def _refuse_unsayable(alert: Alert) -> None:
    numbers: list[tuple[str, float | None]] = [
        ("observed", alert.observed),
        ("expected", alert.expected),
        ("p_value", alert.p_value),
        ("impact", alert.impact),
        *(("interval", end) for end in alert.interval or ()),
        *((f"contributor {c.name}", c.value) for c in alert.contributors),
    ]
    for name, number in numbers:
        if number is not None and not math.isfinite(number):
            message = f"{name} of alert {alert.id!r} is {number}, which JSON cannot say"
            raise ValueError(message)


def _sums(c: ForecastColumns, n: int) -> list[Part]:
    shape = (n, len(c.sum_windows), len(c.quantile_levels))
    if c.sums.shape != shape:
        message = f"sums must have the shape {shape}, found {c.sums.shape}"
        raise ValueError(message)
    parts: list[Part] = []
    for position, windows in enumerate(c.sum_windows):
        separator = b"," if position else b""
        parts += [separator + b'"%d":' % windows, _arrays("sums", c.sums[:, position], (n, shape[-1]))]
    return parts


def _records(parts: Iterable[Part]) -> list[bytes]:
    parts = list(parts)
    n = next(len(part) for part in parts if isinstance(part, list))
    columns = [part if isinstance(part, list) else repeat(part, n) for part in parts]
    return list(map(b"".join, zip(*columns, strict=True)))  # a third faster than a template and %


def _constants(**values: object) -> bytes:
    """Members of a JSON object, without its braces, after a comma."""
    return b"," + _encode(values)[1:-1]


def _numbers(name: str, column: AnyArray, n: int, *, nan_is_null: bool = False) -> list[bytes]:
    """JSON text of each number of a column, (n,)."""
    _check(name, column, (n,), nan_is_null=nan_is_null)
    if n == 0:
        return []
    return orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def _arrays(name: str, column: AnyArray, shape: tuple[int, ...]) -> list[bytes]:
    """JSON text of each row of a column of the given shape."""
    _check(name, column, shape, nan_is_null=False)
    return json_arrays(column)


def _check(name: str, column: AnyArray, shape: tuple[int, ...], *, nan_is_null: bool) -> None:
    if column.shape != shape:
        message = f"{name} must have the shape {shape}, found {column.shape}"
        raise ValueError(message)
    sayable = ~np.isinf(column) if nan_is_null else np.isfinite(column)
    if not sayable.all():
        place = tuple(int(i) for i in np.argwhere(~sayable)[0])
        message = f"{name}{list(place)} is {column[place]}, which JSON cannot say here"
        raise ValueError(message)


def _texts(name: str, column: AnyArray, n: int, *, texts: Sequence[bytes], first: int) -> list[bytes]:
    """Text of each code of a column; `first` is the code of the first text."""
    _check(name, column, (n,), nan_is_null=False)
    codes = column - first
    if n and not (0 <= codes.min() and codes.max() < len(texts)):
        message = f"{name} must count from {first} to {first + len(texts) - 1}, found {column.min()} to {column.max()}"
        raise ValueError(message)
    return [texts[code] for code in codes.tolist()]
