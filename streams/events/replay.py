"""Publish event files to the input topics in event-time order, as fast as Kafka takes them or at a given pace.

Up to three files are merged as they are read, in memory of a few batches per file. At equal event times price changes
come first, then clicks, then orders, and the rows of one file keep their order. Records are keyed by SKU, partitioned
by murmur2 of the key, and stamped with the time of sending: `event_time_ms` in the value tells when it happened,
whereas a record stamped years ago would fall to the topic's time retention at once.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import confluent_kafka as kafka
import msgspec
import numpy as np
import pyarrow as pa
from msgspec import UNSET, UnsetType

from schemas.errors import BadSetting, BrokerTrouble
from schemas.inputs import BY_NAME, INPUTS, InputName
from streams.events.files import Survey, Times, event_times, read_in_order, survey
from streams.kafka import clients

log = logging.getLogger(__name__)

Gate = Callable[[int], None]  # asked with an event time in ms before the events from then on are sent; it may block

DAY_MS = 86_400_000
SLICE_ROWS = 8_192
_RANKS = tuple(each.name for each in sorted(INPUTS, key=lambda each: each.rank))  # who goes first at equal event times
_PACED_SLICE_S = 0.1  # at a pace of N event seconds per second, events leave in slices of so many real seconds
_BROKER_TIMEOUT_S = 10.0
_POLL_S = 0.1
_LAST_FLUSH_S = 5.0

_DEFAULTS: Mapping[str, Any] = {
    "enable.idempotence": True,  # a retried batch is neither doubled nor overtaken by its successor
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 200_000,
    "message.timeout.ms": 60_000,
}
_FIXED: Mapping[str, Any] = {"partitioner": "murmur2_random", "delivery.report.only.error": True}


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a replay is: events handed to Kafka of the `total`, and the event time of the last one."""

    sent: int
    total: int
    event_time_ms: int


def encode_rows(kind: InputName, batch: pa.RecordBatch) -> tuple[list[bytes], list[bytes], Times]:
    """Encode a batch of `files.read`: keys (the SKU in UTF-8), values (JSON), event times (int64, ms)."""
    columns: list[list[Any]] = [batch.column(column.name).to_pylist() for column in BY_NAME[kind].fields]
    return *encode_columns(kind, columns), event_times(batch)


def encode_columns(kind: InputName, columns: list[list[Any]]) -> tuple[list[bytes], list[bytes]]:
    """Encode events, a list per field of the input in its order: keys (the SKU in UTF-8) and values (JSON)."""
    for number, column in enumerate(BY_NAME[kind].fields):
        if column.optional:
            columns[number] = [UNSET if value is None else value for value in columns[number]]
    rows = list(map(_ROWS[kind], *columns))
    # JSON escapes every newline within a value, so those left in the text are the ones between the rows
    values = _ENCODER.encode_lines(rows).split(b"\n")[:-1]
    keys = [sku.encode() for sku in columns[_SKU[kind]]]
    return keys, values


