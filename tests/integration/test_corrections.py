"""Events that come days late, on Apache Kafka, while workers are killed: every window holds each of them once."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from schemas.inputs import INPUT_NAMES
from schemas.provenance import read_late_event_headers
from tests.support.group_by import measures, published
from tests.support.service import Service, new_group, read_topic, values
from tests.support.shop import HOUR_MS, PARTITIONS, TIMEZONE, disordered, end_of, month, parted, send

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

KILLS = 4
SUMS = ["order_lines", "units", "revenue", "returned_units", "free_units", "views", "carts"]


def test_windows_at_last_hold_every_late_event_once_whoever_is_killed(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    dice = random.Random(5)  # noqa: S311  # reproducible, not secret
    tables = month()
    records = disordered(tables, by_ms=48 * HOUR_MS, duplicates=0.05)
    settings = new_group(
        kafka.bootstrap,
        topic_prefix,
        partitions=PARTITIONS,
        timezone=TIMEZONE,
        idle_timeout_ms=10_000,
        allowed_lateness_ms=HOUR_MS,
        flush_interval_ms=100,
    )
    names = ["a", "b"]
    with Service(settings, tmp_path, apart=True) as service:
        for name in names:
            service.start(name, wait=False)
        service.await_ready(names)
        for part in parted(records, KILLS):
            send(kafka, topic_prefix, part)
            time.sleep(dice.uniform(0, 1.5))
            victim = dice.choice(names)
            service.kill(victim)
            service.start(victim, wait=False)
        service.await_ready(names, within_s=120)
        service.await_closed(end_of(tables), within_s=180, partitions=PARTITIONS)
        for name in names:
            service.stop(name)

    told = list(values(kafka.bootstrap, f"{topic_prefix}windows"))
    assert len({window["id"] for window in told}) == len(told), "each revision is told once"
    newest = {}
    for window in sorted(told, key=lambda each: each["revision"]):
        newest[window["sku"], window["window_start_ms"]] = window
    corrected = sum(window["revision"] > 0 for window in newest.values())
    assert corrected > 100, "a test in which hardly anything is late shows less"
    found = published(newest.values())[SUMS]
    found = found[(found != 0).any(axis=1)]
    wanted = measures(*(tables[kind] for kind in INPUT_NAMES), timezone=TIMEZONE)[SUMS]
    wanted = wanted[(wanted != 0).any(axis=1)].sort_index()
    assert found.index.equals(wanted.index), (found.index.symmetric_difference(wanted.index)[:5], corrected)
    assert ((found - wanted).abs() < 1e-6).all(axis=None)
    letters = [
        read_late_event_headers(m.headers() or []) for m in read_topic(kafka.bootstrap, f"{topic_prefix}late-events")
    ]
    assert sum(letter.corrected == 1 for letter in letters) == sum(window["revision"] for window in newest.values()), (
        "a revision is the number of late events"
    )
