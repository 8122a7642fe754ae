"""The outputs of a partition: windows, forecasts and alerts into their topics, and its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from features.cadence import LEVELS
from inference.aggregation import as_metrics
from inference.alerting import open_counts
from schemas.encoding import encode_alert, encode_forecasts, encode_windows, openings
from streams.kafka.topics import FORECASTS_SHADOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from features.admission import Absorbed
    from inference.outputs import CorrectedOutputs, WindowOutputs
    from schemas.alerts import Alert
    from streams.kafka.batch import RecordBatch
    from streams.kafka.output_producer import OutputProducer
    from streams.observe.metrics import Metrics
    from streams.partition.working_state import WorkingState
    from streams.settings import Settings
    from streams.state.meta import Counts


class Publisher:
    """Puts the outputs of closed windows into their topics."""

    def __init__(self, settings: Settings, producer: OutputProducer, metrics: Metrics) -> None:
        """Publish through `producer`, to the topics of `settings`."""
        self._settings, self._producer, self._metrics = settings, producer, metrics

    def publish(self, closed: WindowOutputs, keys: Sequence[bytes]) -> None:
        """Put the outputs of some SKUs of a closed window. keys: of these SKUs, (n,)."""
        opened = openings(closed.windows)
        if self._settings.silent_windows == "publish":
            self._put("windows", keys, encode_windows(closed.windows, opened))
        elif closed.eventful.any():
            at = np.flatnonzero(closed.eventful)
            self._put("windows", [keys[i] for i in at.tolist()], encode_windows(closed.windows.take(at)))
        if closed.forecasts is not None:
            self._put("forecasts", keys, encode_forecasts(closed.forecasts, opened))
        if closed.shadow is not None:
            self._put(FORECASTS_SHADOW, keys, encode_forecasts(closed.shadow, opened))
        self.publish_alerts(closed.alerts)

    def publish_corrected(self, corrected: CorrectedOutputs) -> None:
        """Put windows and forecasts that late events have changed."""
        if corrected.windows is not None:
            self._put("windows", corrected.keys, encode_windows(corrected.windows))
        if corrected.forecasts is not None:
            self._put("forecasts", corrected.keys, encode_forecasts(corrected.forecasts))

    def publish_alerts(self, alerts: Sequence[Alert]) -> None:
        """Put alerts, each under its SKU or group."""
        if alerts:
            self._put("alerts", [(a.sku or a.group or "").encode() for a in alerts], [encode_alert(a) for a in alerts])

    def _put(self, topic: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._producer.put(self._settings.output(topic), keys, values)
        self._metrics.published.labels(topic).inc(len(values))


class Reporter:
    """Keeps the metrics of one partition."""

    def __init__(self, partition: int, metrics: Metrics) -> None:
        """Report under the number of the partition."""
        self._number, self._metrics = str(partition), metrics

    def absorbed(self, batch: RecordBatch, outcome: Absorbed, counts: Counts) -> None:
        """Count what became of a batch, in `counts` of its input too."""
        labels = (batch.topic, self._number)
        for refusal in outcome.refused:
            self._metrics.refusals.labels(batch.topic, refusal.code).inc()
        for each in batch.skipped:
            self._metrics.refusals.labels(batch.topic, each.code).inc(len(each))
        skipped = sum(map(len, batch.skipped))
        self._metrics.records.labels(*labels).inc(len(batch) + skipped)
        counts.records += len(batch) + skipped
        for name, amount in (
            ("folded", outcome.folded),
            ("duplicate", outcome.duplicate),
            ("late", len(outcome.late)),
            ("rejected", len(outcome.refused) + skipped),
        ):
            setattr(counts, name, getattr(counts, name) + amount)
            self._metrics.outcomes.labels(*labels, name).inc(amount)
        self._metrics.corrected.labels(*labels).inc(len(outcome.corrected))

    def closed(self, windows: int, state: WorkingState) -> None:
        """Report that so many windows have closed."""
        self._metrics.windows.labels(self._number).inc(windows)
        self.standing(state)

    def standing(self, state: WorkingState) -> None:
        """Report what is true of a partition whether or not it ever closes another window."""
        number, first = self._number, state.sku_state.windows.first_open
        self._metrics.skus.labels(number).set(len(state.sku_state.table))
        if first is not None:
            self._metrics.watermark.labels(number).set(state.sku_state.grid.start_ms(first) / 1000)
        if state.session is None:
            return
        self._metrics.coverage.labels(number).set(state.pipeline.live.coverage())
        for source in state.pipeline.live.loss:
            self._metrics.loss.labels(number, source).set(state.pipeline.live.wql(source))
        for (source, steps), weight in as_metrics(state.pipeline.aggregation).items():
            self._metrics.weight.labels(number, source, steps).set(weight)
        shares = state.pipeline.aggregation.hit_shares()
        for level in (0.1, 0.5, 0.9):
            for steps, share in zip(
                state.pipeline.aggregation.groups.names, shares[:, LEVELS.index(level)].tolist(), strict=True
            ):
                self._metrics.hit.labels(number, level, steps).set(share)
        is_open = state.sku_state.table["alert_open"][: len(state.sku_state.table)]
        for (kind, severity), count in open_counts(is_open).items():
            self._metrics.open_alerts.labels(number, kind, severity).set(count)