class Replay:
    """One run of up to three event files into the input topics.

    config: librdkafka settings (`bootstrap.servers`, security); the partitioner is not theirs to choose.
    files: by kind; a file that is not in event-time order is sorted in memory, and `notes` says so.
    speed: "max", or N event seconds per second.
    from_row: the first event to send, counted from 1 over all files in the order in which they are sent.
    slice_ms: no slice of events, the unit of gates and progress, crosses a multiple of it in event time.
    Raises `BadInput` for a file that cannot be used, `BadSetting` for a speed or a Kafka setting that cannot be.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        files: Mapping[InputName, Path],
        prefix: str = "",
        *,
        speed: Literal["max"] | float = "max",
        slice_ms: int = DAY_MS,
        from_row: int = 1,
    ) -> None:
        """Survey the files, one pass over each: nothing is sent of a bad one. Kafka is not touched before `run`."""
        if speed != "max" and not 0 < speed < math.inf:
            msg = f"speed is {speed}, expected max or a number above 0 (event seconds per second)"
            raise BadSetting(msg)
        self._config = {**_DEFAULTS, **config, **_FIXED}
        self._files = {kind: Path(files[kind]) for kind in _RANKS if kind in files}
        self._topics = {kind: prefix + kind for kind in self._files}
        self._speed = speed
        self._slice_ms = slice_ms if speed == "max" else max(1, min(slice_ms, int(speed * 1000 * _PACED_SLICE_S)))
        self._skipped = from_row - 1
        self._refused: list[str] = []
        self._first_lost: int | None = None  # how many events lie before the slice of the first that was not written
        self._trouble = ""
        self.surveys: dict[InputName, Survey] = {kind: survey(path, kind) for kind, path in self._files.items()}
        self.total = sum(found.rows for found in self.surveys.values())
        self.notes = tuple(
            f"{self._files[kind]} is not in event-time order: its {found.rows:,} rows are sorted in memory"
            for kind, found in self.surveys.items()
            if not found.in_order
        )

    @property
    def span_ms(self) -> tuple[int, int] | None:
        """First and last event time over all files, both inclusive; None if they hold no rows."""
        firsts = [found.first_ms for found in self.surveys.values() if found.first_ms is not None]
        lasts = [found.last_ms for found in self.surveys.values() if found.last_ms is not None]
        return (min(firsts), max(lasts)) if firsts else None

    def run(
        self, *, gate: Gate | None = None, on_progress: Callable[[ReplayProgress], None] | None = None
    ) -> dict[str, int]:
        """Send everything, wait until Kafka has it, and return the number of records per topic.

        gate: called before each slice with the time of its first event; while it blocks nothing is sent.
        on_progress: called after each slice. Raises `BrokerTrouble`; what was acknowledged by then stays in the topics,
        and the error says from which row to go on.
        """
        for note in self.notes:
            log.warning(note)
        producer = self._connect()
        gates = [gate] if gate else []
        if self._speed != "max":
            gates.append(paced(self._speed, wait=producer.poll))
        counts = dict.fromkeys(self._topics.values(), 0)
        sent = self._skipped
        try:
            for events in self._slices():
                for ask in gates:
                    ask(int(events.times[0]))
                self._send(producer, events, before=sent)
                sent += len(events)
                for rank, rows in enumerate(np.bincount(events.ranks, minlength=len(_RANKS)).tolist()):
                    if rows:
                        counts[self._topics[_RANKS[rank]]] += rows
                if on_progress:
                    on_progress(ReplayProgress(sent, self.total, int(events.times[-1])))
            while producer.flush(_POLL_S):
                self._check()
            self._check()
        except (kafka.KafkaException, SystemError) as error:  # of an idempotent producer any call may meet its end
            cause = error.args[0].str() if isinstance(error, kafka.KafkaException) else "a fatal error"
            msg = f"Kafka took no more records: {cause}{self._trouble}{self._go_on(producer, sent)}"
            raise BrokerTrouble(msg) from error
        except BrokerTrouble as error:
            msg = f"{error}{self._go_on(producer, sent)}"
            raise BrokerTrouble(msg) from error
        except BaseException:
            producer.purge()  # else librdkafka would go on sending what we have given up
            raise
        return counts

    def _go_on(self, producer: kafka.Producer, sent: int) -> str:
        """Give up what is still queued after a moment, and say from which row to go on: all before it is in Kafka."""
        with suppress(kafka.KafkaException, SystemError):
            producer.flush(_LAST_FLUSH_S)
            producer.purge()
            producer.flush(_POLL_S)  # reports what was given up
        first = sent if self._first_lost is None else min(sent, self._first_lost)
        return f"; {first:,} of {self.total:,} events are in Kafka: go on with --from-row {first + 1}" if first else ""

    def _slices(self) -> Iterator[Events]:
        batches = {kind: read_in_order(path, kind, self.surveys[kind]) for kind, path in self._files.items()}
        skip = self._skipped
        for events in merge(batches):
            if skip < len(events):
                yield from events.after(skip).slices(slice_ms=self._slice_ms, max_rows=SLICE_ROWS)
            skip = max(0, skip - len(events))

    def _send(self, producer: kafka.Producer, events: Events, *, before: int) -> None:
        report = partial(self._on_delivery, before)
        topics = [self._topics.get(kind, "") for kind in _RANKS]
        for rank, key, value in zip(events.ranks.tolist(), events.keys, events.values, strict=True):
            while True:
                try:
                    producer.produce(topics[rank], value, key, -1, report)
                    break
                except BufferError:  # the queue is full: let Kafka take some
                    producer.poll(_POLL_S)
                    self._check()
        producer.poll(0)
        self._check()

    def _on_delivery(self, before: int, error: kafka.KafkaError | None, message: kafka.Message) -> None:
        if error is not None:
            self._first_lost = before if self._first_lost is None else min(before, self._first_lost)
            self._refused.append(f"{message.topic()}[{message.partition()}]: {error.str()}")

    def _on_error(self, error: kafka.KafkaError) -> None:
        self._trouble = f" ({error.str()})"

    def _check(self) -> None:
        if self._refused:
            first, count = self._refused[0], len(self._refused)
            msg = f"Kafka did not take {count} records, the first of them for {first}{self._trouble}"
            raise BrokerTrouble(msg)

    def _connect(self) -> kafka.Producer:
        """Make the producer and see that every topic is there, without Kafka making it by itself."""
        servers = self._config.get("bootstrap.servers", "(no bootstrap.servers given)")
        with clients.setting_named(self._config, kafka.Producer):
            producer = kafka.Producer({**self._config, "logger": log, "error_cb": self._on_error})
        try:
            known = producer.list_topics(timeout=_BROKER_TIMEOUT_S).topics
        except kafka.KafkaException as error:
            why = error.args[0].str() + self._trouble
            msg = f"no answer from Kafka at {servers} within {_BROKER_TIMEOUT_S:.0f} s: {why}"
            raise BrokerTrouble(msg) from error
        missing = [topic for topic in self._topics.values() if topic not in known]
        if missing:
            msg = f"Kafka at {servers} has no topic {', '.join(missing)}: run `skutrend topics create` first"
            raise BrokerTrouble(msg)
        return producer


def paced(factor: float, *, wait: Callable[[float], object], now_s: Callable[[], float] = time.monotonic) -> Gate:
    """Make a gate that lets event time pass at `factor` event seconds per real second, from its first call on.

    wait: sleeps at most so many seconds, and may return earlier.
    """
    start: list[tuple[int, float]] = []

    def gate(event_time_ms: int) -> None:
        if not start:
            start.append((event_time_ms, now_s()))
        first_ms, since_s = start[0]
        due_s = since_s + (event_time_ms - first_ms) / 1000 / factor
        while (left_s := due_s - now_s()) > 0:
            wait(min(left_s, _POLL_S))

    return gate


@dataclass(frozen=True, slots=True)
class Events:
    """Encoded events in event-time order. ranks: int64 (n,), the position of each one's kind in the order of ties."""

    times: Times
    ranks: Times
    keys: Sequence[bytes]
    values: Sequence[bytes]

    def __len__(self) -> int:
        """Count the events."""
        return len(self.keys)

    def after(self, rows: int) -> Events:
        """Give all but the first so many."""
        return Events(self.times[rows:], self.ranks[rows:], self.keys[rows:], self.values[rows:])

    def slices(self, *, slice_ms: int, max_rows: int) -> Iterator[Events]:
        """Cut where event time crosses a multiple of `slice_ms`, and after `max_rows` rows."""
        turns = np.flatnonzero(np.diff(self.times // slice_ms)) + 1
        edges = [0, *turns.tolist(), len(self)]
        for start, stop in itertools.pairwise(edges):
            for low in range(start, stop, max_rows):
                part = slice(low, min(low + max_rows, stop))
                yield Events(self.times[part], self.ranks[part], self.keys[part], self.values[part])


@dataclass(slots=True)
class _Feed:
    """One file on its way into the merge: its encoded rows that are not merged yet, and whether more may come."""

    kind: InputName
    batches: Iterator[pa.RecordBatch]
    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    times: Times = field(default_factory=lambda: np.empty(0, np.int64))
    done: bool = False

    def load(self) -> None:
        batch = next(self.batches, None)
        if batch is None:
            self.done = True
            return
        keys, values, times = encode_rows(self.kind, batch)
        self.keys += keys
        self.values += values
        self.times = np.concatenate([self.times, times])

    def take(self, rows: int) -> Events:
        taken = Events(self.times[:rows], np.full(rows, _RANKS.index(self.kind)), self.keys[:rows], self.values[:rows])
        self.times = self.times[rows:]
        del self.keys[:rows], self.values[:rows]
        return taken


def merge(batches: Mapping[InputName, Iterator[pa.RecordBatch]]) -> Iterator[Events]:
    """Encode and merge batches that are in event-time order within each kind; ties as the head of this module says.

    What lies before the last loaded event time of every unfinished feed is complete, since nothing earlier can come.
    """
    feeds = [_Feed(kind, batches[kind]) for kind in _RANKS if kind in batches]
    while True:
        for feed in feeds:
            if not feed.done and not len(feed.times):
                feed.load()
        waiting = [feed for feed in feeds if len(feed.times)]
        if not waiting:
            return
        unfinished = [feed for feed in waiting if not feed.done]
        if unfinished:
            complete_ms = min(int(feed.times[-1]) for feed in unfinished)
            rows = [int(np.searchsorted(feed.times, complete_ms)) for feed in waiting]
        else:
            rows = [len(feed.times) for feed in waiting]
        if any(rows):
            yield _interleave([feed.take(n) for feed, n in zip(waiting, rows, strict=True) if n])
        else:  # one stamp fills all that is loaded of some feed: its end must be seen first
            for feed in unfinished:
                if feed.times[-1] == complete_ms:
                    feed.load()


def _interleave(parts: list[Events]) -> Events:
    """Sort by time what comes ordered by rank; the sort is stable, so rank decides ties."""
    if len(parts) == 1:
        return parts[0]
    times = np.concatenate([part.times for part in parts])
    order = np.argsort(times, kind="stable")
    keys = list(itertools.chain.from_iterable(part.keys for part in parts))
    values = list(itertools.chain.from_iterable(part.values for part in parts))
    places = order.tolist()
    ranks = np.concatenate([part.ranks for part in parts])[order]
    return Events(times[order], ranks, [keys[place] for place in places], [values[place] for place in places])


def _row_type(kind: InputName) -> type[msgspec.Struct]:
    types: dict[str, Any] = {"string": str, "double": float, "int64": int}
    fields: list[Any] = []
    for column in BY_NAME[kind].fields:
        plain = types[column.type]
        if column.optional:
            fields.append((column.name, plain | UnsetType, UNSET))
        else:
            fields.append((column.name, plain | None if column.nullable else plain))
    return msgspec.defstruct(f"{kind} row", fields, gc=False)


_ENCODER = msgspec.json.Encoder()
_ROWS = {kind: _row_type(kind) for kind in _RANKS}
_SKU = {kind: [column.name for column in BY_NAME[kind].fields].index("sku") for kind in _RANKS}
