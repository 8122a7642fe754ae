"""The life of one partition: absorb(batch) -> close_due(watermark) -> forecast -> judge -> flush.

Windows close in window_closer.py.

Everything before `flush` only changes memory and passes outputs to the producer; a crash anywhere loses nothing but
memory, because inputs are read again from the offsets of the last flush.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from features.admission import Absorbed, Columns
from features.currency import ShopCurrency
from features.watermark import NEVER_MS
from inference.pipeline import WindowPipeline
from inference.session import Session
from schemas.errors import FlushFailed
from schemas.inputs import INPUT_NAMES, INPUTS
from streams.config.personal import Masker
from streams.kafka.batch import RecordBatch
from streams.kafka.output_producer import OutputProducer
from streams.kafka.topics import DEFAULT_LIMIT_BYTES
from streams.observe.metrics import Metrics
from streams.partition.capture import Capture
from streams.partition.changes import Changes
from streams.partition.publishing import Publisher, Reporter
from streams.partition.restore import restore
from streams.partition.side_outputs import SideOutputs
from streams.partition.window_closer import WindowCloser
from streams.partition.working_state import WorkingState
from streams.settings import Settings
from streams.state import meta as metas
from streams.state.changelog import Changelog
from streams.state.flush import FlushChannel
from streams.state.meta import Meta
from streams.state.snapshots import SnapshotWriter
from streams.state.store import Store

log = logging.getLogger(__name__)
_CURRENCY_TAKEN = (
    "partition %d: the shop's money is taken to be in %s, the currency of the first record seen; set "
    "SKUTREND_CURRENCY, since another worker may see another one first"
)


@dataclass(frozen=True)
class Geometry:
    """Which partition this is, of how many; and how large a record of the dead letters and late events may be."""

    number: int
    count: int
    letter_limit_bytes: int = DEFAULT_LIMIT_BYTES


@dataclass(frozen=True)
class Flushing:
    """A flush under way. started_s: time.perf_counter. within_s: how long all of it may take."""

    started_s: float
    within_s: float


class Partition:
    """State, offsets and outputs of one partition number of all inputs. One owner, one thread at a time."""

    def __init__(  # noqa: PLR0913  # what a partition is made of, nearly all by name
        self,
        geometry: Geometry,
        settings: Settings,
        *,
        store: Store,
        producer: OutputProducer,
        session: Session | None,
        metrics: Metrics,
        changelog: Changelog | None = None,
        snapshot_writer: SnapshotWriter | None = None,
        money: ShopCurrency | None = None,
        masker: Masker | None = None,
    ) -> None:
        """Restore what the store holds (`StateMismatch` when it is another's), else start empty.

        changelog: None keeps state on this machine only. Its producer may be `producer`: then outputs and state are one
        transaction. snapshot_writer: takes snapshots after flushes. money: shared by all partitions of a worker.
        masker: of personal data in dead letters. None of these two: as the settings say.
        """
        self.number = geometry.number
        self.settings = settings
        self.store = store
        self.producer = producer
        self.metrics = metrics
        self.changelog = changelog
        self.snapshot_writer = snapshot_writer
        self.side_outputs = SideOutputs(
            producer,
            settings.output("dead-letters"),
            settings.output("late-events"),
            geometry.letter_limit_bytes,
            masker or settings.masker,
        )
        self._state = WorkingState.empty(settings, session, number=geometry.number, count=geometry.count, money=money)
        self.sku_state = self._state.sku_state
        self.watermark = self._state.watermark
        self.flushed_offsets: dict[str, int] = {}
        if self.sku_state.corrections is not None:
            self.sku_state.corrections.stored = store.scan
        self._changes = Changes()
        self._last_flush_ms = NEVER_MS  # of a monotonic clock
        self._channel = FlushChannel(store, producer, changelog)
        self._reporter = Reporter(self.number, metrics)
        self._capture = Capture(self._state)
        self.meta = self._restored()
        self.closer = WindowCloser(
            self.number,
            settings,
            state=self._state,
            meta=self.meta,
            changes=self._changes,
            capture=self._capture,
            publisher=Publisher(settings, producer, metrics),
            metrics=metrics,
        )

    def _restored(self) -> Meta:
        """Put back what the store holds; returns its meta record, or that of a partition that has absorbed nothing."""
        meta = restore(self.store, self._state)
        if meta is None:
            return metas.fresh_meta(self.sku_state, model=self._state.model)
        if not self.settings.shadow_bundle:
            meta.shadow = None
        kept = () if meta.shadow is None else (meta.shadow.model,)
        if self.store.scan.has_models_beside(self._state.model, *kept):
            self._capture.drop_models()
        self._reporter.standing(self._state)
        log.info("partition %d: %d SKUs restored from %s", self.number, len(self.sku_state.table), self.store.path)
        return meta

    @property
    def pipeline(self) -> WindowPipeline:
        """What closes its windows."""
        return self._state.pipeline

    @property
    def session(self) -> Session | None:
        """The model that serves."""
        return self._state.session

    def change_model(self, session: Session) -> None:
        """Go on with another model, between two windows; can be left to a thread.

        The newest forecasts stay those of the model before: the next window is the first that the new one speaks of.
        """
        with self._changes.wholly():
            self._state.change_model(session)
            self._capture.changed_model()
        self._changes.has_any = True
        self._reporter.standing(self._state)

    @property
    def shadow(self) -> Session | None:
        """The model that forecasts beside it."""
        return self.pipeline.shadow

    def change_shadow(self, session: Session | None) -> None:
        """Let another model, or none, forecast beside the one that serves; can be left to a thread.

        One whose state is stored goes on where that stands.
        """
        with self._changes.wholly():
            is_back = self._state.change_shadow(session, meta=self.meta, rows=self.store.scan.model_rows)
            if not is_back:
                self.meta.shadow = None
                self._capture.changed_shadow()
        self._changes.has_any = self._changes.has_any or not is_back

    # ------------------------------------------------------------------ absorb
    def next_offset(self, topic: str) -> int:
        """Give the offset from which an input is to be read: behind all that is absorbed."""
        return self.meta.offsets.get(topic, 0)

    def check_topics(self, ids: Mapping[str, str]) -> None:
        """Hold to the topics that offsets and changelog are of (`StateMismatch`), and note those of which none is yet.

        ids: of topics as they are now.
        """
        metas.check_inputs(self.meta, list(map(self.settings.topic, INPUT_NAMES)), where=str(self.store.path))
        metas.check_topics(self.meta, ids, where=str(self.store.path))
        if self.changelog is not None:
            self.changelog.check_topic(ids)
        mine = {topic: ids[topic] for topic in map(self.settings.topic, INPUT_NAMES) if topic in ids}
        if any(self.meta.topic_ids.get(topic) != now for topic, now in mine.items()):
            self.meta.topic_ids |= mine
            self._changes.has_any |= bool(self.meta.offsets)

    def absorb(self, source: int, batch: RecordBatch, *, now_ms: int) -> Absorbed:
        """Fold a fetched batch; what cannot be used goes to the dead letters, what is late to the late events."""
        columns, refused = INPUTS[source].decode(batch.values)
        with self._changes.wholly():
            outcome = self.sku_state.absorb(source, columns, now_ms=now_ms)
            outcome.refused.extend(refused)
            for refusal in outcome.refused:
                self.side_outputs.dead_letter(batch, refusal)
            for skipped in batch.skipped:
                log.error("%s", skipped.error)
                self.side_outputs.dead_letter_unread(batch, skipped)
                self._changes.is_urgent = True  # flushed at once, so that they are not tried again
            for late in outcome.late:
                self.side_outputs.late_event(batch, late, corrected=late.row in outcome.corrected)
            self.watermark.observe(source, on_time_ms=outcome.on_time_ms, late_ms=outcome.late_ms)
            self.meta.offsets[batch.topic] = batch.next
            self._reporter.absorbed(batch, outcome, self.meta.counts[INPUTS[source].name])
            self.closer.heard(now_ms=now_ms)
        self._changes.has_any = True
        self._note_currency()
        return outcome

    def absorb_history(self, source: int, columns: Columns, *, now_ms: int) -> Absorbed:
        """Fold events that come from no topic: none is counted as a record, and what cannot be used goes nowhere."""
        with self._changes.wholly():
            outcome = self.sku_state.absorb(source, columns, now_ms=now_ms)
            self.watermark.observe(source, on_time_ms=outcome.on_time_ms, late_ms=outcome.late_ms)
        self._changes.has_any = True
        self._note_currency()
        return outcome

    def end_history(self, first_live: int) -> None:
        """Take note that windows before `first_live` are of a history: what a topic tells of them is told already."""
        self.meta.corrected_from = first_live
        if self.sku_state.corrections is not None:
            self.sku_state.corrections.floor = first_live
        self._changes.has_any = True

    def _note_currency(self) -> None:
        """Keep the currency of the money seen, and warn where it was only taken to be the shop's."""
        if self.sku_state.currency != self.meta.currency:
            self.meta.currency = self.sku_state.currency
            if not self.sku_state.money.is_set:
                log.warning(_CURRENCY_TAKEN, self.number, self.sku_state.currency)

    # ------------------------------------------------------------------ flush
    def flush_due(self, *, now_ms: int) -> bool:
        """Whether something changed, and the flush interval is over or that must not wait.

        now_ms: monotonic, here and in a flush.
        """
        is_over = now_ms - self._last_flush_ms >= self.settings.flush_interval_ms
        return self._changes.has_any and (is_over or self._changes.is_urgent)

    def flush(self, *, now_ms: int, within_s: float = 60.0) -> None:
        """Make outputs, state and offsets durable, as one step seen from a restart (`FlushFailed`, `Fenced`).

        Outputs first, where they are no part of the transaction: a crash in between repeats them with the same ids,
        and never loses one. The store comes last and may lag behind the changelog by this flush, never lead.
        within_s: how long the brokers may take to answer.
        """
        flushing = self.begin_flush(within_s=within_s)
        if flushing is not None:
            self.commit(flushing)
            self.end_flush(flushing, now_ms=now_ms)

    def begin_flush(self, *, within_s: float) -> Flushing | None:
        """Begin to flush; None where nothing has changed. First of the three parts of `flush`.

        within_s: for all three together. Until `end_flush` nothing else may touch the partition, and unless it is
        reached nothing ever flushes it again.
        """
        if self._changes.is_torn:
            msg = f"partition {self.number} was left in the midst of a change: nothing since its last flush is written"
            raise FlushFailed(msg)
        if not self._changes.has_any:
            return None
        self._changes.is_torn = True
        self.closer.correct()
        return Flushing(time.perf_counter(), within_s)

    def commit(self, flushing: Flushing) -> None:
        """Hand all that has changed to the brokers, and wait until they have it; can be left to a thread."""
        self._channel.begin(self._capture.take(self.meta), within_s=flushing.within_s)
        self._channel.commit()

    def end_flush(self, flushing: Flushing, *, now_ms: int) -> None:
        """Write to the store what the brokers have now."""
        self._channel.end()
        self.flushed_offsets = dict(self.meta.offsets)
        self._capture.stored()
        self._changes.stored()
        self._last_flush_ms = now_ms
        self.metrics.flush.observe(time.perf_counter() - flushing.started_s)
        for delay_s in self.closer.delay.committed(now_s=time.monotonic()):
            self.metrics.close_delay.observe(delay_s)
        if self.snapshot_writer is not None:
            self.snapshot_writer.write_if_due(self.store, self.meta.sequence, now_ms=now_ms)

    def has_room(self) -> bool:
        """Whether a step of closing, or a batch, can be put without waiting for the brokers: see `FlushChannel`."""
        return self._channel.has_room()

    def shorten_deadline(self, by_s: float) -> None:
        """Let the flush that goes on, and those that begin later, end by then: see `FlushChannel.shorten_deadline`."""
        self._channel.shorten_deadline(by_s)

    def renew(self) -> None:
        """Let the next flush write everything, as if all of it had changed."""
        self._changes.has_any = True
        self._capture.renew(self.store)

    def skip(self, topic: str, offset: int) -> None:
        """Go on reading an input at `offset`: what lies before it is lost."""
        self.meta.offsets[topic] = offset
        self._changes.has_any = True

    def close(self) -> None:
        """Give the store and the producer up; what was not flushed is forgotten."""
        if self.snapshot_writer is not None:
            self.snapshot_writer.close()
        self.producer.close()
        if self.changelog is not None and self.changelog.producer is not self.producer:
            self.changelog.producer.close()
        self.store.close()
