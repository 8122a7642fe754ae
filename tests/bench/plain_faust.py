"""The peer: the same windowed job as a plain Faust agent with a table in RocksDB, written as Faust's manual would.

Per SKU and day: order lines, units, revenue, returned and free units. A window is emitted when the first event of a
later one arrives for its SKU (a Faust windowed table would close by the wall clock and lose windows). No duplicates,
no late events, no silent windows, no watermark over inputs: less than the service does.

    python -m tests.bench.plain_faust BROKERS PREFIX FOLDER worker -l warn
"""

from __future__ import annotations

import sys
from typing import Any

import faust

DAY_MS = 86_400_000


class Order(faust.Record, serializer="json"):
    """An order line, as far as the job needs it."""

    event_id: str
    order_id: str
    sku: str
    quantity: float
    unit_price: float
    currency: str
    event_time_ms: int
    customer_id: str | None = None


def build(brokers: str, prefix: str, folder: str) -> faust.App:
    """Build the app."""
    app = faust.App(
        f"{prefix}plain",
        broker=f"kafka://{brokers}",
        datadir=folder,
        store="rocksdb://",
        topic_partitions=4,
        topic_replication_factor=1,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        table_standby_replicas=0,
        topic_disable_leader=True,
    )
    orders = app.topic(f"{prefix}orders", value_type=Order)
    windows = app.topic(f"{prefix}windows", value_serializer="json", key_serializer="raw")
    table = app.Table(f"{prefix}sums", default=list, partitions=4)

    @app.agent(orders)  # type: ignore[untyped-decorator]  # Faust has no types
    async def fold(stream: Any) -> None:  # noqa: ANN401  # Faust's
        async for event in stream.events():
            order: Order = event.value
            start_ms = order.event_time_ms // DAY_MS * DAY_MS
            sums = table[order.sku]
            if not sums or sums[0] != start_ms:
                if sums:
                    await emit(order.sku, sums)
                sums = [start_ms, 0, 0.0, 0.0, 0.0, 0.0]
            if order.quantity < 0:
                sums[4] -= order.quantity
            elif order.unit_price == 0:
                sums[5] += order.quantity
            else:
                sums[1] += 1
                sums[2] += order.quantity
                sums[3] += order.quantity * order.unit_price
            table[order.sku] = sums

    async def emit(sku: str, sums: list[Any]) -> None:
        start_ms, lines, units, revenue, returned, free = sums
        value = {
            "id": f"{sku}/{start_ms}/0",
            "sku": sku,
            "window_start_ms": start_ms,
            "window_end_ms": start_ms + DAY_MS,
            "order_lines": lines,
            "units": units,
            "revenue": revenue,
            "returned_units": returned,
            "free_units": free,
        }
        await windows.send(key=sku.encode(), value=value)

    return app


if __name__ == "__main__":
    brokers, prefix, folder = sys.argv[1:4]
    sys.argv[1:4] = []
    build(brokers, prefix, folder).main()
