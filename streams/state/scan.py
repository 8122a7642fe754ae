"""What is stored of a partition, read family by family in the order of its keys (keys.py)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from features.corrections import CLOSED
from features.id_table import HASH_BYTES
from streams.state import keys
from streams.state.store_errors import damaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.state.rocks import RocksDb

_AT_ONCE: Final = 1_024  # rows, few enough for the processor's cache
_LARGE_AT_ONCE: Final = 64  # records of up to `keys.IDS_PART_BYTES`, or of a panel
Part = tuple[list[str], list[bytes]]


@dataclass(frozen=True)
class OpenRows:
    """Stored sums of one open window."""

    number: int
    skus: list[str]
    rows: list[bytes]


class Scan:
    """Reads the records of one partition; a scan sees the state as it was when it began."""

    def __init__(self, db: RocksDb) -> None:
        """Read from an open RocksDB."""
        self._db = db

    def sku_rows(self, *, at_a_time: int = _AT_ONCE) -> Iterator[Part]:
        """Go through the SKU rows, in parts: (SKUs, rows)."""
        for part in self._db.parts(keys.SKU, at_a_time):
            yield [key[1:].decode() for key, _ in part], [row for _, row in part]

    def sku_row(self, sku: str) -> bytes | None:
        """Read the row of one SKU."""
        return self._db.get(keys.sku_key(sku.encode()))

    def model_rows(self, model: str, *, at_a_time: int = _AT_ONCE) -> Iterator[Part]:
        """Go through the state of all SKUs in one model, in parts: (SKUs, rows)."""
        prefix = keys.model_prefix(model)
        for part in self._db.parts(prefix, at_a_time):
            yield [key[len(prefix) :].decode() for key, _ in part], [row for _, row in part]

    def model_row(self, model: str, sku: str) -> bytes | None:
        """Read the state of one SKU in one model."""
        return self._db.get(keys.model_prefix(model) + sku.encode())

    def has_models_beside(self, *models: str) -> bool:
        """Tell whether there is state of any model but these."""
        return any(self._db.first(low, high) is not None for low, high in keys.beside_models(models))

    def model_keys_beside(self, *models: str) -> Iterator[bytes]:
        """Go through the keys of the state in all models but these."""
        for low, high in keys.beside_models(models):
            for part in self._db.between(low, high, _AT_ONCE):
                for key, _ in part:
                    yield key

    def open_rows(self) -> Iterator[OpenRows]:
        """Go through the open windows, ascending."""
        current: OpenRows | None = None
        for key, row in self._records(keys.OPEN):
            number = struct.unpack(">q", key[1:9])[0]
            if current is None or current.number != number:
                if current is not None:
                    yield current
                current = OpenRows(number, [], [])
            current.skus.append(key[9:].decode())
            current.rows.append(row)
        if current is not None:
            yield current

    def ids(self, *, first: int = 0) -> Iterator[tuple[int, int, bytes]]:
        """Go through the event ids: (window, input, hashes of 16 bytes each); `StateCorrupt` if cut.

        first: window from which on.
        """
        low, high = keys.IDS + keys.window_bytes(max(first, 0)), keys.after(keys.IDS)
        for part in self._db.between(low, high, _LARGE_AT_ONCE):
            for key, value in part:
                yield struct.unpack(">q", key[1:9])[0], key[9], self._whole(value)

    def _whole(self, hashes: bytes) -> bytes:
        if len(hashes) % HASH_BYTES:
            what = f"{len(hashes)} bytes of event ids are no multiple of {HASH_BYTES}"
            raise damaged(self._db.path, what)
        return hashes

    def closed_ids(self, number: int, source: int) -> bytes:
        """Give the event ids of an input in a closed window: hashes of 16 bytes each."""
        prefix = keys.IDS + keys.window_bytes(number) + bytes([source])
        parts = self._db.between(prefix, keys.after(prefix), _LARGE_AT_ONCE)
        return b"".join(self._whole(value) for part in parts for _, value in part)

    def closed_rows(self, number: int, skus: Sequence[bytes]) -> list[bytes | None]:
        """Give the rows of SKUs in a closed window, None where they had no event in it."""
        return [self._row(self._db.get(keys.closed_key(number, sku))) for sku in skus]

    def all_closed_rows(self) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        """Go through the rows of closed windows, in parts: (window, SKUs, rows)."""
        for part in self._db.parts(keys.CLOSED, _AT_ONCE):
            for number, records in groupby(part, key=lambda record: struct.unpack(">q", record[0][1:9])[0]):
                found = list(records)
                yield number, [key[9:] for key, _ in found], [row for _, row in found]

    def _row(self, row: bytes | None) -> bytes | None:
        if row is not None and len(row) != CLOSED.itemsize:
            what = f"a row of a closed window has {len(row)} bytes, not {CLOSED.itemsize}"
            raise damaged(self._db.path, what)
        return row

    def pending(self) -> Iterator[tuple[tuple[int, int], bytes]]:
        """Go through the forecasts that have not come true: ((window, group), `aggregation.Pending`, packed)."""
        for key, value in self._records(keys.PENDING):
            yield (struct.unpack(">q", key[1:9])[0], key[9]), value

    def closed_keys(self, start: int, stop: int, *, families: Sequence[bytes] = keys.OF_OPEN) -> Iterator[bytes]:
        """Go through the keys of families that go with their window, of windows `start` up to `stop` (without it)."""
        for family in families:
            low, high = family + keys.window_bytes(start), family + keys.window_bytes(stop)
            for part in self._db.between(low, high, _at_once(family)):
                for key, _ in part:
                    yield key

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Go through all that the changelog has too, ascending by key."""
        for family in keys.LOGGED:
            yield from self._records(family)

    def _records(self, family: bytes) -> Iterator[tuple[bytes, bytes]]:
        for part in self._db.parts(family, _at_once(family)):
            yield from part


def _at_once(family: bytes) -> int:
    return _LARGE_AT_ONCE if family in {keys.IDS, keys.PENDING} else _AT_ONCE
