"""Partitions over real RocksDB and the embedded broker, and the records to feed them with."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Message, Producer

from features.admission import Absorbed
from schemas.inputs import CLICKS, INPUT_NAMES, ORDERS, PRICES
from streams.kafka.batch import RecordBatch
from streams.kafka.output_producer import OutputProducer
from streams.observe.metrics import Metrics
from streams.partition.partition import Geometry, Partition
from streams.settings import Settings
from streams.state.store import Store
from tests.support import service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.session import Session

T0 = 1_700_000_000_000 // 86_400_000 * 86_400_000  # a midnight, UTC
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
NOW_MS = T0 + 100 * HOUR_MS


def settings_for(bootstrap: str, state: Path, **changes: Any) -> Settings:  # noqa: ANN401 - any setting
    """Windows of an hour, ten minutes of lateness, topics that no other test uses."""
    values: dict[str, Any] = {
        "brokers": bootstrap,
        "state_dir": str(state),
        "topic_prefix": f"t{uuid.uuid4().hex[:10]}-",
        "window_ms": HOUR_MS,
        "allowed_lateness_ms": 10 * MINUTE_MS,
        "bundle": "none",
        "guarantee": "at_least_once",
        "changelog": "off",  # the embedded broker forgets too much to recover from
        "provider": "cpu",
        "kafka": {"linger.ms": "0", "log_level": "0"},
    }
    return Settings(**(values | changes))


def order(event_id: str, sku: str, at_ms: int, **changes: Any) -> bytes:  # noqa: ANN401 - any field
    fields = {
        "event_id": event_id,
        "order_id": "o1",
        "sku": sku,
        "quantity": 1,
        "unit_price": 2.0,
        "currency": "GBP",
        "event_time_ms": at_ms,
        "customer_id": None,
    }
    return json.dumps(fields | changes).encode()


def click(event_id: str, sku: str, at_ms: int, kind: str = "view") -> bytes:
    fields = {"event_id": event_id, "session_id": "s1", "sku": sku, "kind": kind, "event_time_ms": at_ms}
    return json.dumps(fields).encode()


def price_change(event_id: str, sku: str, at_ms: int, price: float) -> bytes:
    fields = {
        "event_id": event_id,
        "sku": sku,
        "price": price,
        "previous_price": None,
        "currency": "GBP",
        "kind": "list",
        "event_time_ms": at_ms,
    }
    return json.dumps(fields).encode()


def batch(topic: str, values: Sequence[bytes | None], *, start: int = 0, partition: int = 0) -> RecordBatch:
    """Consecutive records, keyed with a number each."""
    end = start + len(values)
    return RecordBatch(
        topic,
        partition,
        start,
        end,
        offsets=list(range(start, end)),
        keys=[f"key{offset}".encode() for offset in range(start, end)],
        values=list(values),
    )


def open_partition(
    settings: Settings,
    *,
    session: Session | None = None,
    number: int = 0,
    count: int = 1,
    metrics: Metrics | None = None,
) -> Partition:
    """Open it as a worker would; `count=1` owns every SKU."""
    store = Store(settings.partition_dir(number))
    producer = OutputProducer(settings.client, on_error=lambda _: None)
    try:
        return Partition(
            Geometry(number, count),
            settings,
            store=store,
            producer=producer,
            session=session,
            metrics=metrics or Metrics(),
        )
    except BaseException:
        producer.close()
        store.close()
        raise


def close_all(partition: Partition, *, now_ms: int) -> None:
    """Close every window the watermark has passed."""
    partition.closer.advance_watermark(now_ms=now_ms, monotonic_ms=now_ms)
    while partition.closer.close_due(now_ms=now_ms):
        pass


def inputs(partition: Partition) -> list[str]:
    return [partition.settings.topic(name) for name in INPUT_NAMES]


def take(partition: Partition, source: int, *values: bytes | None, now_ms: int = NOW_MS) -> Absorbed:
    """Absorb the next records of an input; returns what became of them."""
    topic = inputs(partition)[source]
    return partition.absorb(source, batch(topic, values, start=partition.next_offset(topic)), now_ms=now_ms)


def reach(partition: Partition, at_ms: int, *, now_ms: int = NOW_MS) -> None:
    """Let every input speak of a moment, and close what is then due."""
    take(partition, ORDERS, order(f"reach{at_ms}", "clock", at_ms), now_ms=now_ms)
    take(partition, CLICKS, click(f"reach{at_ms}", "clock", at_ms), now_ms=now_ms)
    take(partition, PRICES, price_change(f"reach{at_ms}", "clock", at_ms, 1.0), now_ms=now_ms)
    close_all(partition, now_ms=now_ms)


def read_topic(bootstrap: str, topic: str) -> list[Message]:
    """All records of a topic of the embedded broker, partition by partition."""
    # the embedded broker makes a topic that nobody wrote to now, when a producer asks
    Producer({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(topic, timeout=10)
    return sorted(service.read_topic(bootstrap, topic), key=Message.partition)


def published(settings: Settings, topic: str) -> list[dict[str, Any]]:
    """All messages of an output topic, decoded."""
    return [json.loads(message.value()) for message in read_topic(settings.brokers, settings.topic(topic))]


def last_of_each_id(messages: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {message["id"]: message for message in messages}


def windows_of(partition: Partition, sku: str) -> list[dict[str, Any]]:
    """All windows of a SKU that have been published, after a flush."""
    partition.flush(now_ms=NOW_MS)
    return [w for w in published(partition.settings, "windows") if w["sku"] == sku]
