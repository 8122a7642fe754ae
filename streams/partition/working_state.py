"""A partition's state in memory, which capture.py makes flushes of and restore.py puts back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from features.corrections import Corrections
from features.sku_state import SkuState
from features.watermark import Watermark
from inference import pipeline, shadow, warm_up
from inference.alerting import AlertRules
from inference.pipeline import WindowPipeline
from inference.shadow import ShadowScore
from streams.kafka.murmur2 import partitions_of

if TYPE_CHECKING:
    from features.currency import ShopCurrency
    from inference.session import Session
    from streams.settings import Settings

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

    def change_shadow(self, session: Session | None) -> None:
        """Let another net, or none, be the shadow; its state is rebuilt from the ring of every SKU."""
        before = self.pipeline.shadow
        self.sku_state.table.exchange(shadow.columns(before), shadow.columns(session))
        self.pipeline.shadow, self.pipeline.shadow_score = session, ShadowScore()
        if session is not None:
            warm_up.warm_up(self.sku_state, session, takes_back=False, into=("shadow_h", "shadow_c"))

    @property
    def model(self) -> str:
        """Name the model whose state is kept per SKU, as `Bundle.id` does."""
        return NO_MODEL if self.session is None else self.session.model
