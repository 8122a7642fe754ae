"""The stored form of a partition: binary rows and one meta record, little-endian, with a format version.

A SKU's row is its columns of the table one after the other, in the table's order, without padding. A row of an open
window is `open_windows.FOLDED`. The layout's signature travels in the meta record: rows are only read by a build that
lays them out in the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np

from features.open_windows import FOLDED
from features.sku_state import INPUT_NAMES, SkuState
from features.table import Column, SkuTable, Slots
from features.watermark import NEVER_MS
from schemas.errors import StateCorrupt, StateMismatch

FORMAT = 1


class Counts(msgspec.Struct):
    """What became of the records of one input: `records = folded + duplicate + late + rejected`, always."""

    records: int = 0
    folded: int = 0
    duplicate: int = 0
    late: int = 0
    rejected: int = 0

    @property
    def balance(self) -> int:
        """Records unaccounted for; anything but 0 is a bug."""
        return self.records - self.folded - self.duplicate - self.late - self.rejected


class SeasonState(msgspec.Struct):
    """`season.Season`, as it is stored."""

    lines: list[float]
    units: list[float]
    visits: list[int]
    missed: list[int]
    fast: float
    slow: float
    open_windows: int


class Meta(msgspec.Struct):
    """The record that makes a flush whole: what the rows beside it have absorbed.

    offsets: per input, the next offset to read; first_open: number of the oldest window not closed; newest_ms: per
    input, its newest event time; skus: how many SKU rows there are beside it.
    """

    format: int
    layout: str
    grid: str
    sequence: int
    offsets: dict[str, int]
    first_open: int | None
    watermark_ms: int
    newest_ms: list[int]
    season: SeasonState
    prior_nu: float
    currency: str
    counts: dict[str, Counts]
    model: str
    expected_open: bool
    windows_closed: int
    skus: int


def row_dtype(spec: Sequence[Column]) -> np.dtype[np.void]:
    """Binary layout of one SKU's row."""
    return np.dtype([(c.name, c.dtype, c.shape) for c in spec])


def layout(spec: Sequence[Column]) -> str:
    """Signature of the binary layout of SKU rows and open rows: 16 hex digits."""
    text = repr([(c.name, c.dtype, c.shape) for c in spec]) + repr(FOLDED.descr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pack(table: SkuTable, slots: Slots) -> list[bytes]:
    """Lay the rows of some slots out: one bytes per slot."""
    dtype = row_dtype(table.spec)
    packed = np.empty(len(slots), dtype)
    for column in table.spec:
        packed[column.name] = table[column.name][slots]
    return cut(packed)


def cut(packed: np.ndarray) -> list[bytes]:
    """Cut a structured array into the bytes of its rows."""
    size, raw = packed.dtype.itemsize, packed.tobytes()
    return [raw[i : i + size] for i in range(0, len(raw), size)]


def unpack(table: SkuTable, skus: Sequence[str], rows: Sequence[bytes]) -> None:
    """Give stored SKUs a slot and their columns back. A row of another length is a `StateMismatch`."""
    dtype = row_dtype(table.spec)
    raw = b"".join(rows)
    sizes = set(map(len, rows)) - {dtype.itemsize}
    if sizes or len(rows) != len(skus):
        msg = (
            f"{len(rows)} rows of {len(skus)} stored SKUs, of {sorted(sizes)} bytes, expected {dtype.itemsize} each; "
            "delete the state directory to rebuild it"
        )
        raise StateMismatch(msg)
    packed = np.frombuffer(raw, dtype)
    first = len(table)
    table.add(skus)
    for column in table.spec:
        table[column.name][first : len(table)] = packed[column.name]


def season_state(sku_state: SkuState) -> SeasonState:
    """Write the partition's season down."""
    s = sku_state.season
    return SeasonState(
        s.lines.tolist(), s.units.tolist(), s.visits.tolist(), s.missed.tolist(), s.fast, s.slow, s.open_windows
    )


def restore_season(sku_state: SkuState, stored: SeasonState) -> None:
    """Put a stored season back."""
    s = sku_state.season
    s.lines, s.units = np.array(stored.lines), np.array(stored.units)
    s.visits, s.missed = np.array(stored.visits, np.int64), np.array(stored.missed, np.int64)
    s.fast, s.slow, s.open_windows = stored.fast, stored.slow, stored.open_windows


def fresh_meta(sku_state: SkuState, *, model: str) -> Meta:
    """Describe a partition that has absorbed nothing."""
    return Meta(
        format=FORMAT,
        layout=layout(sku_state.table.spec),
        grid=sku_state.grid.signature,
        sequence=0,
        offsets={},
        first_open=None,
        watermark_ms=NEVER_MS,
        newest_ms=[NEVER_MS] * len(INPUT_NAMES),
        season=season_state(sku_state),
        prior_nu=sku_state.prior_nu,
        currency="",
        counts={name: Counts() for name in INPUT_NAMES},
        model=model,
        expected_open=False,
        windows_closed=0,
        skus=0,
    )


def check(meta: Meta, sku_state: SkuState, *, where: str) -> None:
    """Refuse state that this build or these settings would misread (`StateMismatch`)."""
    expected = (FORMAT, layout(sku_state.table.spec), sku_state.grid.signature)
    found = (meta.format, meta.layout, meta.grid)
    for name, have, want in zip(("format", "row layout", "windows"), found, expected, strict=True):
        if have != want:
            msg = (
                f"state in {where} has {name} {have!r}, this worker works with {want!r}; start it with the settings "
                "and version that wrote it, or delete that directory to rebuild it from the input topics"
            )
            raise StateMismatch(msg)


def check_count(meta: Meta, found: int, *, where: str) -> None:
    """Refuse state that has lost SKU rows, or kept some that are long gone (`StateCorrupt`).

    The latter is what becomes of a disk that was away for longer than the changelog remembers what was deleted.
    """
    if found != meta.skus:
        msg = (
            f"the state in {where} has {found:,} SKUs, flush {meta.sequence} left {meta.skus:,}; "
            "delete that directory to rebuild it"
        )
        raise StateCorrupt(msg)
