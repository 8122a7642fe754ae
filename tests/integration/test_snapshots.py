"""A new machine starts from a snapshot and reads only what the changelog has since, on Apache Kafka."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.test_trouble import DAY_MS, FIRST_MS, expected, lines, told
from tests.support.service import Service
from tests.support.shop import send

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def settings(settings: dict[str, Any], kept: Path) -> dict[str, Any]:
    return {**settings, "snapshot_dir": str(kept), "snapshot_interval_ms": 1_000}


def test_a_new_machine_reads_only_the_tail_and_every_window_is_right(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], kept: Path, tmp_path: Path
) -> None:
    def send_day(day: int) -> None:
        service.await_records((day + 1 - first) * send(kafka, topic_prefix, lines(range(day, day + 1))))

    def anew(**more: object) -> float:
        """Start on an empty disk; returns how many rows of the changelog were read."""
        service.kill("w")
        shutil.rmtree(service.state_dir("w"))
        service.start("w", **more)
        return service.total("skutrend_recovered_rows")

    with Service(settings, tmp_path) as service:
        service.start("w")
        day = first = 0
        while len({path.parent.parent.name for path in kept.rglob("*.manifest")}) < 2:  # of both partitions
            assert day < 30, service.log("w")
            send_day(day)
            day += 1
            time.sleep(0.5)
        with_snapshot = anew(snapshot_interval_ms=3_600_000)
        assert service.log("w").count(" fetched, ") == 2, service.log("w")
        first = day
        for day in range(first, first + 3):
            send_day(day)
        assert with_snapshot < anew(snapshot_dir="")

        for table in kept.rglob("*.sst"):
            table.write_bytes(table.read_bytes()[:-1])
        assert anew() > 0
        assert service.log("w").count("is restored without a snapshot") == 2, service.log("w")
        service.await_closed(FIRST_MS + (day + 1) * DAY_MS, partitions=2)
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(day + 1))
