"""The `seed` command: history behind a live start, so that forecasts are right from the first day on."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
from rich.console import Console

from features import dates
from features.grid import plausible
from features.offline import windows_between
from schemas.columns import ClickColumns, take
from schemas.errors import BadInput, StateMismatch
from schemas.inputs import INPUT_NAMES
from streams.commands.serve import prepare
from streams.events import tables as event_tables
from streams.intake.convert import MAX_ERRORS
from streams.kafka.murmur2 import partitions_of
from streams.observe.progress import track_progress
from streams.seeding import live_start
from streams.seeding.cut import Spans, cut_at, gaps
from streams.seeding.fold import Tally, fold
from streams.worker.clocks import monotonic_ms, now_ms
from streams.worker.closing import FLUSH_S
from streams.worker.environment import Environment
from streams.worker.opening import Opener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from features.admission import Columns
    from features.grid import WindowGrid
    from schemas.inputs import InputName
    from streams.partition.partition import Partition
    from streams.seeding.cut import Cut
    from streams.seeding.live_start import LiveStart
    from streams.settings import Settings


def seed(settings: Settings, files: Mapping[InputName, Path], *, until: datetime | None) -> None:
    """Write the state that workers of this group would have, had they read these files, and where they go on.

    until: shop-local start of the first window that is not taken from the files; None: found out. Raises `Broken`:
    where workers are running, or a partition has state that is not of this seed.
    """
    began_ms = now_ms()
    settings, session, count, limit_bytes = prepare(settings)
    grid = settings.grid
    live_start.check_idle(settings.client, settings.group_id)
    events = event_tables.load_with_progress(files)
    starts = [_live_start(settings, source, count) for source in range(len(INPUT_NAMES))]
    _check_currencies(settings, events)
    spans = _spans(events, starts, began_ms)
    cut = cut_at(grid, spans, None if until is None else _local_ms(grid, until))
    from_ms = grid.start_ms(cut.first_open) - settings.max_ahead_ms
    offsets = [live_start.offsets_at(settings.client, start, from_ms) for start in starts]
    environment = Environment(settings, session, count, tp=lambda *at: at, letter_limit_bytes=limit_bytes)
    seeding = Seeding(environment, {source: events[source] for source in spans.history}, cut, offsets, began_ms)
    seeding.run()
    passed = sum(sum(at) - sum(start.lows) for at, start in zip(offsets, starts, strict=True))
    for line in (*seeding.lines(passed), *environment.money.told(), *gaps(grid, spans, cut)):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


def _live_start(settings: Settings, source: int, count: int) -> LiveStart:
    topic = settings.topic(INPUT_NAMES[source])
    return live_start.look(settings.client, topic, source, partitions=count, max_ahead_ms=settings.max_ahead_ms)


def _check_currencies(settings: Settings, events: Mapping[int, Columns]) -> None:
    """Refuse files of which too much has no rate, before anything is written; the rest is counted and told."""
    money = settings.money
    for source, columns in events.items():
        if isinstance(columns, ClickColumns):
            continue
        rows, name = len(columns.currency), INPUT_NAMES[source]
        worth = money.worth(columns.currency, np.ones(rows, np.bool_))
        lacking = 0 if worth is None else int(np.isnan(worth).sum())
        if lacking > MAX_ERRORS * rows:
            msg = (
                f"{lacking:,} of {rows:,} {name} have money in currencies for which there is no rate: set "
                "SKUTREND_CURRENCY and SKUTREND_RATES, or take them out; nothing was written"
            )
            raise BadInput(msg)


def _spans(events: Mapping[int, Columns], starts: Sequence[LiveStart], began_ms: int) -> Spans:
    history = {}
    for source, columns in events.items():
        times_ms = columns.event_time_ms
        times_ms = times_ms[plausible(times_ms) & (times_ms <= began_ms)]
        if len(times_ms):
            history[source] = int(times_ms.min()), int(times_ms.max())
    if not history:
        msg = "the files hold no event of the past: there is nothing to seed"
        raise BadInput(msg)
    live = {source: start.first_ms for source, start in enumerate(starts) if start.first_ms is not None}
    return Spans(history, live, began_ms)


def _local_ms(grid: WindowGrid, moment: datetime) -> int:
    """Give a shop-local moment; a date alone is where the shop's day starts."""
    if moment.time() == moment.time().min:
        return grid.date_start_ms(moment.date())
    return int(moment.replace(tzinfo=ZoneInfo(grid.timezone)).timestamp() * 1000)


