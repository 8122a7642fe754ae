"""Records of every kind a topic can hold, written to a broker."""

from __future__ import annotations

from collections import Counter
from typing import Any

from confluent_kafka import Producer

from tests.support.counting_worker import TOPICS

CODECS = ("none", "gzip", "lz4", "zstd", "snappy")


def produce_all_kinds(broker: str, prefix: str, *, each: int) -> Counter[str]:
    """Write `each` records per topic and codec; returns how many rows, null keys, tombstones and headers that were."""
    written: Counter[str] = Counter()
    for codec in CODECS:
        producer = Producer(
            {"bootstrap.servers": broker, "compression.type": codec, "partitioner": "murmur2_random", "log_level": 2}
        )
        for topic in TOPICS:
            for number in range(each):
                record: dict[str, Any] = {"key": f"sku{number % 97}", "value": f"{codec} {number} ".encode() * 8}
                if number % 11 == 0:
                    record["value"] = None
                    written["tombstones"] += 1
                if number % 13 == 0:
                    del record["key"]
                    written["no_key"] += 1
                if number % 17 == 0:
                    record["headers"] = [("trace", b"1"), ("empty", None)]
                    written["with_headers"] += 1
                producer.produce(prefix + topic, **record)
                written["rows"] += 1
        assert producer.flush(30) == 0
    return written
