"""What of the open windows of a SKU state is stored: what has changed since the last flush, and putting it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from features.open_windows import FOLDED
from features.sku_state import SkuState


def take_folded(sku_state: SkuState) -> Iterator[tuple[int, list[bytes], np.ndarray]]:
    """Take what was folded since the last call: (window, keys of SKUs, ascending, their sums as `FOLDED`)."""
    keys = sku_state.table.keys
    for number, touched in sku_state.take_touched().items():
        window = sku_state.windows.get(number)
        slots = sorted(touched.tolist(), key=keys.__getitem__)
        yield number, [keys[slot] for slot in slots], window.folded[window.row_of(np.array(slots, np.int32))]


def take_ids(sku_state: SkuState) -> dict[tuple[int, int], bytes]:
    """Take the event ids admitted since the last call: hashes of 16 bytes each, by (window, input)."""
    return {
        (number, source): fresh
        for source, seen in enumerate(sku_state.seen)
        for number, fresh in seen.take_fresh().items()
    }


def renew(sku_state: SkuState) -> None:
    """Let the next `take_folded` and `take_ids` give everything."""
    for number, window in sku_state.windows.by_number.items():
        sku_state.touched[number] = [window.slots[: window.count].copy()]
    for seen in sku_state.seen:
        seen.renew()


def restore_folded(sku_state: SkuState, number: int, skus: Sequence[str], rows: Sequence[bytes]) -> None:
    """Put the stored sums of an open window back; SKUs without a slot are given one."""
    table = sku_state.table
    unknown = [sku for sku in skus if sku not in table.index]
    if unknown:
        table.add(unknown)
    slots = table.slots(skus)
    np.minimum.at(table["first_number"], slots, number)
    window = sku_state.windows.get(number)
    at = window.rows(slots)  # before `folded` is looked at: it may be laid out anew
    window.folded[at] = np.frombuffer(b"".join(rows), FOLDED)


def restore_ids(sku_state: SkuState, number: int, source: int, hashes: bytes) -> None:
    """Put stored event ids of an open window back."""
    sku_state.seen[source].restore(number, hashes)


def restore_first_open(sku_state: SkuState, number: int | None) -> None:
    """Let window `number` be the oldest one that is open."""
    sku_state.windows.first_open = number
    if number is not None:  # older workers have counted windows that are still open
        last = sku_state.table["last_number"][: len(sku_state.table)]
        np.minimum(last, number - 1, out=last)