class Seeding:
    """Writes the state of all partitions, one after the other; each is there whole or not at all.

    events: {input: columns} of all partitions. offsets: by input and partition, where workers go on. began_ms: now.
    """

    def __init__(
        self,
        environment: Environment,
        events: Mapping[int, Columns],
        cut: Cut,
        offsets: Sequence[Sequence[int]],
        began_ms: int,
    ) -> None:
        """Write nothing yet."""
        self._environment, self._settings, self._grid = environment, environment.settings, environment.settings.grid
        self._events, self._cut, self._offsets, self._began_ms = events, cut, offsets, began_ms
        self._opener = Opener(environment)
        self._tally = Tally()
        self._skus = self._seeded = 0

    def run(self) -> None:
        """Seed each partition that has not been by an earlier run which did not come to its end."""
        parts = self._by_partition()
        start_ms = self._grid.start_ms(self._cut.first_open)
        windows = sum(windows_between(self._grid, events, until_ms=start_ms) for events in parts)
        with track_progress("closing windows", windows) as progress:
            for number, events in enumerate(parts):
                partition = self._opener.open(number)
                try:
                    if not self._is_seeded(partition):
                        self._seed(partition, events, closed=progress)
                finally:
                    partition.close()

    def _by_partition(self) -> list[dict[int, Columns]]:
        count = self._environment.partition_count
        homes = {
            source: partitions_of([sku.encode() for sku in columns.sku], count=count)
            for source, columns in self._events.items()
        }
        return [
            {source: take(columns, np.flatnonzero(homes[source] == number)) for source, columns in self._events.items()}
            for number in range(count)
        ]

    def _is_seeded(self, partition: Partition) -> bool:
        """Whether an earlier run has seeded a partition up to the same window; any other state is a `StateMismatch`."""
        meta, start_ms = partition.meta, self._grid.start_ms(self._cut.first_open)
        if meta.sequence == 0:
            return False
        where = f"partition {partition.number} of group {self._settings.group_id}"
        anew = "seed a group that is new (SKUTREND_GROUP), and start the workers with that"
        if read := sum(counts.records for counts in meta.counts.values()):
            msg = f"{where} has read {read:,} live records already, and history goes before the first of them: {anew}"
            raise StateMismatch(msg)
        if meta.watermark_ms != start_ms:
            before, now = (dates.stamp(ms, self._grid.timezone) for ms in (meta.watermark_ms, start_ms))
            msg = f"{where} was seeded up to {before} by an earlier run, this one would end at {now}: {anew}"
            raise StateMismatch(msg)
        return True

    def _seed(self, partition: Partition, events: Mapping[int, Columns], *, closed: Callable[[int], object]) -> None:
        tally = fold(partition, events, self._cut, now_ms=self._began_ms, closed=closed)
        for name, offsets in zip(INPUT_NAMES, self._offsets, strict=True):
            partition.skip(self._settings.topic(name), offsets[partition.number])
        partition.check_topics(self._opener.topic_ids(fresh=False))
        partition.flush(now_ms=monotonic_ms(), within_s=FLUSH_S)
        self._tally.add(tally)
        self._skus += len(partition.sku_state.table)
        self._seeded += 1

    def lines(self, passed: int) -> Iterator[str]:
        """Say what was done. passed: how many records of the live topics lie before where workers go on."""
        count, tally = self._environment.partition_count, self._tally
        start = dates.stamp(self._grid.start_ms(self._cut.first_open), self._grid.timezone)
        yield (
            f"{self._seeded} of {count} partitions of group {self._settings.group_id} seeded: {self._skus:,} SKUs, "
            f"{tally.folded:,} events; windows are closed up to {start}"
        )
        if self._seeded < count:
            before = count - self._seeded
            yield f"{before} partitions had been seeded by an earlier run, and nothing of these files went there"
        if tally.left:
            yield f"{tally.left:,} events of the files are not taken: they are of later, or of the future"
        if tally.duplicate:
            yield f"{tally.duplicate:,} events were duplicates"
        for code, refused in sorted(tally.refused.items()):
            yield f"{refused:,} events were refused, {code}: {tally.sentences[code]}"
        if passed:
            yield f"{passed:,} records of the live topics lie before that and are passed over"
        yield "next: `skutrend worker`, with the same settings"
