"""A shop's month as Kafka gets to see it: real sales in disorder, some twice, hostile records among them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
from confluent_kafka import Producer

from schemas.inputs import INPUT_NAMES
from streams.config.personal import Masker
from streams.events.files import sample_paths
from streams.kafka.murmur2 import partitions_of
from tests.support.group_by import assert_equal, local_day_ms, measures, published, whole_grid
from tests.support.hostile import GOOD, Hostile, order
from tests.support.service import published_once, read_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from threading import Event

    from confluent_kafka import Message

    from tests.support.kafka_broker import KafkaBroker

TIMEZONE = "Europe/London"
PARTITIONS = 4
HOUR_MS = 3_600_000
Record = tuple[str, bytes | None, bytes | None, int | None]  # topic, key, value, partition (None: by the key)
Tables = dict[str, pd.DataFrame]


def month() -> Tables:
    """Four weeks around the day of 23 hours, 27 March 2011."""
    first, last = (int(pd.Timestamp(day, tz=TIMEZONE).timestamp() * 1000) for day in ("2011-03-14", "2011-04-11"))
    tables = {kind: pd.read_parquet(sample_paths()[kind]) for kind in INPUT_NAMES}
    return {kind: table[table.event_time_ms.between(first, last - 1)] for kind, table in tables.items()}


def end_of(tables: Tables) -> int:
    """Return the end of the shop-local day of the last order."""
    (start_ms,) = local_day_ms(tables["orders"].event_time_ms.agg(["max"]), TIMEZONE)
    (end_ms,) = local_day_ms(pd.Series([start_ms + 36 * HOUR_MS]), TIMEZONE)
    return int(end_ms)


def merged(left: Tables, right: Tables) -> Tables:
    """Put the events of both together."""
    return {kind: pd.concat([left[kind], right[kind]], ignore_index=True) for kind in INPUT_NAMES}


def daily(tables: Tables) -> range:
    """Give a moment of each day of these events."""
    return range(int(tables["orders"].event_time_ms.min()), end_of(tables) - 24 * HOUR_MS, 24 * HOUR_MS)


def pulses(partitions: int, times_ms: Iterable[int]) -> Tables:
    """One event of each kind in each partition at each of these times: event time moves on, with no idle timeout."""
    names = [f"PULSE{number}" for number in range(40 * partitions)]
    where = partitions_of([name.encode() for name in names], count=partitions).tolist()
    tables: dict[str, list[dict[str, Any]]] = {kind: [] for kind in INPUT_NAMES}
    for at_ms in times_ms:
        for sku in [names[where.index(number)] for number in range(partitions)]:
            event = {"event_id": f"pulse-{sku}-{at_ms}", "sku": sku, "event_time_ms": at_ms}
            tables["orders"].append({**GOOD, **event})
            tables["clicks"].append({"session_id": "pulse", "kind": "view", **event})
            tables["price-changes"].append({"price": 2.5, "currency": "GBP", "kind": "list", **event})
    return {kind: pd.DataFrame(rows) for kind, rows in tables.items()}


def disordered(tables: Tables, *, by_ms: int, duplicates: float, seed: int = 11) -> list[Record]:
    """All events in the order in which a bad network delivers them, some orders twice; seeded."""
    dice = np.random.default_rng(seed)
    rows: list[tuple[float, Record]] = []
    for kind, table in tables.items():
        for event in table.to_dict("records"):
            value = msgspec.json.encode({k: None if pd.isna(v) else v for k, v in event.items()})
            record = (kind, str(event["sku"]).encode(), value, None)
            at = float(event["event_time_ms"])
            rows += [
                (at + dice.uniform(0, by_ms), record)
                for _ in range(1 + int(kind == "orders" and dice.random() < duplicates))
            ]
    rows.sort(key=lambda row: row[0])
    return [record for _, record in rows]


def misplaced(partitions: int = PARTITIONS) -> Hostile:
    """Return a sound order on a partition where its SKU does not belong."""
    elsewhere = (int(partitions_of([b"22423"], count=partitions)[0]) + 1) % partitions
    return Hostile("wrong_partition", order(event_id="misplaced"), b"22423", elsewhere)


def sprinkled(records: list[Record], hostile: Sequence[Hostile]) -> list[Record]:
    """Spread hostile records evenly among the others."""
    step = len(records) // len(hostile)
    mixed = list(records)
    for i, bad in enumerate(hostile):
        mixed.insert(i * (step + 1), ("orders", bad.key, bad.value, bad.partition))
    return mixed


def send(
    kafka: KafkaBroker, prefix: str, records: Sequence[Record], *, over_s: float = 0.0, at_once: Event | None = None
) -> int:
    """Write records, evenly over some seconds, and wait until Kafka has each of them once; returns how many.

    at_once: set it, and the rest goes out at once.
    """
    failed: list[str] = []
    producer = Producer({
        "bootstrap.servers": kafka.bootstrap,
        "partitioner": "murmur2_random",
        "message.max.bytes": 2_000_000,
        "enable.idempotence": True,
        "socket.timeout.ms": 4_000,  # where a broker hangs, its partitions must not fall silent for a minute
        "log_level": 0,  # that brokers come and go is no news here
    })  # fmt: skip
    started_s = time.monotonic()
    for count, (topic, key, value, partition) in enumerate(records):
        where = {} if partition is None else {"partition": partition}
        producer.produce(
            prefix + topic, value, key, **where, on_delivery=lambda e, _: failed.append(str(e)) if e else None
        )
        wait_s = 0.0 if at_once and at_once.is_set() else started_s + over_s * count / len(records) - time.monotonic()
        producer.poll(max(0.0, wait_s))
    assert producer.flush(60) == 0
    assert not failed
    return len(records)


def parted(records: Sequence[Record], count: int) -> list[Sequence[Record]]:
    """Cut records into so many parts of about one size."""
    return [records[i * len(records) // count : (i + 1) * len(records) // count] for i in range(count)]


def assert_windows(kafka: KafkaBroker, prefix: str, tables: Tables, *, until_ms: int) -> None:
    """Every window of every SKU is published once and says what a group-by says."""
    expected = measures(*(tables[kind] for kind in INPUT_NAMES), timezone=TIMEZONE)
    windows = published_once(kafka.bootstrap, prefix)
    assert_equal(published(windows), whole_grid(expected, until_ms=until_ms, timezone=TIMEZONE))


def _source(letter: Message) -> bytes | None:
    return dict(letter.headers() or ()).get("source")


def assert_buried(kafka: KafkaBroker, prefix: str, hostile: Sequence[Hostile], *, may_repeat: bool = False) -> None:
    """Every hostile record lies among the dead letters once (or, where it may, again), and no event came late."""
    found = [(m.key(), m.value(), _source(m)) for m in read_topic(kafka.bootstrap, f"{prefix}dead-letters")]
    letters = [(key, value) for key, value, _ in (set(found) if may_repeat else found)]
    kept = [Masker().mask(bad.key, bad.value, []) for bad in hostile]  # none of them is readable and tells of a person
    assert all(each.value in (bad.value, None) for each, bad in zip(kept, hostile, strict=True))
    wanted = [(each.key, each.value) for each in kept]
    short = [(key, (value or b"")[:60]) for key, value in letters]
    assert sorted(letters, key=repr) == sorted(wanted, key=repr), f"{len(letters)} of {len(wanted)} letters: {short}"
    late = [m.value() for m in read_topic(kafka.bootstrap, f"{prefix}late-events")]
    assert not late, f"{len(late)} events came late, e.g. {late[0]!r}"
