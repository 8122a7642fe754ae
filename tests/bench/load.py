"""Order lines for the benchmarks: the shipped sample's, repeated until there are enough of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.parquet as pq
from confluent_kafka import Producer

from streams.files import sample_paths

if TYPE_CHECKING:
    from collections.abc import Iterator

YEAR_MS = 364 * 86_400_000  # whole weeks, so that a weekday stays one
TOLD_EVERY = 500_000


def orders(count: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of `count` order lines in event-time order: copies of the sample, a year apart."""
    rows = pq.read_table(sample_paths()["orders"]).to_pylist()
    rows = [row for row in rows if row["event_time_ms"] < rows[0]["event_time_ms"] + YEAR_MS]
    shift = (
        count // len(rows) + 1
    )  # the last copy ends at the sample's own end, so that no event lies ahead of the clock
    encode = msgspec.json.Encoder().encode
    made = 0
    while True:
        shift -= 1
        for row in rows:
            if made == count:
                return
            line: dict[str, Any] = {
                **row,
                "event_id": f"{shift}-{row['event_id']}",
                "event_time_ms": row["event_time_ms"] - shift * YEAR_MS,
            }
            yield row["sku"].encode(), encode(line)
            made += 1


def fill(bootstrap: str, topic: str, count: int) -> float:
    """Write so many order lines to a topic; returns the mean size of a value in bytes."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 50, "batch.size": 1 << 20}
    )
    size = 0
    for key, value in orders(count):
        size += len(value)
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    deadline = time.monotonic() + 120
    while producer.flush(1) and time.monotonic() < deadline:
        pass
    return size / count
