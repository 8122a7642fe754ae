"""What a worker must refuse, or wait for, on Apache Kafka: each ends as the table in deploy/RUNBOOK.md says."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from streams.kafka.murmur2 import partitions_of
from tests.integration.test_bad_days import send
from tests.integration.test_trouble import DAY_MS, FIRST_MS, expected, fails, lines, told
from tests.support.kafka_broker import KafkaBroker
from tests.support.service import Service, read_topic, skutrend
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kafka

Record = tuple[str, bytes | None, bytes | None, int | None]


def send_by_crc32(kafka: KafkaBroker, prefix: str, records: list[Record]) -> None:
    """Write records as a producer does that was left with librdkafka's own partitioner."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for topic, key, value, _ in records:
        producer.produce(prefix + topic, value, key)
        producer.poll(0)
    assert producer.flush(60) == 0


def misplaced(kafka: KafkaBroker, topic: str) -> list[bytes]:
    """Values of the records that do not lie where murmur2 of their key would have them, ascending."""
    messages = list(read_topic(kafka.bootstrap, topic))
    right = partitions_of([message.key() or b"" for message in messages], count=2).tolist()
    return sorted(m.value() or b"" for m, number in zip(messages, right, strict=True) if m.partition() != number)


def letters(kafka: KafkaBroker, prefix: str) -> list[bytes]:
    """Values of all dead letters, ascending."""
    return sorted(message.value() or b"" for message in read_topic(kafka.bootstrap, f"{prefix}dead-letters"))


def test_a_producer_with_the_wrong_partitioner_stops_the_worker_and_its_records_can_be_sent_again(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    before, after = lines(range(2), skus=400), lines(range(2, 6), skus=400)
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, before))
        service.stop("w")
    send_by_crc32(kafka, topic_prefix, after)

    sentence = fails(settings, tmp_path)
    found = re.search(r"([\d,]+) of the latest ([\d,]+) records of topic \S+orders ", sentence)
    assert found, sentence
    wrong, seen = (int(number.replace(",", "")) for number in found.groups())
    assert seen >= 1_000
    assert 0.25 * seen < wrong < 0.75 * seen  # half of the keys of two partitions are right by chance
    assert "partitioner=murmur2_random" in sentence

    out = tmp_path / "letters.jsonl"
    held_open = {"idle_timeout_ms": 3_600_000}  # or all but the letters would close their windows
    with Service({**settings, "misplaced_share": 1, **held_open}, tmp_path) as service:
        service.start("w")
        wanted = misplaced(kafka, f"{topic_prefix}orders")
        wait_for(lambda: len(letters(kafka, topic_prefix)) >= len(wanted), within_s=60)
        assert letters(kafka, topic_prefix) == wanted
        skutrend("dead-letters", "list", "--out", str(out), settings=settings)
        skutrend("dead-letters", "replay", str(out), settings=settings)
        service.stop("w")
        service.start("w", **settings)
        service.await_closed(FIRST_MS + 6 * DAY_MS, partitions=2)
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(6), skus=400)


