"""A month of real sales on a bad day: disorder, duplicates, hostile records, a restart, a kill -9 and late events."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd
import pytest

from schemas.forecasts import SOURCES
from schemas.provenance import read_dead_letter_headers, read_late_event_headers
from tests.support.hostile import GOOD, Hostile, order, unusable
from tests.support.service import Service, new_group, read_topic, skutrend, values
from tests.support.shop import (
    HOUR_MS,
    PARTITIONS,
    TIMEZONE,
    assert_windows,
    disordered,
    end_of,
    misplaced,
    month,
    parted,
    send,
    sprinkled,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka


def test_a_bad_month_counts_every_event_once_and_buries_every_hostile_record(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    tables, hostile = month(), [*unusable(), misplaced()]
    records = sprinkled(disordered(tables, by_ms=2 * HOUR_MS, duplicates=0.02), hostile)
    settings = new_group(
        kafka.bootstrap,
        topic_prefix,
        partitions=PARTITIONS,
        timezone=TIMEZONE,
        personal="keep",
        idle_timeout_ms=5_000,
        allowed_lateness_ms=3 * HOUR_MS,
        flush_interval_ms=100,
    )
    end_ms = end_of(tables)
    thirds = parted(records, 3)

    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, thirds[0]))
        service.stop("w")
        service.start("w")
        send(kafka, topic_prefix, thirds[1])
        service.await_records(500)
        service.kill("w")  # in the midst of the second third
        send(kafka, topic_prefix, thirds[2])
        service.start("w")
        service.await_closed(end_ms)
        late = order(event_id="late", event_time_ms=int(tables["orders"].event_time_ms.iloc[0]))
        send(kafka, topic_prefix, [("orders", b"22423", late, None)])
        service.await_records(1)
        service.await_late(1)
        service.stop("w")

    verified = skutrend("state", "verify", settings={**settings, "state_dir": tmp_path / "state"}).stdout
    counted = [int(line.split(" event ids, ")[1].split(" ")[0].replace(",", "")) for line in verified.splitlines()]
    assert sum(counted) == len(records) + 1

    assert_windows(kafka, topic_prefix, tables, until_ms=end_ms)
    check_letters(kafka, topic_prefix, hostile)
    check_late(kafka, topic_prefix, late)


def check_letters(kafka: KafkaBroker, prefix: str, hostile: list[Hostile]) -> None:
    """Every hostile record lies among the dead letters as it was, with code, sentence and source; and nothing else."""
    found: dict[str, tuple[str, bytes | None, bytes | None]] = {}
    for message in read_topic(kafka.bootstrap, f"{prefix}dead-letters"):
        said = read_dead_letter_headers(message.headers() or [])
        assert said.source.startswith(f"{prefix}orders[")
        assert len(said.error) > 10, said
        found[said.source] = (said.code, message.key(), message.value())  # a kill may repeat one, from the same source
    wanted = [(bad.code, bad.key, bad.value) for bad in hostile]
    for letter in wanted:
        assert letter in found.values(), f"no dead letter {letter[0]}: {(letter[2] or b'')[:60]!r}"
    assert len(found) == len(wanted)


def check_late(kafka: KafkaBroker, prefix: str, value: bytes) -> None:
    """The late event lies among the late events as it was, with how late it is and where it came from."""
    (message,) = list(read_topic(kafka.bootstrap, f"{prefix}late-events"))
    said = read_late_event_headers(message.headers() or [])
    assert (message.key(), message.value()) == (b"22423", value)
    assert said.late_by_ms > 24 * HOUR_MS
    assert said.window_start_ms == int(pd.Timestamp("2011-03-14", tz=TIMEZONE).timestamp() * 1000)


def test_absurd_quantities_are_kept_and_leave_forecasts_finite(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    day_ms, first_ms = 24 * HOUR_MS, 1_300_060_800_000  # 2011-03-14 UTC
    lines: list[dict[str, Any]] = [
        {**GOOD, "event_id": f"e{day}", "quantity": 3.0, "event_time_ms": first_ms + day * day_ms + HOUR_MS}
        for day in range(20)
    ]
    lines.append({**GOOD, "event_id": "absurd", "quantity": 1e15, "event_time_ms": first_ms + 20 * day_ms})
    lines.append({**GOOD, "event_id": "after", "quantity": 2.0, "event_time_ms": first_ms + 21 * day_ms})
    settings = new_group(
        kafka.bootstrap,
        topic_prefix,
        partitions=1,
        idle_timeout_ms=1_000,
        bundle="shipped",
    )
    send(kafka, topic_prefix, [("orders", b"22423", msgspec.json.encode(line), None) for line in lines])
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_closed(first_ms + 22 * day_ms)
        service.stop("w")
    windows = {w["window_start_ms"]: w["units"] for w in values(kafka.bootstrap, f"{topic_prefix}windows")}
    assert windows[first_ms + 20 * day_ms] == 1e15
    forecasts = values(kafka.bootstrap, f"{topic_prefix}forecasts")
    assert len(forecasts) == len(windows) == 22
    last = max(forecasts, key=lambda f: f["window_start_ms"])
    assert {f["source"] for f in forecasts} <= set(SOURCES)
    largest = max(f["quantiles"][0][-1] for f in forecasts)
    assert largest < 1e15 / 1_000, "an absurd quantity is no forecast"
    assert all(low <= high for step in last["quantiles"] for low, high in itertools.pairwise(step))
