"""Memory, disk and time of a recovery that reads very many records without a value, as closed windows leave behind.

The changelog is a generator, so that all that is measured is what the recovery itself keeps.
"""

from __future__ import annotations

import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from features.grid import WindowGrid
from features.sku_state import SkuState
from streams.state import meta as metas
from streams.state import recovery
from streams.state.keys import META
from streams.state.store import Store
from tests.bench.throughput import rss_mb

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = 10_000
IDS_A_WINDOW = 86_400 * 3  # a flush a second of three inputs, in day windows


class Message:
    """A record as confluent-kafka gives it."""

    __slots__ = ("_key", "_offset", "_value")

    def __init__(self, offset: int, key: bytes, value: bytes | None) -> None:
        """Hold the three."""
        self._offset, self._key, self._value = offset, key, value

    def key(self) -> bytes:
        """Key."""
        return self._key

    def value(self) -> bytes | None:
        """Value; None: the key is gone."""
        return self._value

    def offset(self) -> int:
        """Offset."""
        return self._offset


class Tombstones:
    """A changelog that ends with so many tombstones of event ids and a meta record."""

    def __init__(self, count: int) -> None:
        """count: tombstones."""
        self.count = count

    def bounds(self) -> tuple[int, int]:
        """First offset and the one after the last."""
        return 0, self.count + 1

    def records(self, _start: int, _end: int) -> Iterator[list[Any]]:
        """Give the records in batches."""
        for low in range(0, self.count, AT_ONCE):
            yield [Message(n, _key(n), None) for n in range(low, min(low + AT_ONCE, self.count))]
        meta = metas.fresh_meta(SkuState(WindowGrid()), model="none")
        meta.sequence, meta.first_open = self.count, 20_000
        yield [Message(self.count, META, msgspec.msgpack.encode(meta))]

    def close(self) -> None:
        """Do nothing."""


def _key(number: int) -> bytes:
    window, rest = divmod(number, IDS_A_WINDOW)
    return b"d" + struct.pack(">qBQL", 15_000 + window, rest % 3, number // 3, 0)


def main(count: int) -> None:
    """Recover, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "partition-0")
        before_mb, started, cpu = rss_mb("self"), time.perf_counter(), time.process_time()
        reader: Any = Tombstones(count)
        sizes: list[int] = []
        recovery.recover(
            store, reader, topic="changelog", partition=0, report=lambda _: sizes.append(store.size_bytes())
        )
        took_s, cpu = time.perf_counter() - started, time.process_time() - cpu
        sizes.append(store.size_bytes())
        store.close()
    print(
        f"recovery of {count:,} tombstones: {rss_mb('self') - before_mb:,.0f} MB of memory at most, {took_s:.1f} s, "
        f"{cpu:.1f} CPU-s, {max(sizes) / 1e6:,.0f} MB on disk at most, {sizes[-1] / 1e6:,.0f} MB after"
    )