def test_a_new_group_reads_rightly_partitioned_topics_after_the_mend(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    records = lines(range(6), skus=400)
    send_by_crc32(kafka, topic_prefix, records)
    assert "partitioner=murmur2_random" in fails(settings, tmp_path)
    again = {**settings, "topic_prefix": f"{topic_prefix}again-", "group": f"{topic_prefix}again"}
    skutrend("topics", "create", "--partitions", "2", settings=again)
    send(kafka, f"{topic_prefix}again-", records)
    with Service(again, tmp_path) as service:
        service.start("w")
        service.await_closed(FIRST_MS + 6 * DAY_MS, partitions=2)
        service.stop("w")
    assert told(kafka, f"{topic_prefix}again-") == expected(range(6), skus=400)
    assert not list(read_topic(kafka.bootstrap, f"{topic_prefix}again-dead-letters"))


ACCOUNT = {
    "kafka_security_protocol": "SASL_PLAINTEXT",
    "kafka_sasl_mechanism": "PLAIN",
    "kafka_sasl_username": "skutrend",
    "kafka_sasl_password": "right",
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaBroker]:
    with KafkaBroker(users={"skutrend": "right"}) as broker:
        yield broker


def test_a_refused_login_stops_every_command_with_the_settings_to_look_at(guarded: KafkaBroker, tmp_path: Path) -> None:
    settings = {"brokers": guarded.guarded, "group": "refused", "bundle": "none", **ACCOUNT}
    wrong = {**settings, "kafka_sasl_password": "wrong"}
    sentences = [
        fails(wrong, tmp_path),
        skutrend("topics", "check", settings=wrong, check=False).stderr,
        skutrend("topics", "create", settings=wrong, check=False).stderr,
    ]
    for sentence in sentences:
        assert "refused authentication" in sentence
        assert "Invalid username or password" in sentence
        assert "SKUTREND_KAFKA_SASL_PASSWORD" in sentence
        assert "wrong" not in sentence, "a password has no place in a log"
        assert "Traceback" not in sentence


def test_with_the_right_password_all_commands_and_the_worker_are_let_in(guarded: KafkaBroker, tmp_path: Path) -> None:
    settings = {
        "brokers": guarded.guarded,
        "group": "let-in",
        "bundle": "none",
        "idle_timeout_ms": 2_000,
        "flush_interval_ms": 100,
        **ACCOUNT,
    }
    skutrend("topics", "create", "--partitions", "2", settings=settings)
    skutrend("topics", "check", settings=settings)
    with Service(settings, tmp_path) as service:
        service.start("w")
        send(guarded, "", lines(range(3)))
        service.await_closed(FIRST_MS + 3 * DAY_MS, partitions=2)
        service.stop("w")
        shutil.rmtree(service.state_dir("w"))
        service.start("w")
        assert service.total("skutrend_recovered_rows") > 0
        service.stop("w")
    assert told(guarded, "") == expected(range(3))


def test_a_worker_that_is_told_to_stop_while_it_restores_leaves_in_time_and_the_next_one_restores_all(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    slow = f"{topic_prefix}slow"
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(6), skus=2_000)))
        service.stop("w")
        shutil.rmtree(service.state_dir("w"))
        kafka.limit_reading(slow, 5_000)
        service.start("w", wait=False, kafka_client_id=slow, kafka_fetch_message_max_bytes=10_000)
        wait_for(lambda: "changelog offsets read" in service.get("w", "/readyz")[1], within_s=60)
        service.stop("w")
        send(kafka, topic_prefix, lines(range(6, 8), skus=2_000))
        service.start("w")
        assert service.total("skutrend_recovered_rows") > 2_000
        service.await_closed(FIRST_MS + 8 * DAY_MS, partitions=2)
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(8), skus=2_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 MB where the workers of a `Service` keep their state."""
    where = tmp_path / "state"
    where.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", where], check=True, capture_output=True)  # noqa: S603, S607  # our own command
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"a small disk cannot be mounted ({error}): run the tests as root"
        pytest.skip(reason)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)  # noqa: S603, S607  # our own command


def fill(disk: Path) -> Path:
    """Write a file until nothing fits any more; returns it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\1" * 4_096)
    return filler


def pauses(service: Service, partition: int) -> list[int]:
    """Return how long a worker has put off opening a partition, try by try."""
    told_so = rf"partition {partition} cannot be opened yet, next try in (\d+) ms"
    return [int(ms) for ms in re.findall(told_so, service.log("w"))]


def test_a_full_disk_is_waited_for_and_all_is_right_once_there_is_room(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path, small_disk: Path
) -> None:
    with Service({**settings, "stalled_after_ms": 3_000}, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(2), skus=6_000)))
        filler = fill(small_disk)
        send(kafka, topic_prefix, lines(range(2, 5), skus=6_000))
        wait_for(
            lambda: "cannot be opened since" in service.get("w", "/livez")[1],
            within_s=60,
            told=lambda: service.log("w"),
        )
        assert "No space left on device" in service.log("w")
        for number in (0, 1):
            wait_for(
                lambda n=number: pauses(service, n)[:2] == [1_000, 2_000], within_s=30, told=lambda: service.log("w")
            )
        filler.unlink()
        service.await_closed(FIRST_MS + 5 * DAY_MS, partitions=2)
        service.await_ready(["w"])
        assert service.get("w", "/livez")[0] == 200
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(5), skus=6_000)


@pytest.fixture
def small_memory(topic_prefix: str) -> Iterator[Path]:
    """A memory control group of 16 MB: what a process takes from when it joins it on counts."""
    root = Path("/sys/fs/cgroup")
    is_first_version = (root / "memory").is_dir()
    group = (root / "memory" if is_first_version else root) / topic_prefix
    try:
        group.mkdir()
        limit = group / ("memory.limit_in_bytes" if is_first_version else "memory.max")
        limit.write_text(str(16 << 20))
    except OSError as error:
        reason = f"memory cannot be limited ({error}): run the tests as root, where control groups may be written"
        pytest.skip(reason)
    try:
        yield group
    finally:
        group.rmdir()


def test_a_worker_that_runs_out_of_memory_under_load_is_killed_and_loses_nothing(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path, small_memory: Path
) -> None:
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(2), skus=2_000)))
        starved = service.processes["w"]
        (small_memory / "cgroup.procs").write_text(str(starved.pid))
        send(kafka, topic_prefix, lines(range(2, 8), skus=6_000))
        assert starved.wait(timeout=60) == -signal.SIGKILL, service.log("w")
        service.start("w")
        service.await_closed(FIRST_MS + 8 * DAY_MS, partitions=2)
        service.stop("w")
    windows, whole = told(kafka, topic_prefix), expected(range(2, 8), skus=6_000) | expected(range(2), skus=2_000)
    assert {name: windows[name] for name in whole} == whole
    assert not letters(kafka, topic_prefix)
