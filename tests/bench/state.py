"""What state costs: resident memory and RocksDB per SKU, at several sizes of one worker's one partition.

Each size runs in a process of its own: 8 days of orders, the shipped model, every window closed and flushed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from features.cadence import DAY_MS
from features.grid import WindowGrid
from streams.kafka.batch import RecordBatch
from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.output_producer import OutputProducer
from streams.observe.metrics import Metrics
from streams.partition.partition import Geometry, Partition
from streams.settings import load
from streams.state.rows import SKU_ROW, model_row
from streams.state.store import Store
from tests.bench.shop import FIRST_MS, LINES_A_DAY, session
from tests.support.kafka_broker import ROOT

DAYS = 8
BATCH_ROWS = 20_000


class Measured(msgspec.Struct):
    """One size. Bytes but for `skus`, `row_bytes` of one SKU, and seconds."""

    skus: int
    row_bytes: int
    before_bytes: int
    after_bytes: int
    highest_bytes: int
    store_bytes: int
    close_s: float
    flush_s: float
    restore_s: float


def memory_bytes(what: str) -> int:
    """Read one line of /proc/self/status: VmRSS or VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return 0


def batches(skus: int, day: int) -> list[RecordBatch]:
    """Orders of one day as they would be fetched: every SKU on day 0, then a share of them."""
    step = 1 if day == 0 else round(1 / LINES_A_DAY)
    found = []
    numbers = range(day % step, skus, step)
    for low in range(0, len(numbers), BATCH_ROWS):
        part = numbers[low : low + BATCH_ROWS]
        values: list[bytes | None] = [
            b'{"event_id":"%d-%d","order_id":"o","sku":"SKU-%07d","quantity":%d,"unit_price":2.5,"currency":"GBP",'
            b'"event_time_ms":%d}' % (day, i, i, 1 + i % 5, FIRST_MS + day * DAY_MS + i % DAY_MS)
            for i in part
        ]
        n = len(values)
        found.append(
            RecordBatch("orders", 0, low, low + n, offsets=list(range(low, low + n)), keys=[None] * n, values=values)
        )
    return found


def one(skus: int, folder: Path) -> Measured:
    """Fill one partition, close, flush, and open it again."""
    model = session()
    settings = load(None, {}, state_dir=str(folder), bundle="shipped")
    with EmbeddedBroker() as broker:
        broker.make(["windows", "forecasts", "alerts"])
        client = {"bootstrap.servers": broker.bootstrap}

        def opened() -> Partition:
            producer = OutputProducer(client, on_error=lambda _: None)
            store = Store(folder / "partition-0")
            return Partition(
                Geometry(0, 1),
                settings,
                store=store,
                producer=producer,
                session=model,
                metrics=Metrics(),
            )

        partition = opened()
        partition.producer.put = lambda *_: None  # type: ignore[method-assign]  # the broker keeps all in memory
        before = memory_bytes("VmRSS")
        close_s = flush_s = 0.0
        for day in range(DAYS):
            for batch in batches(skus, day):
                partition.absorb(0, batch, now_ms=1 << 61)
            partition.watermark.value_ms = partition.sku_state.grid.end_ms(WindowGrid().number(FIRST_MS + day * DAY_MS))
            started = time.perf_counter()
            while partition.closer.close_due(now_ms=0):
                pass
            close_s = time.perf_counter() - started
            started = time.perf_counter()
            partition.flush(now_ms=0)
            flush_s = time.perf_counter() - started
        after = memory_bytes("VmRSS")
        partition.store.compact()
        size = partition.store.size_bytes()
        partition.close()
        started = time.perf_counter()
        again = opened()
        restore_s = time.perf_counter() - started
        if len(again.sku_state.table) != skus:
            sys.exit(f"{len(again.sku_state.table)} SKUs came back of {skus}")
        again.close()
    row = SKU_ROW.dtype.itemsize + model_row(model).dtype.itemsize
    return Measured(skus, row, before, after, memory_bytes("VmHWM"), size, close_s, flush_s, restore_s)


def main(sizes: list[int]) -> None:
    """Print a line for each size."""
    for skus in sizes:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(  # noqa: S603  # our own program
                [sys.executable, "-m", "tests.bench.state", str(skus), folder],
                cwd=ROOT,
                check=True,
                stdout=subprocess.PIPE,
            )
        m = msgspec.json.decode(done.stdout, type=Measured)
        print(
            f"{m.skus:>9,} SKUs: row {m.row_bytes} B; RSS {m.before_bytes / 1e6:.0f} -> {m.after_bytes / 1e6:,.0f} MB "
            f"({(m.after_bytes - m.before_bytes) / m.skus:,.0f} B a SKU; highest {m.highest_bytes / 1e6:,.0f} MB); "
            f"RocksDB {m.store_bytes / 1e6:,.0f} MB ({m.store_bytes / m.skus:,.0f} B a SKU); one close with outputs "
            f"{m.close_s:.2f} s, flush {m.flush_s:.2f} s, restore {m.restore_s:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(one(int(sys.argv[1]), Path(sys.argv[2]))))
