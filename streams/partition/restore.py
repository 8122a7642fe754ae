"""A partition's state is put back into memory as its store holds it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from features import stored
from inference.aggregation import family
from streams.state import meta as metas
from streams.state.rows import SKU_ROW, model_row

if TYPE_CHECKING:
    from streams.partition.working_state import WorkingState
    from streams.state.meta import Meta
    from streams.state.store import Store

log = logging.getLogger(__name__)


def restore(store: Store, state: WorkingState) -> Meta | None:
    """Fill an empty state from a store; returns the meta record, None where nothing was ever flushed.

    `StateMismatch` where it was written under other settings or by another version, `StateCorrupt` where it is not
    whole. State of another model is not read: that of the present one is rebuilt from the windows of each SKU.
    """
    meta, where = store.meta(), str(store.path)
    if meta is None:
        return None
    sku_state = state.sku_state
    metas.check(meta, sku_state, where=where)
    sku_state.currency = sku_state.money.agree(meta.currency, where=where)
    sku_state.table.reserve(store.estimate())
    for skus, packed in store.scan.sku_rows():
        SKU_ROW.unpack(sku_state.table, skus, packed)
    metas.check_count(meta, len(sku_state.table), where=where)
    stored.restore_first_open(sku_state, meta.first_open)
    metas.restore_season(sku_state, meta.season)
    sku_state.prior_nu = meta.prior_nu
    if sku_state.corrections is not None and meta.corrected_from is not None:
        sku_state.corrections.floor = meta.corrected_from
    _restore_model(store, state, meta)
    _restore_open_windows(store, state, meta.first_open)
    state.watermark.value_ms = meta.watermark_ms
    for clock, newest_ms in zip(state.watermark.clocks, meta.newest_ms, strict=True):
        clock.max_event_ms = newest_ms
    return meta


def _restore_model(store: Store, state: WorkingState, meta: Meta) -> None:
    """Put the model's state back, or rebuild it where what is stored is of another model."""
    state.pipeline.expected_open = meta.expected_open
    if state.session is None:
        return
    _restore_blend(store, state, meta)
    if meta.model != state.model:
        log.info("%s: state of model %s, warming up %s", store.path, meta.model, state.model)
        state.pipeline.warm_up()
        return
    table, layout, found = state.sku_state.table, model_row(state.session), 0
    for skus, packed in store.scan.model_rows(state.model):
        layout.unpack_known(table, skus, packed)
        found += len(skus)
    metas.check_model_count(meta, found, where=str(store.path))


def _restore_blend(store: Store, state: WorkingState, meta: Meta) -> None:
    """Put back what is known of the experts, as far as it holds of the present model."""
    if meta.live is not None and family(meta.model) == family(state.model):
        state.pipeline.live.restore(meta.live)
    pending = ((due, raw) for due, raw in store.scan.pending() if due[0] >= (meta.first_open or 0))
    state.pipeline.aggregation.restore(meta.blend, pending)
    if meta.blend:
        state.pipeline.aggregation.trust(meta.model)


def _restore_open_windows(store: Store, state: WorkingState, first: int | None) -> None:
    """Put sums and event ids of open windows back; what is left of closed ones is passed over."""
    for each in store.scan.open_rows():
        if first is None or each.number >= first:
            stored.restore_folded(state.sku_state, each.number, each.skus, each.rows)
    for number, source, hashes in store.scan.ids(first=first or 0):
        stored.restore_ids(state.sku_state, number, source, hashes)
