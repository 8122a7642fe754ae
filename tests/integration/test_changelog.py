"""A flush of very many event ids goes through Apache Kafka, and a new machine knows all of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from features.cadence import DAY_MS
from schemas.inputs import ORDERS
from streams.kafka.output_producer import OutputProducer
from streams.kafka.partition_reader import Reader
from streams.observe.metrics import Metrics
from streams.partition.partition import Geometry, Partition
from streams.settings import load
from streams.state import recovery
from streams.state.changelog import Changelog
from streams.state.store import Store
from tests.support.partitions import T0, batch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

IDS = 300_000
AT_ONCE = 20_000


def line(number: int) -> bytes:
    """An order line whose id has 73 characters."""
    fields = {"event_id": f"{number:073d}", "order_id": "o", "sku": f"S{number % 50}", "quantity": 1, "unit_price": 2}
    return json.dumps(fields | {"currency": "GBP", "event_time_ms": T0 + number % DAY_MS, "customer_id": None}).encode()


def test_300_000_ids_in_one_flush_are_records_that_a_topic_takes_and_are_known_on_a_new_machine(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    topic = f"{topic_prefix}changelog"
    kafka.make_topics([topic], partitions=1, config={"max.message.bytes": "200000"})  # a fifth of Kafka's default
    client = {"bootstrap.servers": kafka.bootstrap}

    def opened(machine: str) -> Partition:
        producer = OutputProducer(
            {**client, "batch.size": 150_000}, on_error=lambda _: None, transactional_id=f"{topic_prefix}0"
        )
        producer.init_transactions(30)
        store = Store(tmp_path / machine)
        recovery.recover(store, Reader(client, topic, 0, what="the changelog"), topic=topic, partition=0)
        return Partition(
            Geometry(0, 1),
            load(None, {}, state_dir=str(tmp_path)),
            store=store,
            producer=producer,
            session=None,
            metrics=Metrics(),
            changelog=Changelog(producer, topic, 0),
        )

    partition = opened("first")
    for low in range(0, IDS, AT_ONCE):
        values = [line(number) for number in range(low, low + AT_ONCE)]
        assert partition.absorb(ORDERS, batch("orders", values, start=low), now_ms=T0 + DAY_MS).folded == AT_ONCE
    partition.flush(now_ms=T0 + DAY_MS)
    partition.close()
    partition = opened("second")
    again = [line(number) for number in (*range(0, IDS, 100), IDS)]
    outcome = partition.absorb(ORDERS, batch("orders", again, start=IDS), now_ms=T0 + DAY_MS)
    partition.close()
    assert (outcome.duplicate, outcome.folded) == (IDS // 100, 1)
