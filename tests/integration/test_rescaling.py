"""Workers come and go under load: windows stay right, and only what moves is restored."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.support.service import Service, new_group
from tests.support.shop import (
    HOUR_MS,
    TIMEZONE,
    assert_buried,
    assert_windows,
    daily,
    disordered,
    end_of,
    merged,
    month,
    pulses,
    send,
)
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

PARTITIONS = 8
TOLD = re.compile(r"partition (\d+): [\d,]+ SKUs restored|generation \d+, partitions (\[.*\])")


def held(log: str) -> list[tuple[list[int], list[int]]]:
    """Read a worker's log: for each assignment what was restored for it, and what was held after it."""
    found: list[tuple[list[int], list[int]]] = []
    restored: list[int] = []
    for opened, now in TOLD.findall(log):
        if opened:
            restored.append(int(opened))
        else:
            found.append((sorted(restored), msgspec.json.decode(now, type=list[int])))
            restored = []
    return found


def assert_only_moved_partitions_were_restored(assignments: list[tuple[list[int], list[int]]]) -> None:
    """What moved here was restored, and nothing that was here.

    A partition may have moved on before its restore was over; where it comes back within ten seconds, the log does not
    repeat the same sentence.
    """
    before: set[int] = set()
    ever: set[int] = set()
    for restored, now in assignments:
        said = f"had {before}, has {now}, restored {restored}"
        assert not before & set(restored), said
        ever |= set(restored)
        assert set(now) - before <= ever, said
        before = set(now)


def test_three_workers_take_over_from_one_and_two_from_three_while_records_come(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = new_group(
        kafka.bootstrap,
        topic_prefix,
        partitions=PARTITIONS,
        timezone=TIMEZONE,
        allowed_lateness_ms=3 * HOUR_MS,
        flush_interval_ms=100,
    )
    sample, at_once = month(), Event()
    end_ms = end_of(sample)
    tables = merged(merged(sample, pulses(PARTITIONS, daily(sample))), pulses(PARTITIONS, [end_ms + 6 * HOUR_MS]))
    records = disordered(tables, by_ms=2 * HOUR_MS, duplicates=0.01)
    first = 4_000  # every partition has state before anything moves

    def shares() -> list[int]:
        """How many partitions each worker holds, when all of them are held and open."""
        said = [service.get(name, "/readyz") for name in service.processes]
        numbers = [re.findall(r"\d+", text) for status, text in said if status == 200]
        everywhere = sorted(int(number) for each in numbers for number in each)
        return sorted(map(len, numbers)) if everywhere == list(range(PARTITIONS)) else []

    def logs() -> list[str]:
        return [service.log(name) for name in service.processes]

    def await_shares(wanted: list[int]) -> None:
        wait_for(lambda: shares() == wanted, within_s=40, told=logs)

    with Service(settings, tmp_path, apart=True) as service, ThreadPoolExecutor(1) as pool:
        service.start("a")
        service.await_records(send(kafka, topic_prefix, records[:first]))
        sending = pool.submit(send, kafka, topic_prefix, records[first:], over_s=40, at_once=at_once)
        for name in "bc":
            service.start(name, wait=False)
        await_shares([2, 3, 3])
        assert not sending.done(), "nothing was sent while workers came"
        service.stop("b")
        await_shares([4, 4])
        assert not sending.done(), "nothing was sent while a worker left"
        at_once.set()
        sending.result()
        service.await_closed(end_ms, partitions=PARTITIONS)
        for name in "ac":
            service.stop(name)
    assert_windows(kafka, topic_prefix, tables, until_ms=end_ms)
    assert_buried(kafka, topic_prefix, [])
    (_, whole), *later = held(service.log("a"))
    assert whole == list(range(PARTITIONS))
    assert_only_moved_partitions_were_restored([(whole, whole), *later])  # at first there was nothing to restore
    for name in "bc":
        assert_only_moved_partitions_were_restored(held(service.log(name)))
    assert sum(len(restored) for restored, _ in later) < PARTITIONS, "the one that stayed lost all it had"
