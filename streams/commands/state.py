"""The `state` commands: what is stored about a SKU, and whether the stored state is whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from features import closing, rows
from features.open_windows import FOLDED
from features.sku_state import SkuState
from inference import pipeline
from schemas.errors import BadInput, StateMismatch
from schemas.refusals import sku_complaint
from streams.commands.serve import open_session
from streams.settings import Settings
from streams.state.store import Store
from streams.state.verifying import compare


def show(settings: Settings, sku: str) -> list[str]:
    """Describe one SKU, a line per fact (`BadInput` when it can be none, or no partition here knows it)."""
    complaint = sku_complaint(sku)
    if complaint is not None:
        raise BadInput(complaint[1])
    sku_state = _empty_sku_state(settings)
    for path in _partitions(settings):
        store = Store(path)
        try:
            meta = _meta(store, sku_state)
            if meta is None:
                continue
            row = store.sku_row(sku)
            folded = [(part.number, part.rows[part.skus.index(sku)]) for part in store.open_rows() if sku in part.skus]
        finally:
            store.close()
        if row is not None or folded:
            where = f"{sku} is in {path.name}, as of flush {meta.sequence}"
            return [where, *_closed_facts(sku_state, sku, row), *_open_facts(sku_state, folded)]
    msg = f"no partition under {settings.state_dir} knows the SKU {sku!r}"
    raise BadInput(msg)


def verify(settings: Settings, *, changelog: bool = False) -> list[str]:
    """Read every stored row of every partition; one line each (`StateMismatch` names the first that is not whole).

    changelog: whether to compare the rows with those in Kafka too.
    """
    lines = []
    for path in _partitions(settings):
        sku_state = _empty_sku_state(settings)
        store = Store(path)
        try:
            meta = _meta(store, sku_state)
            compared = ""
            if changelog:
                common = compare(settings, store, int(path.name.removeprefix("partition-")))
                compared = f"; the changelog has the same {common:,} records"
            if meta is None:
                lines.append(f"{path.name}: nothing flushed yet{compared}")
                continue
            for skus, packed in store.sku_rows():
                rows.unpack(sku_state.table, skus, packed)
            folded = sum(len(part.skus) for part in store.open_rows())
            ids = sum(len(part[2]) for part in store.ids())
        finally:
            store.close()
        rows.check_count(meta, len(sku_state.table), where=str(path))
        _balance(meta, path)
        bad = int((~np.isfinite(sku_state.table["nu"][: len(sku_state.table)])).sum())
        if bad:
            msg = (
                f"{bad} SKUs in {path} have no finite scale; delete that directory to rebuild it from the input topics"
            )
            raise StateMismatch(msg)
        taken = sum(c.records for c in meta.counts.values())
        lines.append(
            f"{path.name}: whole; flush {meta.sequence}, {len(sku_state.table):,} SKUs, {folded:,} open rows, "
            f"{ids:,} event ids, {taken:,} records = folded + duplicate + late + rejected{compared}"
        )
    return lines


def _balance(meta: rows.Meta, path: Path) -> None:
    for topic, counts in meta.counts.items():
        if counts.balance:
            msg = (
                f"{path}: {counts.balance} records of {topic} are unaccounted for; delete that directory to rebuild it"
            )
            raise StateMismatch(msg)


def _partitions(settings: Settings) -> list[Path]:
    found = sorted((Path(settings.state_dir) / settings.group).glob("partition-*"))
    if not found:
        msg = (
            f"there is no state of group {settings.group!r} under {settings.state_dir}; "
            "check SKUTREND_STATE_DIR and SKUTREND_GROUP"
        )
        raise BadInput(msg)
    return found


def _empty_sku_state(settings: Settings) -> SkuState:
    return SkuState(settings.grid, extra_columns=pipeline.columns(open_session(settings)))


def _meta(store: Store, sku_state: SkuState) -> rows.Meta | None:
    """Read and check the meta record; None where nothing has been flushed yet."""
    meta = store.meta()
    if meta is not None:
        rows.check(meta, sku_state, where=str(store.path))
    return meta


def _closed_facts(sku_state: SkuState, sku: str, row: bytes | None) -> Iterator[str]:
    if row is None:
        yield "no window of it has closed yet"
        return
    rows.unpack(sku_state.table, [sku], [row])
    at = sku_state.table.slots([sku])[0]
    t = sku_state.table
    yield f"windows closed since its first event: {t['age'][at]}, of which the shop was open in {t['opens'][at]}"
    yield f"usual units per open window: {t['nu'][at]:.3g}; open windows since the last sale: {t['unsold'][at]}"
    price = t["price"][at]
    yield "price: unknown" if np.isnan(price) else f"price: {price:g}"
    ring = t["ring"][at]
    known = ring[np.isfinite(ring)]
    yield (
        f"units of its last {len(known)} open windows (of {closing.RING} kept): {known.sum():g} in all, "
        f"largest {known.max(initial=0):g}"
    )


def _open_facts(sku_state: SkuState, folded: list[tuple[int, bytes]]) -> Iterator[str]:
    for number, raw in folded:
        row = np.frombuffer(raw, FOLDED)[0]
        start = datetime.fromtimestamp(sku_state.grid.start_ms(number) / 1000, UTC)
        yield (
            f"open window from {start:%Y-%m-%d %H:%M} UTC: {row['units']:g} units in {row['order_lines']} lines, "
            f"{row['views']} views, {row['returned_units']:g} returned"
        )
