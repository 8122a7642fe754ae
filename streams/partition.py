"""The life of one partition: absorb(batch) -> close_due(watermark) -> forecast -> judge -> flush.

Everything before `flush` only changes memory and hands outputs to the outbox; a crash anywhere loses nothing but
memory, because inputs are read again from the offsets of the last flush.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from features import rows
from features.currency import ShopCurrency
from features.grid import EARLIEST_MS
from features.ledger import INPUT_NAMES, Absorbed, Ledger
from features.open_windows import FOLDED, OpenWindow
from features.partitioning import partitions_of
from features.table import Slots
from features.watermark import Watermark
from inference import desk
from inference.alarms import AlarmRules
from inference.session import Session
from schemas.columns import WindowColumns
from schemas.decoding import DECODERS
from schemas.encoding import encode_alert, encode_forecasts, encode_windows, sku_texts
from schemas.errors import FlushFailed
from streams.batch import RecordBatch
from streams.changelog import Changelog
from streams.letters import DEFAULT_LIMIT_BYTES, Letters
from streams.metrics import Metrics
from streams.outbox import Outbox
from streams.personal import Masker
from streams.settings import Settings
from streams.snapshots import Keeper
from streams.store import Flush, Store

log = logging.getLogger(__name__)
_PACK_ROWS = 4_096
_BULK_ROWS = 2_048
_RETIRE_SHARE = 32  # dormant SKUs stay until they are one in so many


@dataclass(frozen=True)
class Geometry:
    """Which partition this is, of how many; and how large a record of the dead letters and late events may be."""

    number: int
    count: int
    letter_limit_bytes: int = DEFAULT_LIMIT_BYTES


@dataclass(frozen=True)
class Flushing:
    """A flush under way: what is written, and what makes the store see it. started_s: time.perf_counter."""

    record: Flush
    finish: Callable[[], None]
    started_s: float


class Partition:
    """State, offsets and outputs of one partition number of all inputs. One owner, one thread at a time."""

    def __init__(  # noqa: PLR0913  # what a partition is made of, nearly all by name
        self,
        geometry: Geometry,
        settings: Settings,
        *,
        store: Store,
        outbox: Outbox,
        session: Session | None,
        metrics: Metrics,
        changelog: Changelog | None = None,
        keeper: Keeper | None = None,
        money: ShopCurrency | None = None,
        masker: Masker | None = None,
    ) -> None:
        """Restore what the store holds (`StateMismatch` when it is another's), else start empty.

        changelog: None keeps state on this machine only. Its outbox may be `outbox`: then outputs and state are one
        transaction. keeper: takes snapshots after flushes. money: shared by all partitions of a worker. masker: of
        personal data in letters. None of these two: as the settings say.
        """
        self.number = geometry.number
        self.settings = settings
        self.store = store
        self.outbox = outbox
        self.metrics = metrics
        self.changelog = changelog
        self.keeper = keeper
        self.letters = Letters(
            outbox,
            settings.topic("dead-letters"),
            settings.topic("late-events"),
            geometry.letter_limit_bytes,
            masker or settings.masker,
        )
        self.ledger = Ledger(
            settings.grid,
            extra_columns=desk.columns(session),
            owns=lambda keys: partitions_of(keys, count=geometry.count) == geometry.number,
            max_ahead_ms=settings.max_ahead_ms,
            money=money or settings.money,
        )
        rules = AlarmRules(min_impact=settings.alert_min_impact)
        self.desk = desk.Desk(self.ledger, session, rules=rules)
        self.watermark = Watermark(
            allowed_lateness_ms=settings.allowed_lateness_ms, idle_timeout_ms=settings.idle_timeout_ms
        )
        self.meta = rows.fresh_meta(self.ledger, model=session.model if session else "none")
        self.flushed_offsets: dict[str, int] = {}
        self._changed = False
        self._is_torn = False
        self._closed_since_flush = False
        self._by_key: list[int] = []
        self._logged: dict[int, set[bytes]] = {}  # by open window: its keys in the changelog
        self._gone: list[bytes] = []  # of those, what has closed since the last flush
        self._retired: list[bytes] = []  # SKUs forgotten since the last flush
        self._last_flush_ms = 0
        self._restore(session)

    # ------------------------------------------------------------------ absorb
    def next_offset(self, topic: str) -> int:
        """Give the offset from which an input is to be read: behind all that is absorbed."""
        return self.meta.offsets.get(topic, 0)

    def absorb(self, source: int, batch: RecordBatch, *, now_ms: int) -> Absorbed:
        """Fold a fetched batch; what cannot be used goes to the dead letters, what is late to the late events."""
        columns, refused = DECODERS[INPUT_NAMES[source]](batch.values)
        with self._wholly():
            outcome = self.ledger.absorb(source, columns, now_ms=now_ms)
            outcome.refused.extend(refused)
            for refusal in outcome.refused:
                self.letters.bury(batch, refusal)
                self.metrics.refusals.labels(batch.topic, refusal.code).inc()
            for late in outcome.late:
                self.letters.divert(batch, late)
            self.watermark.observe(source, max_event_ms=outcome.max_event_ms)
            self.meta.offsets[batch.topic] = batch.next
            self._count(source, batch, outcome)
        self._changed = True
        if self.ledger.currency != self.meta.currency:
            self._name_currency()
        return outcome

    def _name_currency(self) -> None:
        self.meta.currency = self.ledger.currency
        if not self.ledger.money.is_set:
            log.warning(
                "partition %d: the shop's money is taken to be in %s, the currency of the first record seen; set "
                "SKUTREND_CURRENCY, since another worker may see another one first",
                self.number,
                self.ledger.currency,
            )

    @contextmanager
    def _wholly(self) -> Iterator[None]:
        """Whatever breaks off in here, such as for want of memory, leaves a state that must not be flushed any more."""
        was_torn, self._is_torn = self._is_torn, True
        yield
        self._is_torn = was_torn

    def _count(self, source: int, batch: RecordBatch, outcome: Absorbed) -> None:
        counts = self.meta.counts[INPUT_NAMES[source]]
        labels = (batch.topic, str(self.number))
        self.metrics.records.labels(*labels).inc(len(batch))
        counts.records += len(batch)
        for name, amount in (
            ("folded", outcome.folded),
            ("duplicate", outcome.duplicate),
            ("late", len(outcome.late)),
            ("rejected", len(outcome.refused)),
        ):
            setattr(counts, name, getattr(counts, name) + amount)
            self.metrics.outcomes.labels(*labels, name).inc(amount)

    # ------------------------------------------------------------------ close, forecast, judge
    def advance_watermark(self, *, now_ms: int) -> int:
        """Let event time move on; returns the watermark."""
        self.watermark.advance(now_ms=now_ms, data_end_ms=self.ledger.data_end_ms())
        return self.watermark.value_ms

    def close_due(self, *, now_ms: int) -> bool:
        """Close the oldest window if the watermark has passed it; returns whether there was one."""
        number = self.ledger.due(self.watermark.value_ms)
        if number is None:
            return False
        started = time.perf_counter()
        with self._wholly():
            for closed in self.desk.close(number, emitted_ms=now_ms):
                self._publish(closed)
            self._gone.extend(self._logged.pop(number, ()))
            self._retire(number)
            self.meta.windows_closed += 1
        self._changed = self._closed_since_flush = True
        self.metrics.close.observe(time.perf_counter() - started)
        self._report()
        return True

    def _retire(self, closed: int) -> None:
        """Forget dormant SKUs once there are enough of them to be worth moving the others together."""
        grid = self.ledger.grid
        limit_ms = grid.end_ms(closed) - self.settings.dormant_after_ms
        if limit_ms < EARLIEST_MS:
            return
        before = grid.number(limit_ms)
        count = len(self.ledger.table)
        if (self.ledger.table["last_number"][:count] < before).sum() * _RETIRE_SHARE < count:
            return
        gone = self.ledger.retire(before=before)
        if gone:
            self._retired.extend(gone)
            self._by_key = []
            log.info("partition %d: %d dormant SKUs forgotten, %d left", self.number, len(gone), len(self.ledger.table))

    def _publish(self, closed: desk.Closed) -> None:
        keys = [self.ledger.table.keys[slot] for slot in closed.slots.tolist()]
        texts = sku_texts(closed.windows.sku)
        if self.settings.silent_windows == "publish":
            self._put("windows", keys, encode_windows(closed.windows, texts))
        elif closed.eventful.any():
            at = np.flatnonzero(closed.eventful)
            self._put("windows", [keys[i] for i in at.tolist()], encode_windows(_pick(closed.windows, at)))
        if closed.forecasts is not None:
            self._put("forecasts", keys, encode_forecasts(closed.forecasts, texts))
        if closed.alerts:
            said = [(a.sku or a.group or "").encode() for a in closed.alerts]
            self._put("alerts", said, [encode_alert(a) for a in closed.alerts])

    def _put(self, topic: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self.outbox.put(self.settings.topic(topic), keys, values)
        self.metrics.published.labels(topic).inc(len(values))

    def _report(self) -> None:
        number = str(self.number)
        self.metrics.windows.labels(number).inc()
        self._report_standing()
        for source in self.desk.live.loss:
            self.metrics.loss.labels(number, source).set(self.desk.live.wql(source))

    def _report_standing(self) -> None:
        """Report what is true of a partition whether or not it ever closes another window."""
        number, first = str(self.number), self.ledger.windows.first_open
        self.metrics.skus.labels(number).set(len(self.ledger.table))
        if first is not None:
            self.metrics.watermark.labels(number).set(self.ledger.grid.start_ms(first))

    # ------------------------------------------------------------------ flush
    def flush_due(self, *, now_ms: int) -> bool:
        """Whether something changed and the flush interval is over."""
        return self._changed and now_ms - self._last_flush_ms >= self.settings.flush_interval_ms

    def flush(self, *, now_ms: int, within_s: float = 60.0) -> None:
        """Make outputs, state and offsets durable, as one step seen from a restart (`FlushFailed`, `Fenced`).

        Outputs first, where they are no part of the transaction: a crash in between repeats them with the same ids,
        and never loses one. The store comes last and may lag behind the changelog by this flush, never lead.
        within_s: how long the brokers may take to answer.
        """
        flushing = self.begin_flush()
        if flushing is not None:
            self.settle(within_s)
            self.end_flush(flushing, now_ms=now_ms)

    def begin_flush(self) -> Flushing | None:
        """Hand all that has changed to the brokers; None where nothing has. First of the three parts of `flush`.

        Until `end_flush` nothing else may touch the partition, and unless it is reached nothing ever flushes it again.
        """
        if self._is_torn:
            msg = f"partition {self.number} was left in the midst of a change: nothing since its last flush is written"
            raise FlushFailed(msg)
        if not self._changed:
            return None
        started_s, self._is_torn = time.perf_counter(), True
        record, log_ = self._flush_record(), self.changelog
        finish = self.store.stage(record, also=None if log_ is None else log_.put)
        if log_ is not None:
            log_.finish([*self._gone, *map(Flush.sku_key, record.retired)])
        return Flushing(record, finish, started_s)

    def settle(self, within_s: float) -> None:
        """Wait until the brokers have all of it: all waiting, no work, so that it can be left to a thread."""
        self.outbox.settle(within_s)
        if self.changelog is not None:
            self.changelog.outbox.settle(within_s)

    def end_flush(self, flushing: Flushing, *, now_ms: int) -> None:
        """Write to the store what the brokers have now."""
        log_ = self.changelog
        flushing.finish()
        if log_ is not None and log_.outbox.marked_offset is not None:
            self.store.set_position(log_.outbox.marked_offset + 1)
            self._remember_logged(flushing.record)
        self.flushed_offsets = dict(self.meta.offsets)
        self._changed = self._closed_since_flush = self._is_torn = False
        self._last_flush_ms = now_ms
        self.metrics.flush.observe(time.perf_counter() - flushing.started_s)
        if self.keeper is not None:
            self.keeper.offer(self.store, self.meta.sequence, now_ms=now_ms)

    def hurry(self, by_s: float) -> None:
        """Let `settle`, for which another thread waits, give up by then (time.monotonic)."""
        self.outbox.hurry(by_s)
        if self.changelog is not None:
            self.changelog.outbox.hurry(by_s)

    def _flush_record(self) -> Flush:
        ledger, meta = self.ledger, self.meta
        meta.sequence += 1
        meta.first_open = ledger.windows.first_open
        meta.watermark_ms = self.watermark.value_ms
        meta.newest_ms = [clock.max_event_ms for clock in self.watermark.clocks]
        meta.season = rows.season_state(ledger)
        meta.prior_nu, meta.currency = ledger.prior_nu, ledger.currency
        meta.expected_open = self.desk.expected_open
        ids = {}
        for source, seen in enumerate(ledger.seen):
            for number, fresh in seen.take_fresh().items():
                ids[number, source] = fresh
        live = self._live_by_key() if self._closed_since_flush else []
        if self._closed_since_flush:
            meta.skus = len(live)
        return Flush(
            meta=meta,
            skus=self._closed_rows(live),
            folded=dict(self._folded_rows()),
            ids=ids,
            retired=self._take_retired(),
            closed_before=meta.first_open,
            bulk=len(live) >= _BULK_ROWS,
        )

    def _remember_logged(self, record: Flush) -> None:
        """Note what the changelog must be told to forget once its window closes."""
        self._gone.clear()
        for number, (keys, _) in record.folded.items():
            self._logged.setdefault(number, set()).update(Flush.open_key(number, key) for key in keys)
        for number, source in record.ids:
            self._logged.setdefault(number, set()).add(record.ids_key(number, source))

    def renew(self) -> None:
        """Let the next flush write everything, as if all of it had changed."""
        self._changed = self._closed_since_flush = True
        for number, window in self.ledger.windows.by_number.items():
            self.ledger.touched[number] = [window.slots[: window.count].copy()]
        for seen in self.ledger.seen:
            seen.renew()

    def skip(self, topic: str, offset: int) -> None:
        """Go on reading an input at `offset`: what lies before it is lost."""
        self.meta.offsets[topic] = offset
        self._changed = True

    def _take_retired(self) -> list[bytes]:
        """Hand over the keys of SKUs forgotten since the last flush, but for those whose row this flush writes anew."""
        table, first = self.ledger.table, self.ledger.windows.first_open or 0
        slots = table.slots([key.decode() for key in self._retired])
        is_back = (slots >= 0) & (table["first_number"][slots] < first)
        retired = [key for key, back in zip(self._retired, is_back.tolist(), strict=True) if not back]
        self._retired = []
        return retired

    def _live_by_key(self) -> list[int]:
        """Give the slots of all SKUs that a close has moved, ascending by key."""
        table, first = self.ledger.table, self.ledger.windows.first_open
        if len(self._by_key) < len(table):
            self._by_key.extend(range(len(self._by_key), len(table)))
            self._by_key.sort(key=table.keys.__getitem__)  # nearly linear: all but the new ones are in order
        order = np.array(self._by_key, np.int32)
        live: list[int] = order[table["first_number"][order] < (first or 0)].tolist()
        return live

    def _closed_rows(self, live: list[int]) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Give the rows of these slots, part by part."""
        table = self.ledger.table
        for low in range(0, len(live), _PACK_ROWS):
            slots = live[low : low + _PACK_ROWS]
            yield [table.keys[slot] for slot in slots], rows.pack(table, np.array(slots, np.int32))

    def _folded_rows(self) -> Iterator[tuple[int, tuple[list[bytes], list[bytes]]]]:
        """Give the sums of the open windows for the SKUs touched since the last flush."""
        keys = self.ledger.table.keys
        for number, touched in self.ledger.take_touched().items():
            window = self.ledger.windows.get(number)
            slots = sorted(touched.tolist(), key=keys.__getitem__)
            packed = rows.cut(window.folded[window.row_of(np.array(slots, np.int32))])
            yield number, ([keys[slot] for slot in slots], packed)

    # ------------------------------------------------------------------ restore
    def _restore(self, session: Session | None) -> None:
        meta = self.store.meta()
        if meta is None:
            return
        rows.check(meta, self.ledger, where=str(self.store.path))
        self.ledger.currency = self.ledger.money.agree(meta.currency, where=str(self.store.path))
        self.ledger.table.reserve(self.store.estimate())
        for skus, packed in self.store.sku_rows():
            rows.unpack(self.ledger.table, skus, packed)
        rows.check_count(meta, len(self.ledger.table), where=str(self.store.path))
        first = meta.first_open
        for stored in self.store.open_rows():
            if first is None or stored.number >= first:
                self._restore_window(stored.number, stored.skus, stored.rows)
        self.ledger.windows.first_open = first
        for number, source, ids in self.store.ids():
            if first is None or number >= first:
                self.ledger.seen[source].restore(number, ids)
        for number, key in self.store.open_keys():
            if first is None or number >= first:
                self._logged.setdefault(number, set()).add(key)
        rows.restore_season(self.ledger, meta.season)
        self.ledger.prior_nu = meta.prior_nu
        self.watermark.value_ms = meta.watermark_ms
        for clock, newest_ms in zip(self.watermark.clocks, meta.newest_ms, strict=True):
            clock.max_event_ms = newest_ms
        self.desk.expected_open = meta.expected_open
        if session is not None and meta.model != session.model:
            self.desk.warm_up()
        meta.model = self.meta.model
        self.meta = meta
        self._report_standing()
        log.info("partition %d: %d SKUs restored from %s", self.number, len(self.ledger.table), self.store.path)

    def _restore_window(self, number: int, skus: list[str], packed: list[bytes]) -> None:
        table = self.ledger.table
        unknown = [sku for sku in skus if sku not in table.index]
        if unknown:
            table.add(unknown)
        slots: Slots = table.slots(skus)
        np.minimum.at(table["first_number"], slots, number)
        np.maximum.at(table["last_number"], slots, number)
        window: OpenWindow = self.ledger.windows.get(number)
        at = window.rows(slots)  # before `folded` is looked at: it may be laid out anew
        window.folded[at] = np.frombuffer(b"".join(packed), FOLDED)

    def close(self) -> None:
        """Give the store and the producer up; what was not flushed is forgotten."""
        if self.keeper is not None:
            self.keeper.close()
        self.outbox.close()
        if self.changelog is not None and self.changelog.outbox is not self.outbox:
            self.changelog.outbox.close()
        self.store.close()


def _pick(windows: WindowColumns, at: np.ndarray) -> WindowColumns:
    """Pick some SKUs of a window's columns."""
    return WindowColumns(
        sku=[windows.sku[i] for i in at.tolist()],
        window_start_ms=windows.window_start_ms,
        window_end_ms=windows.window_end_ms,
        revision=windows.revision,
        **{
            name: getattr(windows, name)[at]
            for name in (
                "order_lines",
                "units",
                "revenue",
                "returned_units",
                "free_units",
                "views",
                "carts",
                "price",
                "observed",
            )
        },
    )
