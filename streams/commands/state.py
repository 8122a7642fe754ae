"""The `state` commands: what is stored about a SKU, and whether the stored state is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from features import dates
from features.cadence import RING
from features.id_table import HASH_BYTES
from features.open_windows import FOLDED
from features.sku_state import SkuState
from inference import pipeline
from schemas.errors import BadInput, StateMismatch
from schemas.refusals import sku_complaint
from streams.observe.progress import track_progress
from streams.partition.working_state import NO_MODEL
from streams.settings import Settings
from streams.state.meta import ANEW, Meta, check, check_count, check_model_count
from streams.state.rows import SKU_ROW
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
            row, of_model = store.scan.sku_row(sku), store.scan.model_row(meta.model, sku)
            folded = [(p.number, p.rows[p.skus.index(sku)]) for p in store.scan.open_rows() if sku in p.skus]
        finally:
            store.close()
        if row is not None or folded:
            where = f"{sku} is in {path.name}, as of flush {meta.sequence}"
            closed = _closed_facts(sku_state, sku, row)
            return [where, *closed, *_model_facts(meta, of_model), *_open_facts(sku_state, folded)]
    msg = f"no partition under {settings.state_dir} knows the SKU {sku!r}"
    raise BadInput(msg)


def verify(settings: Settings, *, changelog: bool = False) -> list[str]:
    """Read every stored row of every partition; one line each (`StateMismatch` names the first that is not whole).

    changelog: whether to compare the rows with those in Kafka too.
    """
    return [_verify_one(settings, path, changelog=changelog) for path in _partitions(settings)]


def _verify_one(settings: Settings, path: Path, *, changelog: bool) -> str:
    sku_state = _empty_sku_state(settings)
    store = Store(path)
    try:
        meta = _meta(store, sku_state)
        compared = ""
        if changelog:
            common = compare(settings, store, int(path.name.removeprefix("partition-")))
            compared = f"; the changelog has the same {common:,} records"
        if meta is None:
            return f"{path.name}: nothing flushed yet{compared}"
        with track_progress(f"reading {path.name}, SKUs", meta.skus) as progress:
            for skus, packed in store.scan.sku_rows():
                SKU_ROW.unpack(sku_state.table, skus, packed)
                progress(len(skus))
            folded = sum(len(part.skus) for part in store.scan.open_rows())
            in_model = sum(len(part[0]) for part in store.scan.model_rows(meta.model))
            closed = sum(len(part[1]) for part in store.scan.all_closed_rows())
            ids = sum(len(part[2]) // HASH_BYTES for part in store.scan.ids())
    finally:
        store.close()
    check_count(meta, len(sku_state.table), where=str(path))
    of_model = ""
    if meta.model != NO_MODEL:
        check_model_count(meta, in_model, where=str(path))
        of_model = f", all with their state in model {meta.model}"
    _balance(meta, path)
    _check_scales(sku_state, path)
    taken = sum(c.records for c in meta.counts.values())
    return (
        f"{path.name}: whole; flush {meta.sequence}, {len(sku_state.table):,} SKUs{of_model}, "
        f"{folded:,} open rows, {closed:,} rows of closed windows, {ids:,} event ids, "
        f"{taken:,} records = folded + duplicate + late + rejected{compared}"
    )


def _check_scales(sku_state: SkuState, path: Path) -> None:
    bad = int((~np.isfinite(sku_state.table["nu"][: len(sku_state.table)])).sum())
    if bad:
        msg = f"{bad} SKUs in {path} have no finite scale; start the workers with {ANEW}"
        raise StateMismatch(msg)


def _balance(meta: Meta, path: Path) -> None:
    for topic, counts in meta.counts.items():
        if counts.balance:
            msg = f"{path}: {counts.balance} records of {topic} are unaccounted for; start the workers with {ANEW}"
            raise StateMismatch(msg)


def _partitions(settings: Settings) -> list[Path]:
    found = sorted(settings.group_dir.glob("partition-*"))
    if not found:
        msg = (
            f"there is no state of group {settings.group_id!r} under {settings.state_dir}; "
            "check SKUTREND_STATE_DIR, SKUTREND_GROUP and SKUTREND_TOPIC_PREFIX"
        )
        raise BadInput(msg)
    return found


def _empty_sku_state(settings: Settings) -> SkuState:
    return SkuState(settings.grid, extra_columns=pipeline.JUDGING)


def _meta(store: Store, sku_state: SkuState) -> Meta | None:
    """Read and check the meta record; None where nothing has been flushed yet."""
    meta = store.meta()
    if meta is not None:
        check(meta, sku_state, where=str(store.path))
    return meta


def _closed_facts(sku_state: SkuState, sku: str, row: bytes | None) -> Iterator[str]:
    if row is None:
        yield "no window of it has closed yet"
        return
    SKU_ROW.unpack(sku_state.table, [sku], [row])
    at = sku_state.table.slots([sku])[0]
    t = sku_state.table
    yield f"windows closed since its first event: {t['age'][at]}, of which the shop was open in {t['opens'][at]}"
    yield f"usual units per open window: {t['nu'][at]:.3g}; open windows since the last sale: {t['unsold'][at]}"
    price = t["price"][at]
    yield "price: unknown" if np.isnan(price) else f"price: {price:g}"
    ring = t["ring"][at]
    known = ring[np.isfinite(ring)]
    yield (
        f"units of its last {len(known)} open windows (of {RING} kept): {known.sum():g} in all, "
        f"largest {known.max(initial=0):g}"
    )


def _model_facts(meta: Meta, row: bytes | None) -> Iterator[str]:
    if row is not None:
        values = np.frombuffer(row, "<f4")
        yield f"state in model {meta.model}: {len(values)} numbers, largest {np.abs(values).max(initial=0):.3g}"


def _open_facts(sku_state: SkuState, folded: list[tuple[int, bytes]]) -> Iterator[str]:
    for number, raw in folded:
        row = np.frombuffer(raw, FOLDED)[0]
        when = dates.during(sku_state.grid, sku_state.grid.start_ms(number), sku_state.grid.end_ms(number))
        yield (
            f"still open, {when}: {row['units']:g} units in {row['order_lines']} lines, "
            f"{row['views']} views, {row['returned_units']:g} returned"
        )
