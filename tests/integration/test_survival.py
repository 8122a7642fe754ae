"""Workers that are killed, starved and robbed of their disks lose nothing and say nothing twice."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from itertools import cycle, islice
from typing import TYPE_CHECKING

import pytest

from tests.support.hostile import unusable
from tests.support.service import Service, new_group
from tests.support.shop import (
    HOUR_MS,
    PARTITIONS,
    TIMEZONE,
    assert_buried,
    assert_windows,
    disordered,
    end_of,
    misplaced,
    month,
    parted,
    send,
    sprinkled,
)
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

KILLS = int(os.environ.get("SKUTREND_TEST_KILLS", "6"))


def test_random_kills_over_three_workers_leave_every_window_right_and_every_id_once(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    dice = random.Random(3)  # noqa: S311  # reproducible, not secret
    tables, hostile = month(), [*islice(cycle(unusable()), 199), misplaced()]
    records = sprinkled(disordered(tables, by_ms=2 * HOUR_MS, duplicates=0.01), hostile)
    settings = new_group(
        kafka.bootstrap,
        topic_prefix,
        partitions=PARTITIONS,
        timezone=TIMEZONE,
        idle_timeout_ms=10_000,
        allowed_lateness_ms=3 * HOUR_MS,
        flush_interval_ms=100,
    )
    end_ms = end_of(tables)
    parts = parted(records, KILLS + 1)
    names = ["a", "b", "c"]
    with Service(settings, tmp_path, apart=True) as service:
        for name in names:
            service.start(name, wait=False)
        service.await_ready(names)
        for number, part in enumerate(parts[:-1]):
            send(kafka, topic_prefix, part)
            time.sleep(dice.uniform(0, 1.5))
            victim = dice.choice(names)
            service.kill(victim)
            if number % 3 == 2:
                shutil.rmtree(service.state_dir(victim), ignore_errors=True)
            time.sleep(dice.uniform(0, 1.0))
            service.start(victim, wait=False)
        send(kafka, topic_prefix, parts[-1])
        service.await_ready(names, within_s=120)
        service.await_closed(end_ms, within_s=180, partitions=PARTITIONS)
        for name in names:
            service.stop(name)

    assert_windows(kafka, topic_prefix, tables, until_ms=end_ms)
    assert_buried(kafka, topic_prefix, hostile)


def generations(service: Service, name: str) -> list[str]:
    """Return what a worker was assigned, oldest first: `generation 2, partitions [0, 1]`."""
    return re.findall(r"generation \d+, partitions \[.*\]", service.log(name))


def test_a_static_member_restarts_without_moving_anything(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = new_group(
        kafka.bootstrap,
        topic_prefix,
        partitions=PARTITIONS,
        timezone=TIMEZONE,
        flush_interval_ms=200,
        session_timeout_ms=30_000,
    )
    records = disordered(month(), by_ms=0, duplicates=0.0)
    half = len(records) // 2
    with Service(settings, tmp_path, apart=True) as service:
        for name in ("pod-0", "pod-1"):
            service.start(name, wait=False, instance=name)
        service.await_ready(["pod-0", "pod-1"])
        service.await_records(send(kafka, topic_prefix, records[:half]))
        before = generations(service, "pod-0"), generations(service, "pod-1")
        service.stop("pod-1")
        send(kafka, topic_prefix, records[half:])
        service.start("pod-1", instance="pod-1")
        wait_for(lambda: service.total("skutrend_lag") == 0, within_s=60, told=lambda: service.log("pod-1"))
        # the one that stayed was told nothing; the one that came back was given what it had, in the same generation
        assert generations(service, "pod-0") == before[0], service.log("pod-0")
        assert generations(service, "pod-1") == [*before[1], before[1][-1]], service.log("pod-1")
        for name in ("pod-0", "pod-1"):
            service.stop(name)


def test_a_zombie_that_wakes_up_can_neither_write_nor_harm_the_new_owner(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    tables = month()
    records = disordered(tables, by_ms=0, duplicates=0.0)
    settings = new_group(
        kafka.bootstrap,
        topic_prefix,
        partitions=PARTITIONS,
        timezone=TIMEZONE,
        idle_timeout_ms=10_000,
        flush_interval_ms=200,
    )
    end_ms = end_of(tables)
    thirds = parted(records, 3)
    with Service(settings, tmp_path, apart=True) as service:
        for name in ("zombie", "heir"):
            service.start(name, wait=False)
        service.await_ready(["zombie", "heir"])
        service.await_records(send(kafka, topic_prefix, thirds[0]))
        send(kafka, topic_prefix, thirds[1])
        service.processes["zombie"].send_signal(signal.SIGSTOP)
        heir = {"heir": service.processes["heir"]}
        service.await_all_partitions(heir, PARTITIONS)
        service.processes["zombie"].send_signal(signal.SIGCONT)
        send(kafka, topic_prefix, thirds[2])
        service.await_ready(["zombie", "heir"], within_s=60)
        service.await_closed(end_ms, within_s=120, partitions=PARTITIONS)
        for name in ("zombie", "heir"):
            service.stop(name)
    assert_windows(kafka, topic_prefix, tables, until_ms=end_ms)
