"""Event files as decoded columns, for everything that works offline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from schemas.columns import InputColumns as Columns
from schemas.errors import BadInput
from schemas.inputs import BY_NAME, INPUT_NAMES, InputName
from streams.events.files import read, survey
from streams.events.replay import encode_rows
from streams.observe.progress import track_progress


def load_telling(files: Mapping[InputName, Path]) -> dict[int, Columns]:
    """Do as `load`, and tell on stderr how far it is."""
    with track_progress("surveying the event files"):
        rows = sum(survey(path, kind).rows for kind, path in files.items())
    with track_progress("reading events", rows) as told:
        return load(files, told=told)


def load(files: Mapping[InputName, Path], *, told: Callable[[int], object] = lambda _: None) -> dict[int, Columns]:
    """Read event files whole: {input: columns}. Rows that the worker would refuse are left out, as there.

    Every row goes through the bytes that `replay` would send and the decoder of the worker: what holds live holds
    here. told: gets the number of each further rows read. Raises `BadInput` where a file cannot be read or holds no
    usable row.
    """
    return dict(_read(kind, path, told) for kind, path in files.items())


def _read(kind: InputName, path: Path, told: Callable[[int], object]) -> tuple[int, Columns]:
    decode = BY_NAME[kind].decode
    parts, first = [], 0
    for batch in read(path, kind):
        values = encode_rows(kind, batch)[1]
        columns, _ = decode(values)
        parts.append(dataclasses.replace(columns, row=columns.row + np.int32(first)))
        first += len(values)
        told(len(values))
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
