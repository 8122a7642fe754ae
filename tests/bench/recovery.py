"""How fast a partition comes back from its changelog alone, on one core, real Kafka: the disk was lost."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from features.grid import WindowGrid
from streams.kafka.output_producer import OutputProducer
from streams.kafka.partition_reader import Reader
from streams.observe.metrics import Metrics
from streams.partition.partition import Geometry, Partition
from streams.settings import load
from streams.state import recovery
from streams.state.changelog import Changelog
from streams.state.store import Store
from tests.bench.shop import FIRST_MS, session
from tests.bench.state import batches
from tests.bench.throughput import CORE
from tests.support.kafka_broker import KafkaBroker

TOPIC = "skutrend-bench-changelog"


def main(skus: int) -> None:
    """Fill a changelog, lose the disk, recover; print both halves of the recovery."""
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(heap_mb=1024) as kafka:
        os.sched_setaffinity(kafka.pid, set(os.sched_getaffinity(0)) - {CORE} or {CORE})
        os.sched_setaffinity(0, {CORE})
        kafka.make_topics([TOPIC, "windows", "forecasts", "alerts"], partitions=1)
        client = {"bootstrap.servers": kafka.bootstrap}
        model, settings = session(), load(None, {}, state_dir=folder)

        def opened() -> tuple[Partition, recovery.RecoveryProgress, float]:
            producer = OutputProducer(client, on_error=print, transactional_id="bench")
            producer.init_transactions(30)
            store = Store(Path(folder) / "partition-0")
            started = time.perf_counter()
            progress = recovery.recover(store, Reader(client, TOPIC, 0, what="the changelog"), topic=TOPIC, partition=0)
            read_s = time.perf_counter() - started
            partition = Partition(
                Geometry(0, 1),
                settings,
                store=store,
                producer=producer,
                session=model,
                metrics=Metrics(),
                changelog=Changelog(producer, TOPIC, 0),
            )
            return partition, progress, read_s

        partition, _, _ = opened()
        for batch in batches(skus, 0):
            partition.absorb(0, batch, now_ms=1 << 61)
        partition.watermark.value_ms = partition.sku_state.grid.end_ms(WindowGrid().number(FIRST_MS))
        while partition.closer.close_due(now_ms=0):
            pass
        started = time.perf_counter()
        partition.flush(now_ms=0)
        flush_s = time.perf_counter() - started
        partition.close()
        shutil.rmtree(Path(folder) / "partition-0")

        started = time.perf_counter()
        cpu = time.process_time()
        partition, progress, read_s = opened()
        whole_s, cpu = time.perf_counter() - started, time.process_time() - cpu
        partition.close()
    print(
        f"recovery of {progress.rows:,} rows, {progress.size / progress.rows:,.0f} B each: changelog to RocksDB "
        f"{read_s:.2f} s ({progress.rows / read_s:,.0f} rows/s), all until ready {whole_s:.2f} s "
        f"({progress.rows / whole_s:,.0f} rows/s, {cpu:.2f} CPU-s); the flush that wrote them took {flush_s:.2f} s"
    )
