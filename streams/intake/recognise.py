"""Which preset a file is of: asked of its columns, before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from schemas.errors import BadInput
from schemas.inputs import InputName
from streams.intake.convert import Source
from streams.intake.mapping import Format, InputMapping, MappingFile, presets
from streams.intake.readers import FORMATS, Opened, OtherShape, opened

_NEAR: Final = 0.5  # share of a preset's columns that a file has at least for the preset to be named
_SHOWN_COLUMNS: Final = 40


class _Fit(NamedTuple):
    share: float
    columns: int
    mapping: MappingFile
    kind: InputName
    opened: Opened


def source_for(path: Path, mapping: MappingFile, kind: InputName | None = None) -> Source:
    """Open a file as one of a mapping's inputs: that named, or the one whose columns it has.

    Raises `BadInput` where it has the columns of none of them.
    """
    inputs = mapping.inputs if kind is None else {kind: mapping.inputs[kind]}
    if len(inputs) == 1:
        ((only, rules),) = inputs.items()
        found = _opened(path, rules)
        lacking = [name for name in rules.known_by if name not in found.columns]
        if rules.known_by and len(lacking) == len(rules.known_by):
            raise _other_columns(path, found.columns, mapping, lacking)
        return Source(path, only, rules, found, mapping.name)
    fits = _fits(path, {mapping.name: mapping})
    if not fits or fits[0].share < 1:
        columns = fits[0].opened.columns if fits else ()
        known = next(iter(inputs.values())).known_by
        raise _other_columns(path, columns, mapping, [name for name in known if name not in columns])
    return Source(path, fits[0].kind, mapping.inputs[fits[0].kind], fits[0].opened, mapping.name)


def _other_columns(path: Path, columns: tuple[str, ...], mapping: MappingFile, lacking: list[str]) -> BadInput:
    has = ", ".join(columns[:_SHOWN_COLUMNS]) or "no columns"
    lacks = ", ".join(lacking)
    return BadInput(f"{path} is no file of {mapping.name} ({mapping.title}): it lacks {lacks}; it has {has}")


def recognised(path: Path, among: Mapping[str, MappingFile] | None = None) -> Source:
    """Open a file as that of the preset whose columns it all has; of several, the one with the most.

    among: mappings by name, None all presets.

    Raises `BadInput` where there is none, with the columns found, the closest preset, and where to start from.
    """
    fits = _fits(path, presets() if among is None else among)
    if fits and fits[0].share == 1:
        best = fits[0]
        return Source(path, best.kind, best.mapping.inputs[best.kind], best.opened, best.mapping.name)
    columns = fits[0].opened.columns if fits else ()
    has = ", ".join(columns[:_SHOWN_COLUMNS]) or "no columns"
    near, lacks = "", ""
    if fits and fits[0].share >= _NEAR:
        closest = fits[0]
        missing = [name for name in closest.mapping.inputs[closest.kind].known_by if name not in columns]
        near, lacks = closest.mapping.name, f" (it lacks {', '.join(missing)})"
    start = near or "plain"
    msg = (
        f"{path} is of no known shape. It has the columns {has}. "
        + (f"The closest preset is {near}{lacks}. " if near else "")
        + f"Write a mapping: `skutrend mapping show {start} > mine.toml`, change it, and try it with "
        f"`skutrend mapping check mine.toml --sample {path}`"
    )
    raise BadInput(msg)


def _fits(path: Path, mappings: Mapping[str, MappingFile]) -> list[_Fit]:
    """Hold a file against mappings, the best first; `BadInput` where it cannot be read at all."""
    told = format_of(path)
    found: list[_Fit] = []
    for mapping in mappings.values():
        for kind, rules in mapping.inputs.items():
            if not rules.known_by or told not in _alike(rules):
                continue
            try:
                file = _opened(path, rules)
            except OtherShape:
                continue
            share = sum(name in file.columns for name in rules.known_by) / len(rules.known_by)
            found.append(_Fit(share, len(rules.known_by), mapping, kind, file))
    return sorted(found, key=lambda fit: (-fit.share, -fit.columns))


def _alike(rules: InputMapping) -> tuple[Format, ...]:
    """Name the formats that may hold the records of a mapping: flat ones come in all but documents."""
    if rules.format in ("json", "jsonl") and (rules.each or rules.records):
        return ("json", "jsonl")
    return ("csv", "parquet", "jsonl") if not rules.fill_down else ("csv", "parquet")


def format_of(path: Path) -> Format:
    """Tell a file's format from its name; `BadInput` where it tells none."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        msg = f"{path} is of no known format: expected a name ending in {', '.join(FORMATS)}"
        raise BadInput(msg)
    return FORMATS[suffix]


def _opened(path: Path, rules: InputMapping) -> Opened:
    """Open a file in the format that its name tells, where that is another one of the same records."""
    told = format_of(path)
    return opened(path, msgspec.structs.replace(rules, format=told) if told in _alike(rules) else rules)
