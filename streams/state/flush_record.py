"""All that one flush of a partition writes, as records for RocksDB and for the changelog."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from streams.state import keys
from streams.state.keys import IDS_PART_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from streams.state.meta import Meta

    Rows = Iterable[tuple[Sequence[bytes], Sequence[bytes]]]


@dataclass
class Flush:
    """All that one flush writes; consumed once.

    skus: (SKUs, rows) parts, ascending over all of them; models: the same of their state, by the model; closed:
    (window, SKUs, rows) of closed windows; folded: SKUs and rows of each open window; ids: hashes of 16 bytes each, by
    (window, input). pending: forecasts of the panel by (window, group). retired: SKUs that are forgotten.
    closed_before: number of the first window still open; out_of_reach_before: of the first that late events can change.
    drops_models: whether the state that is left of models which the meta record does not name is removed. bulk: whether
    there are many SKU rows.
    """

    meta: Meta
    skus: Rows = ()
    models: Mapping[str, Rows] = field(default_factory=dict)
    closed: Iterable[tuple[int, Sequence[bytes], Sequence[bytes]]] = ()
    folded: dict[int, tuple[Sequence[bytes], Sequence[bytes]]] = field(default_factory=dict)
    ids: dict[tuple[int, int], bytes] = field(default_factory=dict)
    pending: dict[tuple[int, int], bytes] = field(default_factory=dict)
    retired: Sequence[bytes] = ()
    closed_before: int | None = None
    out_of_reach_before: int | None = None
    drops_models: bool = False
    bulk: bool = False

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Give what is to be put, ascending by key."""
        for number, skus, rows in self.closed:
            yield from _prefixed(keys.CLOSED + keys.window_bytes(number), [(skus, rows)])
        for number, source in sorted(self.ids):
            hashes = self.ids[number, source]
            parts = keys.ids_keys(number, source, sequence=self.meta.sequence, size_bytes=len(hashes))
            for part, key in enumerate(parts):
                yield key, hashes[part * IDS_PART_BYTES : (part + 1) * IDS_PART_BYTES]
        for prefix, model in sorted((keys.model_prefix(model), model) for model in self.models):
            yield from _prefixed(prefix, self.models[model])
        yield keys.META, msgspec.msgpack.encode(self.meta)
        for number in sorted(self.folded):
            yield from _prefixed(keys.OPEN + keys.window_bytes(number), [self.folded[number]])
        yield from _prefixed(keys.SKU, self.skus)
        for number, group in sorted(self.pending):
            yield keys.pending_key(number, group), self.pending[number, group]

    def gone_before(self) -> Iterator[tuple[tuple[bytes, ...], int]]:
        """Give families of records that go with their window, and the window before which they are gone."""
        if self.closed_before is not None:
            yield keys.OF_OPEN, self.closed_before
            reach = self.out_of_reach_before
            yield keys.IN_REACH, self.closed_before if reach is None else reach

    def retired_keys(self) -> Iterator[bytes]:
        """Give the keys of what is removed with the SKUs that are forgotten."""
        of_models = [keys.model_prefix(model) for model in self.meta.models] if self.models else []
        for sku in self.retired:
            yield keys.sku_key(sku)
            for prefix in of_models:
                yield prefix + sku


def _prefixed(prefix: bytes, parts: Rows) -> Iterator[tuple[bytes, bytes]]:
    for names, rows in parts:
        for name, row in zip(names, rows, strict=True):
            yield prefix + name, row
