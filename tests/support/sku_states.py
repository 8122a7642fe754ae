"""Decoded batches out of plain tuples, and a partition whose windows are closed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.admission import Columns
from features.cadence import DAY_MS
from features.duplicates import SeenIds
from features.encoding import encode
from features.id_table import HASH_BYTES
from features.season import Context
from features.sku_state import SkuState
from schemas.columns import ClickColumns, OrderColumns, PriceColumns
from schemas.inputs import CLICKS, ORDERS

MONDAY_MS = 1_299_456_000_000  # 2011-03-07T00:00Z
"""A Monday, so that day windows from here have phase 0, 1, 2, ..."""


class Order(NamedTuple):
    event_id: str
    sku: str
    quantity: float
    unit_price: float
    time_ms: int
    currency: str = "GBP"


class Click(NamedTuple):
    event_id: str
    sku: str
    kind: int
    time_ms: int


class Price(NamedTuple):
    event_id: str
    sku: str
    price: float
    time_ms: int
    currency: str = "GBP"


Event = Order | Click | Price
KINDS: tuple[type[Event], ...] = (Order, Click, Price)


def columns(source: int, events: Sequence[Any]) -> Columns:
    """Lay the events of one input out as decoding would."""
    row = np.arange(len(events), dtype=np.int32)
    ids, skus = [e.event_id for e in events], [e.sku for e in events]
    times_ms = np.array([e.time_ms for e in events], np.int64)
    if source == ORDERS:
        quantity = np.array([e.quantity for e in events], np.float64)
        price = np.array([e.unit_price for e in events], np.float64)
        return OrderColumns(row, ids, skus, quantity, price, times_ms, [e.currency for e in events])
    if source == CLICKS:
        return ClickColumns(row, ids, skus, np.array([e.kind for e in events], np.int8), times_ms)
    prices = np.array([e.price for e in events], np.float64)
    return PriceColumns(row, ids, skus, prices, times_ms, [e.currency for e in events])


def cut(events: Sequence[Any], at: Sequence[int]) -> list[list[Any]]:
    """Cut events into consecutive batches at the given places (any integers; taken modulo the length)."""
    places = sorted({0, len(events), *(a % (len(events) + 1) for a in at)})
    return [list(events[a:b]) for a, b in pairwise(places)]


@dataclass(frozen=True)
class Closed:
    """One closed window: by SKU, what happened and what the model would see of it."""

    number: int
    facts: dict[str, dict[str, Any]]
    vectors: dict[str, NDArray[np.float32]]
    context: Context | None


def close(sku_state: SkuState, number: int) -> Closed:
    """Close one window as a worker without a model does, and note what happened and what a model would see."""
    found, vectors, context = {}, {}, None
    for chunk in sku_state.close(number):
        encoded = encode(chunk.after, chunk.facts, chunk.context)
        chunk.commit()
        context = chunk.context
        for at, slot in enumerate(chunk.slots.tolist()):
            sku = sku_state.table.skus[slot]
            assert sku not in found, "a SKU has one row per window"
            names = chunk.facts.__dataclass_fields__
            found[sku] = {name: getattr(chunk.facts, name)[at].item() for name in names}
            vectors[sku] = encoded[at]
    return Closed(number, found, vectors, context)


def close_due(sku_state: SkuState, watermark_ms: int) -> list[Closed]:
    """Close everything that is due, in the order in which it is named."""
    closed = []
    while (number := sku_state.due(watermark_ms)) is not None:
        closed.append(close(sku_state, number))
    return closed


def day_ms(day: int, hour: float = 0.0) -> int:
    """Give a time on day `day` (0 is a Monday) of the tests' calendar, in UTC."""
    return MONDAY_MS + day * DAY_MS + int(hour * 3_600_000)


def statistics(sku_state: SkuState) -> dict[str, dict[str, bytes]]:
    """Give every column of every SKU, as bytes, so that equal means equal to the last bit and NaN equals NaN."""
    table = sku_state.table
    return {sku: {c.name: table[c.name][slot].tobytes() for c in table.spec} for sku, slot in table.index.items()}


def remembered(seen: SeenIds) -> set[bytes]:
    """What all event ids are known by that are remembered."""
    return {
        known_by(hashes[i : i + HASH_BYTES]) for _, hashes in seen.held() for i in range(0, len(hashes), HASH_BYTES)
    }


def known_by(entry: bytes) -> bytes:
    """Give the part of an entry that tells ids apart, without what it says of the content."""
    return entry[:8] + entry[12:]
