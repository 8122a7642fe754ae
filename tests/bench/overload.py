"""Overload on one worker and real Kafka: the most memory it held and how fast it worked a backlog off."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.support.crowds import FIRST_MS, crowd, encoded, highest_rss_mb, pour, spread
from tests.support.kafka_broker import KafkaBroker
from tests.support.service import Service, new_group

if TYPE_CHECKING:
    import pandas as pd

PARTITIONS = 4
MINUTE_MS, DAY_MS = 60_000, 86_400_000
BURST = 1_114  # order lines in the largest minute of the sample


def main(backlogs: list[int]) -> None:
    """Print a line per kind of overload; `bundle=none`, windows without events are not published."""
    print(f"{'overload':<34}{'events':>10}{'SKUs':>9}{'MB in':>8}{'RSS MB':>8}{'kB/SKU':>8}{'events/s':>10}")
    with KafkaBroker(heap_mb=1024) as kafka:
        for n, count in enumerate(backlogs):
            _row(kafka, f"b{n}-", "backlog", spread(count, skus=4_000, span_ms=28 * DAY_MS))
        _row(kafka, "hot-", "90 % on one SKU", spread(backlogs[0], skus=4_000, span_ms=28 * DAY_MS, hot=0.9))
        for minutes in (2, 6):
            at = np.arange(minutes * 10_000)
            lines = crowd(at, FIRST_MS + at * MINUTE_MS // 10_000)
            what = f"10,000 new SKUs a min, {minutes} min"
            _row(kafka, f"new{minutes}-", what, lines, window_ms=MINUTE_MS, allowed_lateness_ms=1_000)
        burst = crowd(np.arange(BURST) % 500, np.full(BURST, FIRST_MS))
        _row(kafka, "burst-", "burst in one minute", burst, window_ms=MINUTE_MS, allowed_lateness_ms=1_000)


def _row(kafka: KafkaBroker, prefix: str, what: str, lines: pd.DataFrame, **more: Any) -> None:  # noqa: ANN401  # settings
    quick = {"silent_windows": "skip", "idle_timeout_ms": 2_000}
    settings = new_group(kafka.bootstrap, prefix, partitions=PARTITIONS, **{**quick, **more})
    size = pour(kafka.bootstrap, f"{prefix}orders", encoded(lines))
    with tempfile.TemporaryDirectory() as folder, Service(settings, Path(folder)) as service:
        service.start("w")
        idle_mb, started = highest_rss_mb(service.processes["w"].pid), time.perf_counter()
        before = service.total("skutrend_records")  # it was reading before it said that it is ready
        service.await_records(len(lines), within_s=600)
        took_s = time.perf_counter() - started
        time.sleep(4)  # idle inputs let the last windows close
        highest_mb = highest_rss_mb(service.processes["w"].pid)
        service.stop("w")
    skus = lines.sku.nunique()
    per_sku_kb = (highest_mb - idle_mb) * 1024 / skus
    print(
        f"{what:<34}{len(lines):>10,}{skus:>9,}{size / 1e6:>8,.0f}{highest_mb:>8,.0f}{per_sku_kb:>8,.1f}"
        f"{(len(lines) - before) / took_s:>10,.0f}",
        flush=True,
    )
