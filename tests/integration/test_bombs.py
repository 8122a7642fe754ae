"""Record batches that decompress to far more than they were sent as, on Apache Kafka."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.provenance import read_dead_letter_headers
from tests.integration.test_trouble import DAY_MS, FIRST_MS, expected, lines, told
from tests.support.bombs import bomb, publish
from tests.support.kafka_broker import configure
from tests.support.service import Service, read_topic
from tests.support.shop import send
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

MIB = 1 << 20


def rss_mb(pid: int) -> float:
    """Memory of a process at its highest since `forget_peak`, MB."""
    (kb,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kb) / 1000


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.mark.parametrize(("codec", "mib"), [("gzip", 900), ("zstd", 900), ("lz4", 200), ("snappy", 200)], ids=str)
def test_a_bomb_is_passed_over_told_once_and_what_follows_is_folded(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path, codec: str, mib: int
) -> None:
    orders = f"{topic_prefix}orders"
    # lz4 and snappy compress 255 and 21 to 1 at most
    configure(kafka.bootstrap, orders, {"max.message.bytes": str(64 * MIB)})
    raw = bomb(codec, mib * MIB)
    with Service(settings, tmp_path) as service:
        service.start("w")
        pid = service.processes["w"].pid
        service.await_records(send(kafka, topic_prefix, lines(range(2))))
        generations = len(re.findall("generation [0-9]+, partitions", service.log("w")))
        forget_peak(pid)
        before_mb = rss_mb(pid)
        offset = publish(kafka.bootstrap, orders, 0, raw)
        began_s = time.monotonic()
        send(kafka, topic_prefix, lines(range(2, 5)))
        wait_for(lambda: service.total("skutrend_refusals", code="too_large") == 1, within_s=30)
        wait_for(lambda: service.total("skutrend_lag") == 0, within_s=30)
        took_s, rise_mb = time.monotonic() - began_s, rss_mb(pid) - before_mb
        service.await_closed(FIRST_MS + 5 * DAY_MS, partitions=2)
        assert service.total("skutrend_records") == service.total("skutrend_outcomes") == 5 * 40 + 1
        assert service.total("skutrend_outcomes", outcome="rejected") == 1
        assert len(re.findall("generation [0-9]+, partitions", service.log("w"))) == generations, "no rebalance"
        service.stop("w")
        service.start("w")
        assert service.total("skutrend_refusals") == 0, "it is not read again"
        service.stop("w")
    print(f"{codec} {mib} MiB in {len(raw):,} bytes: lag 0 after {took_s:.1f} s, memory +{rise_mb:.0f} MB")
    assert rise_mb < 150
    assert took_s < 10
    assert told(kafka, topic_prefix) == expected(range(5))
    (letter,) = read_topic(kafka.bootstrap, f"{topic_prefix}dead-letters")
    said = read_dead_letter_headers(letter.headers() or [])
    assert (said.code, said.source) == ("too_large", f"{orders}[0]@{offset}")
    assert said.error.startswith(f"{orders}[0]@{offset} to @{offset}: 1 record was not read, since ")
