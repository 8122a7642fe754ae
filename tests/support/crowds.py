"""Order lines in numbers: one generator for the overload tests and for `python -m tests.bench overload`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pandas as pd
from confluent_kafka import Producer

from tests.support.hostile import GOOD

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIRST_MS = 1_300_060_800_000  # 2011-03-14
NO_CLICKS = pd.DataFrame({"sku": [], "event_time_ms": [], "kind": []})
NO_PRICES = pd.DataFrame({"sku": [], "event_time_ms": []})


def crowd(sku: np.ndarray, event_time_ms: np.ndarray) -> pd.DataFrame:
    """One order line for each SKU number and time, every quantity and id its own."""
    at = np.arange(len(sku))
    return pd.DataFrame(
        {
            "event_id": [f"e{i}" for i in at.tolist()],
            "sku": [f"S{number:07d}" for number in sku.tolist()],
            "quantity": 1.0 + at % 7,
            "unit_price": 2.5,
            "event_time_ms": event_time_ms,
        }
    )


def spread(count: int, *, skus: int, span_ms: int, hot: float = 0.0) -> pd.DataFrame:
    """Lines evenly over a time span; a share `hot` of them on the first SKU, the rest on all in turn."""
    at = np.arange(count)
    sku = np.where(np.random.default_rng(7).random(count) < hot, 0, at % skus)
    return crowd(sku, FIRST_MS + at * span_ms // count)


def encoded(lines: pd.DataFrame) -> Iterator[tuple[bytes, bytes]]:
    """Give (key, value) of every line."""
    encode = msgspec.json.Encoder().encode
    for row in zip(*(lines[name].tolist() for name in lines), strict=True):
        line = dict(zip(lines.columns, row, strict=True))
        yield line["sku"].encode(), encode({**GOOD, **line})


def pour(bootstrap: str, topic: str, records: Iterable[tuple[bytes, bytes]], *, compression: str = "lz4") -> int:
    """Write (key, value) pairs until Kafka has them all; returns the bytes of the values."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": compression,  # as order buses do
            "linger.ms": 50,
            "batch.size": 1 << 20,
        }
    )
    size = 0
    for key, value in records:
        size += len(value)
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    assert producer.flush(120) == 0
    return size


def highest_rss_mb(pid: int) -> float:
    """The most memory a process has held so far, in MB, as the kernel counted it."""
    (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
