"""Event files as decoded columns, for everything that works offline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from features.sku_state import INPUT_NAMES, Columns
from schemas.decoding import DECODERS
from schemas.errors import BadInput
from streams.events.files import Kind, read
from streams.events.replay import encode_rows


def load(files: Mapping[Kind, Path]) -> dict[int, Columns]:
    """Read event files whole: {input: columns}. Rows that the worker would refuse are left out, as there.

    Every row goes through the bytes that `replay` would send and the decoder of the worker: what holds live holds
    here. Raises `BadInput` where a file cannot be read or holds no usable row.
    """
    return dict(_read(kind, path) for kind, path in files.items())


def _read(kind: Kind, path: Path) -> tuple[int, Columns]:
    decode = DECODERS[kind]
    parts, first = [], 0
    for batch in read(path, kind):
        values = encode_rows(kind, batch)[1]
        columns, _ = decode(values)
        parts.append(dataclasses.replace(columns, row=columns.row + np.int32(first)))
        first += len(values)
    if not any(len(part.row) for part in parts):
        msg = f"{path} holds no usable {kind}"
        raise BadInput(msg)
    return INPUT_NAMES.index(kind), _joined(parts)


def _joined(parts: list[Columns]) -> Columns:
    joined: dict[str, Any] = {}
    for item in dataclasses.fields(parts[0]):
        values = [getattr(part, item.name) for part in parts]
        is_array = isinstance(values[0], np.ndarray)
        joined[item.name] = np.concatenate(values) if is_array else [each for value in values for each in value]
    return type(parts[0])(**joined)
