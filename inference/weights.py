"""The weights in an ONNX graph, read without the `onnx` package, which only training has.

ONNX Runtime's LSTM turns a weight that is NaN into an answer that looks like one, so that running a graph does not
tell. Only what is needed of protobuf's wire format and of onnx.proto is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRAPH: Final = 7  # of ModelProto
_INITIALIZER: Final = 5  # of GraphProto
_TYPE, _FLOATS, _NAME, _RAW = 2, 4, 8, 9  # of TensorProto
_DTYPES: Final = {1: "<f4", 10: "<f2", 11: "<f8"}  # of TensorProto.DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def not_finite(graph: bytes) -> list[str]:
    """Name the initializers of a graph that hold NaN or infinity. `ValueError` where it is no protobuf."""
    found = []
    for number, model_field in _fields(memoryview(graph)):
        if number == _GRAPH and isinstance(model_field, memoryview):
            for inner, tensor in _fields(model_field):
                if inner == _INITIALIZER and isinstance(tensor, memoryview):
                    name, values = _tensor(tensor)
                    if not np.isfinite(values).all():
                        found.append(name)
    return found


def _tensor(raw: memoryview) -> tuple[str, np.ndarray]:
    """Read a tensor's name and its values; none of a type that is always finite."""
    fields = dict(_fields(raw))
    dtype, name = _DTYPES.get(_number(fields.get(_TYPE))), bytes(_view(fields.get(_NAME))).decode()
    values = _view(fields.get(_RAW)) or _view(fields.get(_FLOATS))
    return name, np.zeros(0) if dtype is None else np.frombuffer(values, dtype)


def _number(value: int | memoryview | None) -> int:
    return value if isinstance(value, int) else 0


def _view(value: int | memoryview | None) -> memoryview:
    return value if isinstance(value, memoryview) else memoryview(b"")


def _fields(raw: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Go through the fields of a message: numbers as int, everything with a length as a view."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(raw, at)
            yield number, value
        elif wire in {_FIXED64, _BYTES, _FIXED32}:
            size, at = _varint(raw, at) if wire == _BYTES else (8 if wire == _FIXED64 else 4, at)
            if at + size > len(raw):
                break
            yield number, raw[at : at + size]
            at += size
        else:
            break
    if at != len(raw):
        msg = f"no protobuf message: it breaks off at byte {at} of {len(raw)}"
        raise ValueError(msg)


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(raw):
        byte = raw[at]
        at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number
            return value, at
    msg = f"no protobuf message: a number breaks off at byte {at}"
    raise ValueError(msg)
