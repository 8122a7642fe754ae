"""What a flush of a partition writes: all that its state in memory has over what the last one wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from features import stored
from features.id_table import HASH_BYTES, as_hashes
from features.table import cut
from streams.state.flush_record import Flush
from streams.state.meta import ShadowState, season_state
from streams.state.rows import SKU_ROW, RowLayout, model_row, shadow_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streams.partition.working_state import WorkingState
    from streams.state.meta import Meta
    from streams.state.store import Store

PACK_ROWS: Final = 4_096
BULK_ROWS: Final = 2_048


class Capture:
    """Collects the flushes of one partition. has_closed: whether a window has closed since the last flush."""

    def __init__(self, state: WorkingState) -> None:
        """Start where everything is stored."""
        self._state, self._model_row = state, model_row(state.session)
        self.has_closed = False
        self._drops_models = False
        self._by_key: list[int] = []  # slots in the order of their keys
        self._retired: dict[bytes, None] = {}  # SKUs forgotten since the last flush, each once however often it was

    def retired(self, skus: Iterable[bytes]) -> None:
        """Take note of SKUs that were forgotten, and of slots that are numbered anew."""
        self._retired.update(dict.fromkeys(skus))
        self._by_key = []

    def changed_model(self) -> None:
        """Let the next flush write the state of another model, in place of the one before."""
        self._model_row = model_row(self._state.session)
        self.has_closed = self._drops_models = True

    def changed_shadow(self) -> None:
        """Let the next flush write the state of the shadow of now, and remove that of the one before."""
        self.has_closed = self._drops_models = True

    def drop_models(self) -> None:
        """Let the next flush of closed windows remove the state that other models have left."""
        self._drops_models = True

    def renew(self, store: Store) -> None:
        """Let the next flush write everything, as if all of it had changed. store: holds what memory does not."""
        self.has_closed = True
        corrections, seen = self._state.sku_state.corrections, self._state.sku_state.seen
        stored.renew(self._state.sku_state)
        self._state.pipeline.aggregation.renew()
        first_open = self._state.sku_state.windows.first_open
        if corrections is None or first_open is None:
            return
        for number, skus, rows in store.scan.all_closed_rows():
            corrections.put_back(number, skus, rows)
        for number, source, hashes in store.scan.ids():
            if number < first_open:
                seen[source].add_late(as_hashes(hashes), np.full(len(hashes) // HASH_BYTES, number))

    def take(self, meta: Meta) -> Flush:
        """Make the next flush, whose meta record is `meta` brought up to date."""
        sku_state, pipeline, watermark = self._state.sku_state, self._state.pipeline, self._state.watermark
        meta.sequence += 1
        meta.first_open = sku_state.windows.first_open
        meta.watermark_ms = watermark.value_ms
        meta.newest_ms = [clock.max_event_ms for clock in watermark.clocks]
        meta.season = season_state(sku_state)
        meta.prior_nu, meta.currency = sku_state.prior_nu, sku_state.currency
        meta.expected_open = pipeline.expected_open
        corrections = sku_state.corrections
        moved = [] if corrections is None else corrections.take_moved()
        live = self._live_by_key() if self.has_closed else []
        rows = live if self.has_closed else sku_state.table.slots([key.decode() for key in moved]).tolist()
        if self.has_closed:  # else the rows are those of an earlier flush, and so is the model of their state
            meta.skus, meta.model = len(live), self._state.model
            meta.live = None if pipeline.session is None else pipeline.live.state()
            meta.blend = b"" if pipeline.session is None else pipeline.aggregation.packed()
            if pipeline.shadow is not None:
                windows = pipeline.shadow_score.rows()
                meta.shadow = ShadowState(pipeline.shadow.model, meta.first_open or 0, windows)
        return Flush(
            meta=meta,
            skus=self._rows(SKU_ROW, rows),
            models=self._model_rows(live),
            closed=() if corrections is None else list(corrections.take_rows()),
            folded={number: (skus, cut(sums)) for number, skus, sums in stored.take_folded(sku_state)},
            ids=stored.take_ids(sku_state),
            pending=pipeline.aggregation.take_fresh(),
            retired=self._take_retired(),
            closed_before=meta.first_open,
            out_of_reach_before=self._first_in_reach(meta.first_open),
            drops_models=self._drops_models and self.has_closed,
            bulk=len(live) >= BULK_ROWS,
        )

    def _first_in_reach(self, first_open: int | None) -> int | None:
        corrections = self._state.sku_state.corrections
        return None if corrections is None or first_open is None else corrections.first_in_reach(first_open)

    def stored(self) -> None:
        """Take note that what was taken last is stored."""
        if self.has_closed:
            self._drops_models = False  # it is done, and need not be looked for again
        self.has_closed = False

    def _take_retired(self) -> list[bytes]:
        """Give the keys of SKUs forgotten since the last flush, but for those whose row this flush writes anew."""
        table, first = self._state.sku_state.table, self._state.sku_state.windows.first_open or 0
        slots = table.slots([key.decode() for key in self._retired])
        is_back = (slots >= 0) & (table["first_number"][slots] < first)
        retired = [key for key, back in zip(self._retired, is_back.tolist(), strict=True) if not back]
        self._retired = {}
        return retired

    def _live_by_key(self) -> list[int]:
        """Give the slots of all SKUs that a close has moved, ascending by key."""
        table, first = self._state.sku_state.table, self._state.sku_state.windows.first_open
        if len(self._by_key) < len(table):
            self._by_key.extend(range(len(self._by_key), len(table)))
            self._by_key.sort(key=table.keys.__getitem__)  # nearly linear: all but the new ones are in order
        order = np.array(self._by_key, np.int32)
        live: list[int] = order[table["first_number"][order] < (first or 0)].tolist()
        return live

    def _model_rows(self, live: list[int]) -> dict[str, Iterator[tuple[list[bytes], list[bytes]]]]:
        """Give the rows of these slots in each model."""
        session, shadow = self._state.session, self._state.pipeline.shadow
        rows = {} if session is None else {session.model: self._rows(self._model_row, live)}
        if shadow is not None and shadow.model not in rows:
            rows[shadow.model] = self._rows(shadow_row(shadow), live)
        return rows

    def _rows(self, layout: RowLayout, live: list[int]) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Give the rows of these slots, part by part."""
        table = self._state.sku_state.table
        for low in range(0, len(live), PACK_ROWS):
            slots = live[low : low + PACK_ROWS]
            yield [table.keys[slot] for slot in slots], layout.pack(table, np.array(slots, np.int32))
