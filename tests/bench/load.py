"""Order lines for the benchmarks: the shipped sample's, repeated until there are enough of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.parquet as pq

from streams.events.files import sample_paths
from tests.support.crowds import pour

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
    return pour(bootstrap, topic, orders(count), compression="none") / count
