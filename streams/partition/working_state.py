"""A partition's state in memory, which capture.py makes flushes of and restore.py puts back."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from features.corrections import Corrections
from features.sku_state import SkuState
from features.watermark import Watermark
from inference import pipeline, shadow, warm_up
from inference.alerting import AlertRules
from inference.pipeline import WindowPipeline
from inference.shadow import ShadowScore
from schemas.errors import StateCorrupt
from streams.kafka.murmur2 import partitions_of
from streams.state.rows import shadow_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from features.currency import ShopCurrency
    from inference.session import Session
    from streams.settings import Settings
    from streams.state.meta import Meta
    from streams.state.scan import Part

log = logging.getLogger(__name__)
NO_MODEL = "none"


@dataclass
class WorkingState:
    """What absorbing records and closing windows change. session: None without a model."""

    sku_state: SkuState
    pipeline: WindowPipeline
    watermark: Watermark
    session: Session | None

    @classmethod
    def empty(
        cls, settings: Settings, session: Session | None, *, number: int, count: int, money: ShopCurrency | None
    ) -> WorkingState:
        """Make that of partition `number` of `count` before its first record. money: None as the settings say."""
        sku_state = SkuState(
            settings.grid,
            extra_columns=pipeline.columns(session),
            owns=lambda keys: partitions_of(keys, count=count) == number,
            max_ahead_ms=settings.max_ahead_ms,
            money=money or settings.money,
        )
        if settings.correct_within_ms:
            sku_state.corrections = Corrections(settings.grid, within_ms=settings.correct_within_ms)
        rules = AlertRules.of(settings.grid.cadence, min_impact=settings.alert_min_impact)
        watermark = Watermark(
            allowed_lateness_ms=settings.allowed_lateness_ms, idle_timeout_ms=settings.idle_timeout_ms
        )
        return cls(sku_state, WindowPipeline(sku_state, session, rules=rules), watermark, session)

    def change_model(self, session: Session) -> None:
        """Go on with another model, between two windows: the state of every SKU is rebuilt from its ring."""
        before = self.pipeline
        self.sku_state.table.exchange(pipeline.model_columns(self.session), pipeline.model_columns(session))
        self.session = session
        self.pipeline = WindowPipeline(self.sku_state, session, rules=before.rules, shadow=before.shadow)
        self.pipeline.take_over(before)

    def change_shadow(self, session: Session | None, *, meta: Meta, rows: Callable[[str], Iterator[Part]]) -> bool:
        """Let another net, or none, be the shadow; returns whether all of it is as it was stored.

        Its comparison goes on where it was stored, and so does its state, unless windows have closed since without it:
        then that is rebuilt from the ring of every SKU. meta: says what is stored. rows: reads the state in a model.
        """
        self.sku_state.table.exchange(shadow.columns(self.pipeline.shadow), shadow.columns(session))
        self.pipeline.shadow, self.pipeline.shadow_score = session, ShadowScore()
        if session is None:
            return False
        if meta.shadow is not None and meta.shadow.model == session.model:
            self.pipeline.shadow_score.restore(meta.shadow.windows)
            is_of_now = meta.shadow.first_open == self.sku_state.windows.first_open
            if is_of_now and self._restore_shadow(session, meta.skus, rows):
                return True
        warm_up.warm_up(self.sku_state, session, takes_back=False, into=("shadow_h", "shadow_c"))
        self.sku_state.table["shadow_next"][:] = np.nan
        return False

    def _restore_shadow(self, session: Session, count: int, rows: Callable[[str], Iterator[Part]]) -> bool:
        """Put the stored state of the shadow back; returns whether it was whole. count: of SKUs that must have one."""
        layout, found = shadow_row(session), 0
        try:
            for skus, packed in rows(session.model):
                layout.unpack_known(self.sku_state.table, skus, packed)
                found += len(skus)
        except StateCorrupt as error:
            log.warning("the state of shadow %s is built anew: %s", session.model, error)
            return False
        return found == count

    @property
    def model(self) -> str:
        """Name the model whose state is kept per SKU, as `Bundle.id` does."""
        return NO_MODEL if self.session is None else self.session.model
