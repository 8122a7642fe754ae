"""Arrays of numbers to JSON text, one JSON array per row: the hot part of a forecast.

Rows whose numbers are all whole, or all decimals of at most three places, below 1,000 (nearly all, as the model rounds)
are looked up in tables of ready text of fixed width, padded with blanks, which JSON permits: several times as fast as
printing, for some 20 % more bytes before compression. The other rows are printed by orjson, each number as the shortest
text that is the same float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import orjson

from schemas.columns import AnyArray, Flags, Singles

_CHUNK_ROWS: Final = 1024  # the intermediate arrays of a chunk stay in the cache
_LIMIT: Final = 1000
_LARGEST: Final = np.float32(999.999)
_PLACES: Final = np.float32(1000)
# Twice the spacing of float32: what rounding to three places by a multiplication may be off
_TOLERANCE: Final = np.float32(2**-22)
_NESTED: Final = 3


def json_arrays(values: Singles) -> list[bytes]:
    """JSON text of `values[i]` for each i, without checking for NaN or infinity (they would become null).

    values: (n, Q) or (n, K, Q). Read back as float32 the numbers are the same; where a row counts as decimals of three
    places they may differ by 2 in the last binary place.

    >>> json_arrays(np.array([[1, 25], [0.5, 1.25], [1e6, 0]], dtype=np.float32))
    [b'[  1, 25]', b'[  0.500,  1.250]', b'[1000000.0,0.0]']
    """
    if values.size == 0:
        return [orjson.dumps(row) for row in values.tolist()]
    texts: list[bytes] = []
    for start in range(0, len(values), _CHUNK_ROWS):
        chunk = np.ascontiguousarray(values[start : start + _CHUNK_ROWS], dtype=np.float32)
        texts += _chunk(chunk)
    return texts


def _chunk(values: Singles) -> list[bytes]:
    whole, decimal = _classes(values.reshape(len(values), -1))
    texts = np.empty(len(values), dtype=object)
    for chosen, cells_of in ((whole, _whole_cells), (decimal, _decimal_cells)):
        if chosen.any():
            cells = cells_of(values if chosen.all() else values[chosen])
            texts[chosen] = _framed(cells) if values.ndim == _NESTED else _opened(cells)
    rest = ~(whole | decimal)
    if rest.any():
        texts[rest] = _printed(values[rest])
    written: list[bytes] = texts.tolist()
    return written


def _classes(rows: Singles) -> tuple[Flags, Flags]:
    """Which rows are whole numbers, and which others are decimals of three places, all numbers from 0 to 999.999."""
    if rows.min() >= 0 and rows.max() <= _LARGEST:
        small = np.ones(len(rows), np.bool_)
    else:
        small = (rows.min(axis=1) >= 0) & (rows.max(axis=1) <= _LARGEST)
    whole = small & (rows == np.rint(rows)).all(axis=1)
    if whole.all():
        return whole, ~whole
    scaled = np.clip(rows, 0, _LARGEST) * _PLACES  # no overflow in the rows that are not small
    decimal = small & ~whole & (np.abs(scaled - np.rint(scaled)) <= _TOLERANCE * scaled).all(axis=1)
    return whole, decimal


def _printed(values: Singles) -> list[bytes]:
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    opened, closed = b"[" * (values.ndim - 1), b"]" * (values.ndim - 1)
    inner = text[values.ndim : -values.ndim].split(closed + b"," + opened)
    return [opened + part + closed for part in inner]


def _whole_cells(values: Singles) -> AnyArray:
    index = values.astype(np.intp)
    cells: AnyArray = _WHOLE.take(index)
    cells[..., -1] = _LAST_WHOLE.take(index[..., -1])
    return cells


def _decimal_cells(values: Singles) -> AnyArray:
    thousandths = np.rint(values * _PLACES).astype(np.int32)
    index = thousandths // _LIMIT
    rest = thousandths - _LIMIT * index
    cells: AnyArray = _UNITS.take(index) | _THOUSANDTHS.take(rest)
    cells[..., -1] = _UNITS.take(index[..., -1]) | _LAST_THOUSANDTHS.take(rest[..., -1])
    return cells


def _framed(cells: AnyArray) -> list[bytes]:
    """Text of `[[cell cell ...],[cell ...],...]` for each row of cells (n, K, Q), the last of Q ending in a bracket."""
    _, steps, levels = cells.shape
    step = np.dtype([("open", "u1"), ("cells", cells.dtype, (levels,)), ("comma", "u1")])
    text = np.empty(len(cells), np.dtype([("open", "u1"), ("steps", step, (steps,))]))
    text["open"] = ord("[")
    text["steps"]["open"] = ord("[")
    text["steps"]["cells"] = cells
    text["steps"]["comma"] = ord(",")
    text["steps"]["comma"][:, -1] = ord("]")
    # Text has no zero byte at its end, so the fixed-width strings lose nothing
    texts: list[bytes] = text.view(f"S{text.dtype.itemsize}").tolist()
    return texts


def _opened(cells: AnyArray) -> list[bytes]:
    """Text of `[cell cell ...]` for each row of cells (n, Q), the last of Q ending in a bracket."""
    text = np.empty(len(cells), np.dtype([("open", "u1"), ("cells", cells.dtype, cells.shape[1:])]))
    text["open"] = ord("[")
    text["cells"] = cells
    texts: list[bytes] = text.view(f"S{text.dtype.itemsize}").tolist()
    return texts


def _table(texts: Iterable[bytes], dtype: str) -> AnyArray:
    return np.frombuffer(b"".join(texts), dtype=dtype)


# One entry per number below the limit: the bytes of its text, held as an integer because those are fast to look up. A
# decimal is the text of its whole part, with zero bytes after it, joined by `|` to that of its thousandths.
_WHOLE: Final = _table((b"%3d," % i for i in range(_LIMIT)), "u4")
_LAST_WHOLE: Final = _table((b"%3d]" % i for i in range(_LIMIT)), "u4")
_UNITS: Final = _table((b"%3d\0\0\0\0\0" % i for i in range(_LIMIT)), "u8")
_THOUSANDTHS: Final = _table((b"\0\0\0.%03d," % i for i in range(_LIMIT)), "u8")
_LAST_THOUSANDTHS: Final = _table((b"\0\0\0.%03d]" % i for i in range(_LIMIT)), "u8")
