"""More than a worker can take at once, on Apache Kafka: it takes its time and its memory stays where it was."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from confluent_kafka import KafkaException, Producer

from tests.support.crowds import FIRST_MS, NO_CLICKS, NO_PRICES, crowd, encoded, highest_rss_mb, pour, spread
from tests.support.group_by import assert_equal, measures, published
from tests.support.service import Service, new_group, published_once, values
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

PARTITIONS = 4
MINUTE_MS, DAY_MS = 60_000, 86_400_000
GROWTH_MB = 150


def settings_of(kafka: KafkaBroker, prefix: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # settings
    quick = {"silent_windows": "skip", "idle_timeout_ms": 2_000, "flush_interval_ms": 100}
    return new_group(kafka.bootstrap, prefix, partitions=PARTITIONS, **{**quick, **more})


def assert_windows(kafka: KafkaBroker, prefix: str, lines: pd.DataFrame, *, window_ms: int) -> None:
    """Every window with an event is published once and says what a group-by of the lines says."""
    expected = measures(lines, NO_CLICKS, NO_PRICES, timezone="UTC", window_ms=window_ms)
    assert_equal(published(published_once(kafka.bootstrap, prefix)), expected)


def digest(kafka: KafkaBroker, prefix: str, folder: Path, lines: pd.DataFrame) -> float:
    """Let a new worker work off a backlog of days; returns the most memory it held, in MB."""
    settings = settings_of(kafka, prefix)
    pour(kafka.bootstrap, f"{prefix}orders", encoded(lines))
    folder.mkdir()
    with Service(settings, folder) as service:
        service.start("w")
        service.await_records(len(lines))
        service.await_closed(int(lines.event_time_ms.max()) // DAY_MS * DAY_MS + DAY_MS, partitions=PARTITIONS)
        highest = highest_rss_mb(service.processes["w"].pid)
        service.stop("w")
    assert_windows(kafka, prefix, lines, window_ms=DAY_MS)
    return highest


def test_memory_does_not_grow_with_the_backlog(kafka: KafkaBroker, topic_prefix: str, tmp_path: Path) -> None:
    small, large = (
        digest(kafka, f"{topic_prefix}{n}-", tmp_path / str(n), spread(n, skus=400, span_ms=4 * DAY_MS))
        for n in (20_000, 300_000)
    )
    assert large <= small + GROWTH_MB, f"{large:.0f} MB for 15 times the backlog that took {small:.0f} MB"


def test_a_hot_sku_is_counted_exactly_duplicates_and_all(kafka: KafkaBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = settings_of(kafka, topic_prefix)
    lines = spread(60_000, skus=200, span_ms=3 * DAY_MS, hot=0.9)
    hot = lines[lines.sku == "S0000000"]
    assert len(hot) > 0.85 * len(lines)
    again = hot.iloc[::10]  # each of these twice, the second time 50 lines later
    at = np.concatenate([np.arange(len(lines)), again.index.to_numpy() + 50.5])
    sent = pd.concat([lines, again]).iloc[np.argsort(at, kind="stable")]
    pour(kafka.bootstrap, f"{topic_prefix}orders", encoded(sent))
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(len(sent))
        service.await_closed(FIRST_MS + 3 * DAY_MS, partitions=PARTITIONS)
        assert service.total("skutrend_outcomes", outcome="duplicate") == len(again)
        assert service.total("skutrend_outcomes", outcome="folded") == len(lines)
        service.stop("w")
    assert_windows(kafka, topic_prefix, lines, window_ms=DAY_MS)


def test_ten_thousand_new_skus_a_minute_are_all_published_from_then_on(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    minutes, new = 3, 10_000
    settings = settings_of(
        kafka, topic_prefix, window_ms=MINUTE_MS, allowed_lateness_ms=1_000, silent_windows="publish"
    )
    lines = crowd(np.arange(minutes * new), FIRST_MS + np.arange(minutes * new) * MINUTE_MS // new)
    pour(kafka.bootstrap, f"{topic_prefix}orders", encoded(lines))
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_closed(FIRST_MS + minutes * MINUTE_MS, partitions=PARTITIONS)
        assert service.get("w", "/livez")[0] == 200
        service.stop("w")
    windows = values(kafka.bootstrap, f"{topic_prefix}windows")
    assert len(windows) == len({window["id"] for window in windows})
    starts = pd.Series([window["window_start_ms"] for window in windows]).value_counts().to_dict()
    assert starts == {FIRST_MS + m * MINUTE_MS: (m + 1) * new for m in range(minutes)}
    expected = measures(lines, NO_CLICKS, NO_PRICES, timezone="UTC", window_ms=MINUTE_MS)
    assert_equal(published(w for w in windows if w["order_lines"]), expected)


def test_a_burst_of_the_largest_minute_is_folded_once(kafka: KafkaBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = settings_of(kafka, topic_prefix, window_ms=MINUTE_MS, allowed_lateness_ms=2 * MINUTE_MS)
    quiet, burst = 60, 1_114  # the sample's largest minute
    at_ms = np.concatenate([np.arange(quiet) * MINUTE_MS // 20, np.full(burst, 3 * MINUTE_MS)])
    lines = crowd(np.arange(quiet + burst) % 500, FIRST_MS + at_ms)
    dice = np.random.default_rng(3)
    sent = pd.concat([lines, lines.iloc[::9]])
    jitter_ms = dice.uniform(0, MINUTE_MS, len(sent))
    sent = sent.iloc[np.argsort(sent.event_time_ms.to_numpy() + jitter_ms)]
    pour(kafka.bootstrap, f"{topic_prefix}orders", encoded(sent))
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_closed(FIRST_MS + 4 * MINUTE_MS, partitions=PARTITIONS)
        assert service.total("skutrend_outcomes", outcome="folded") == len(lines)
        assert service.total("skutrend_outcomes", outcome="duplicate") == len(sent) - len(lines)
        service.stop("w")
    assert_windows(kafka, topic_prefix, lines, window_ms=MINUTE_MS)


class Rogue:
    """Claims a partition's transactional id over and over, as a worker would that has lost its mind."""

    def __init__(self, bootstrap: str, transactional_id: str) -> None:
        self._config = {"bootstrap.servers": bootstrap, "transactional.id": transactional_id, "log_level": 0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._claim)
        self.claims = 0

    def _claim(self) -> None:
        while not self._over.wait(0.3):
            try:
                Producer(self._config).init_transactions(10)
                self.claims += 1
            except KafkaException:
                continue  # the worker was quicker

    def __enter__(self) -> Rogue:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def days() -> list[pd.DataFrame]:
    """Six days of lines on every partition, a frame a day."""
    lines = spread(6_000, skus=200, span_ms=6 * DAY_MS)
    return [day for _, day in lines.groupby(lines.event_time_ms // DAY_MS)]


def test_a_stalled_partition_stalls_no_other_and_catches_up(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path, days: list[pd.DataFrame]
) -> None:
    settings = settings_of(kafka, topic_prefix)
    with Service(settings, tmp_path) as service:

        def closed() -> set[str]:
            """Partitions that have closed their fifth day; one that is given up tells nothing."""
            marks = service.metrics("skutrend_watermark_timestamp_seconds")
            return {dict(key)["partition"] for key, at in marks.items() if 1000 * at >= FIRST_MS + 5 * DAY_MS}

        service.start("w")
        pour(kafka.bootstrap, f"{topic_prefix}orders", encoded(pd.concat(days[:2])))
        service.await_closed(FIRST_MS + DAY_MS, partitions=PARTITIONS)
        with Rogue(kafka.bootstrap, f"{topic_prefix}{settings['group']}-0") as rogue:
            wait_for(lambda: rogue.claims, within_s=20)
            pour(kafka.bootstrap, f"{topic_prefix}orders", encoded(pd.concat(days[2:])))
            wait_for(lambda: closed() >= {"1", "2", "3"}, within_s=20, told=lambda: (closed(), service.log("w")))
            wait_for(
                lambda: service.total("skutrend_reopened", partition="0") > 0,
                within_s=20,
                told=lambda: service.log("w"),
            )
            assert "0" not in closed()
        service.await_closed(FIRST_MS + 6 * DAY_MS, partitions=PARTITIONS)
        service.stop("w")
    assert_windows(kafka, topic_prefix, pd.concat(days), window_ms=DAY_MS)
