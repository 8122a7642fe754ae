"""Writes tests/golden/state/format-N: what a worker of this build stores of one SKU, as files.

Run `python -m tests.support.golden_state` once, when `streams.state.meta.FORMAT` has been raised, and commit what it
made.
Folders of earlier formats are never written again: they are what older workers left behind.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from features.grid import WindowGrid
from features.sku_state import SkuState
from features.table import cut
from inference import pipeline
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.state import meta as metas
from streams.state.rows import SKU_ROW
from tests.support.sku_states import Click, Order, Price, close_due, columns, day_ms

STATE = Path(__file__).parents[1] / "golden" / "state"
SKU = "85123A"
TIMEZONE = "Europe/London"


def story() -> SkuState:
    """Nine days of one SKU beside another, the last two of them still open."""
    sku_state = SkuState(WindowGrid(timezone=TIMEZONE), extra_columns=pipeline.columns(None))
    for day, quantity in enumerate([6, 2, 0.5, 0, 12, 1, 0, 3, 4]):
        lines = [
            Order(f"{day}-1", SKU, quantity, 2.55, day_ms(day, 9)),
            Order(f"{day}-2", SKU, -1 if day == 4 else 1, 0.0 if day == 7 else 2.1, day_ms(day, 17)),
            Order(f"{day}-3", "22423", 1, 12.75, day_ms(day, 12)),
        ]
        sku_state.absorb(ORDERS, columns(ORDERS, lines[:2] if day % 7 != 6 else lines[2:]), now_ms=day_ms(30))
        clicks = [Click(f"{day}-{n}", SKU, n % 3, day_ms(day, 8 + n)) for n in range(day)]
        sku_state.absorb(CLICKS, columns(CLICKS, clicks), now_ms=day_ms(30))
    changes = [Price("p1", SKU, 2.95, day_ms(5, 1)), Price("p2", SKU, 3.25, day_ms(8, 1))]
    sku_state.absorb(PRICES, columns(PRICES, changes), now_ms=day_ms(30))
    close_due(sku_state, day_ms(7))
    return sku_state


def meta_of(sku_state: SkuState) -> metas.Meta:
    """Describe the story's end, with a value other than its default in every field."""
    meta = metas.fresh_meta(sku_state, model="lstm-1d 1")
    meta.sequence, meta.offsets = 41, {"orders": 18, "clicks": 36, "price-changes": 2}
    meta.first_open, meta.watermark_ms = sku_state.windows.first_open, day_ms(7, 1)
    meta.newest_ms = [day_ms(8, 17), day_ms(8, 15), day_ms(8, 1)]
    meta.prior_nu, meta.currency, meta.expected_open, meta.windows_closed = 1.5, "GBP", True, 7
    meta.skus = 2
    meta.counts["orders"] = metas.Counts(records=18, folded=14, duplicate=1, late=1, rejected=2)
    return meta


def plain(value: np.ndarray) -> Any:  # noqa: ANN401 - JSON
    """Give a number or a list of them, NaN as null."""
    if value.ndim:
        return [plain(item) for item in value]
    item = value.item()
    return None if isinstance(item, float) and math.isnan(item) else item


def write(folder: Path) -> None:
    """Write the four files."""
    sku_state = story()
    slots = sku_state.table.slots([SKU])
    number = sku_state.windows.last
    assert number is not None
    window = sku_state.windows.get(number)
    folded = window.folded[window.row_of(slots)]
    meta = meta_of(sku_state)
    said = {
        "sku": {c.name: plain(sku_state.table[c.name][slots[0]]) for c in sku_state.table.spec},
        "open": {name: plain(folded[name][0]) for name in folded.dtype.names or ()},
        "meta": msgspec.to_builtins(meta),
    }
    folder.mkdir()
    (folder / "sku.row").write_bytes(SKU_ROW.pack(sku_state.table, slots)[0])
    (folder / "open.row").write_bytes(cut(folded)[0])
    (folder / "meta.msgpack").write_bytes(msgspec.msgpack.encode(meta))
    (folder / "expected.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    write(STATE / f"format-{metas.FORMAT}")
