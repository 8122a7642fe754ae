"""What goes wrong around a worker, on Apache Kafka: each ends as the table in deploy/RUNBOOK.md says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from schemas.errors import Refused
from streams.kafka import partition_reader as reading
from streams.kafka.partition_reader import Reader
from streams.state.keys import META
from streams.state.store import Store
from tests.support.hostile import GOOD
from tests.support.kafka_broker import ROOT, KafkaBroker, free_ports
from tests.support.service import COMMAND, Service, environment, new_group, published_once, skutrend, values
from tests.support.shop import send
from tests.support.workers import Crew, wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000
FIRST_MS = 1_300_060_800_000  # 2011-03-14
Record = tuple[str, bytes | None, bytes | None, int | None]


def lines(days: range, *, skus: int = 40) -> list[Record]:
    """One order line per SKU and day, at noon."""
    return [
        (
            "orders",
            b"S%03d" % sku,
            msgspec.json.encode(
                {
                    **GOOD,
                    "event_id": f"{day}-{sku}",
                    "sku": f"S{sku:03d}",
                    "quantity": 1.0 + sku % 3,
                    "event_time_ms": FIRST_MS + day * DAY_MS + DAY_MS // 2,
                }
            ),
            None,
        )
        for day in days
        for sku in range(skus)
    ]


def expected(days: range, *, skus: int = 40) -> dict[str, float]:
    """Units by id of the windows of these days."""
    return {f"S{sku:03d}/{FIRST_MS + day * DAY_MS}/0": 1.0 + sku % 3 for day in days for sku in range(skus)}


def told(kafka: KafkaBroker, prefix: str) -> dict[str, float]:
    """Units by id of all windows that committed readers see, each id once."""
    return {window["id"]: window["units"] for window in published_once(kafka.bootstrap, prefix)}


def fails(settings: dict[str, Any], folder: Path, *, within_s: float = 60) -> str:
    """Run a worker that must end with exit code 1; returns its one sentence."""
    env = environment(**settings, state_dir=folder / "state", http_port=0)
    done = subprocess.run(  # noqa: S603  # our own command
        [*COMMAND, "worker"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=within_s, check=False
    )
    assert done.returncode == 1, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("skutrend: ")]
    assert len(sentences) == 1, done.stderr
    return sentences[0]


def test_a_changelog_whose_broker_is_away_is_waited_for_and_one_that_is_not_there_is_not(
    topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KafkaBroker() as broker:
        config = {"bootstrap.servers": broker.bootstrap, "log_level": "0"}
        settings = {"brokers": broker.bootstrap, "topic_prefix": topic_prefix}
        skutrend("topics", "create", "--partitions", "1", settings=settings)
        send(broker, topic_prefix, lines(range(1)))
        reader = Reader(config, f"{topic_prefix}orders", 0, what="the changelog")
        assert reader.bounds() == (0, 40)
        broker.kill()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(reader.bounds)
            time.sleep(1)
            assert not waiting.done()
            broker.start()
            assert waiting.result(timeout=60) == (0, 40)
        reader.close()
        monkeypatch.setattr(reading, "ABSENT_S", 1.0)
        nothing = Reader(config, f"{topic_prefix}nothing", 0, what="the changelog")
        with pytest.raises(Refused, match="nothing is not there"):
            nothing.bounds()
        nothing.close()


def test_a_consumer_that_finds_no_broker_waits_for_one_but_not_beyond_a_signal(
    topic_prefix: str, tmp_path: Path
) -> None:
    with KafkaBroker() as broker, Crew(broker.bootstrap, topic_prefix, tmp_path) as crew:
        skutrend(
            "topics",
            "create",
            "--partitions",
            "1",
            settings={"brokers": broker.bootstrap, "topic_prefix": topic_prefix},
        )
        send(broker, topic_prefix, lines(range(1)))
        broker.kill()
        for name in ("patient", "called off"):
            crew.start(name)
            wait_for(
                lambda n=name: crew.log(n).count("Unable connect") > 2, within_s=30, told=lambda n=name: crew.log(n)
            )
        assert crew.stop("called off") == 0, crew.log("called off")
        broker.start()
        wait_for(lambda: crew.rows() >= 40, within_s=60, told=lambda: crew.log("patient"))
        assert crew.stop("patient") == 0, crew.log("patient")


def test_a_broker_that_is_killed_and_comes_back_is_waited_for(topic_prefix: str, tmp_path: Path) -> None:
    with KafkaBroker() as broker:
        settings = {
            "brokers": broker.bootstrap,
            "group": "g",
            "bundle": "none",
            "idle_timeout_ms": 4_000,
            "flush_interval_ms": 100,
        }
        skutrend("topics", "create", "--partitions", "2", settings=settings)
        with Service(settings, tmp_path) as service:
            service.start("w")
            service.await_records(send(broker, "", lines(range(5))))
            broker.kill()
            time.sleep(3)
            broker.restart()
            send(broker, "", lines(range(5, 10)))
            service.await_closed(FIRST_MS + 10 * DAY_MS, within_s=120, partitions=2)
            service.stop("w")
        assert told(broker, "") == expected(range(10))


def test_sigterm_is_heeded_while_the_brokers_hang_and_nothing_is_lost(topic_prefix: str, tmp_path: Path) -> None:
    with KafkaBroker() as broker:
        settings = new_group(broker.bootstrap, topic_prefix, partitions=8, idle_timeout_ms=4_000)
        with Service(settings, tmp_path) as service:
            service.start("w", flush_interval_ms=600_000)
            service.await_records(send(broker, topic_prefix, lines(range(3))))  # flushed at once
            service.await_records(3 * 40 + send(broker, topic_prefix, lines(range(3, 5))))  # to be flushed at the end
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                service.stop("w")
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            assert "records were not acknowledged within" in service.log("w")
            service.start("w", flush_interval_ms=100)
            send(broker, topic_prefix, lines(range(5, 8)))
            service.await_closed(FIRST_MS + 8 * DAY_MS, partitions=8)
            service.stop("w")
        assert told(broker, topic_prefix) == expected(range(8))


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_sigterm_is_heeded_in_time_while_a_flush_hangs(topic_prefix: str, tmp_path: Path, guarantee: str) -> None:
    with KafkaBroker() as broker:
        settings = new_group(broker.bootstrap, topic_prefix, partitions=4, idle_timeout_ms=4_000, guarantee=guarantee)
        with Service(settings, tmp_path) as service:
            service.start("w", flush_interval_ms=1_000)
            sent = send(broker, topic_prefix, lines(range(3)))
            service.await_records(sent)
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                time.sleep(3)  # a flush of what came last is under way, or due
                started_s = time.monotonic()
                service.stop("w")
                took_s = time.monotonic() - started_s
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            assert took_s < 20, service.log("w")  # 15 by the runbook; the machine may be loaded
            service.start("w", flush_interval_ms=100)
            send(broker, topic_prefix, lines(range(3, 5)))
            service.await_closed(FIRST_MS + 5 * DAY_MS, partitions=4)
            service.stop("w")
        found = {window["id"]: window["units"] for window in values(broker.bootstrap, f"{topic_prefix}windows")}
        assert found == expected(range(5))


@pytest.mark.parametrize("gone_for_s", [0.2, 3])
def test_sigterm_is_heeded_in_time_while_the_brokers_refuse_connections(
    topic_prefix: str, tmp_path: Path, gone_for_s: float
) -> None:
    with KafkaBroker() as broker:
        settings = new_group(broker.bootstrap, topic_prefix, partitions=4, idle_timeout_ms=2_000, flush_interval_ms=100)
        with Service(settings, tmp_path) as service:
            service.start("w")
            service.await_records(send(broker, topic_prefix, lines(range(5))))
            broker.kill()
            time.sleep(gone_for_s)
            told_at_s = time.monotonic()
            service.stop("w")
            assert time.monotonic() - told_at_s < 15, service.log("w")
            assert "Traceback" not in service.log("w")
            broker.start()
            service.start("w")
            send(broker, topic_prefix, lines(range(5, 8)))
            service.await_closed(FIRST_MS + 8 * DAY_MS, partitions=4)
            service.stop("w")
        assert told(broker, topic_prefix) == expected(range(8))


def test_a_lost_disk_is_rebuilt_from_the_changelog(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(6))))
        service.stop("w")
        shutil.rmtree(service.state_dir("w"))
        send(kafka, topic_prefix, lines(range(6, 9)))
        service.start("w")
        service.await_records(3 * 40)
        assert service.total("skutrend_recovered_rows") > 0
        service.await_closed(FIRST_MS + 9 * DAY_MS, partitions=2)
        assert service.total("skutrend_records") == 3 * 40, "inputs were read again"
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(9))


def test_a_damaged_store_is_rebuilt_from_the_changelog(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(4))))
        service.stop("w")
        for current in service.state_dir("w").rglob("CURRENT"):
            current.write_text("MANIFEST-nonsense\n")
        send(kafka, topic_prefix, lines(range(4, 8)))
        service.start("w")
        service.await_closed(FIRST_MS + 8 * DAY_MS, partitions=2)
        assert "rebuilding it from the changelog" in service.log("w")
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(8))


def test_state_of_another_version_stops_the_worker_wherever_it_lies_and_stays_as_it_is(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(3))))
        service.stop("w")
    foreign = msgspec.msgpack.encode({"format": 99, "flushes": 3})
    found = sorted((tmp_path / "state" / f"{topic_prefix}{settings['group']}").glob("partition-*"))
    assert len(found) == 2
    for path in found:
        store = Store(path)
        before = dict(store.scan.records())
        store.apply({META: foreign})
        store.close()
        sentence = fails(settings, tmp_path)
        assert f"{path} has format 99, which a later version of skutrend wrote" in sentence
        assert "new SKUTREND_GROUP" in sentence
        store = Store(path)
        assert dict(store.scan.records()) == before | {META: foreign}
        store.apply({META: before[META]})
        store.close()
    changelog = f"{topic_prefix}skutrend-{settings['group']}-changelog"
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(2):
        producer.produce(changelog, foreign, META, number)
    producer.flush()
    assert f"the changelog {changelog}[" in fails(settings, tmp_path)
    shutil.rmtree(tmp_path / "state")
    assert "] has format 99, which a later version" in fails(settings, tmp_path)


def test_a_changelog_that_was_made_again_is_written_anew_from_the_store(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    changelog = f"{topic_prefix}skutrend-{settings['group']}-changelog"
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(4))))
        service.stop("w")
        admin.delete_topics([changelog])[changelog].result()
        wait_for(lambda: changelog not in admin.list_topics(timeout=10).topics, within_s=30)
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(4, 6))))
        service.stop("w")
        shutil.rmtree(service.state_dir("w"))
        service.start("w")
        send(kafka, topic_prefix, lines(range(6, 8)))
        service.await_closed(FIRST_MS + 8 * DAY_MS, partitions=2)
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(8))


def test_an_output_topic_that_is_deleted_ends_the_worker_with_its_name(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    windows = f"{topic_prefix}windows"
    with Service(settings, tmp_path) as service:
        service.start("w", kafka_topic_metadata_propagation_max_ms=2_000)
        service.await_records(send(kafka, topic_prefix, lines(range(3))))
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})  # which must outlive the answer
        admin.delete_topics([windows])[windows].result()
        send(kafka, topic_prefix, lines(range(3, 6)))
        process = service.processes.pop("w")
        assert process.wait(timeout=60) == 1, service.log("w")
        assert f"topic {windows} is not there: make it (`skutrend topics create`)" in service.log("w")


@pytest.fixture
def beyond(kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Settings of a worker whose unread orders have been deleted by retention."""
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(2))))
        service.stop("w")
    send(kafka, topic_prefix, lines(range(2, 4)))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    ends = [TopicPartition(f"{topic_prefix}orders", number, -1) for number in range(2)]
    for future in admin.delete_records(ends).values():
        future.result()
    send(kafka, topic_prefix, lines(range(4, 6)))
    return settings


def test_records_deleted_unread_stop_the_worker_with_the_action(beyond: dict[str, Any], tmp_path: Path) -> None:
    sentence = fails(beyond, tmp_path)
    assert "were deleted unread" in sentence
    assert "SKUTREND_LOST_OFFSETS=earliest" in sentence


def test_records_deleted_unread_are_given_up_where_the_operator_says_so(
    kafka: KafkaBroker, topic_prefix: str, beyond: dict[str, Any], tmp_path: Path
) -> None:
    with Service({**beyond, "lost_offsets": "earliest"}, tmp_path) as service:
        service.start("w")
        service.await_closed(FIRST_MS + 6 * DAY_MS, partitions=2)
        assert "records deleted unread, going on" in service.log("w")
        service.stop("w")
    lost = dict.fromkeys(expected(range(2, 4)), 0.0)
    assert told(kafka, topic_prefix) == {**expected(range(6)), **lost}


def test_partitions_added_to_the_inputs_stop_the_worker_clearly(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(2))))
        service.stop("w")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    more = [NewPartitions(f"{topic_prefix}{name}", 3) for name in ("orders", "clicks", "price-changes")]
    for future in admin.create_partitions(more).values():
        future.result()
    assert "adding partitions moves keys" in fails(settings, tmp_path)


def test_a_missing_topic_is_waited_for_and_then_named(kafka: KafkaBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = {"brokers": kafka.bootstrap, "group": f"{topic_prefix}g", "topic_prefix": topic_prefix, "bundle": "none"}
    sentence = fails(settings, tmp_path)
    assert f"topic {topic_prefix}orders is not there" in sentence
    assert "skutrend topics create" in sentence


def test_a_worker_that_waits_for_its_brokers_still_leaves_when_asked(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Service({"brokers": f"127.0.0.1:{port}", "bundle": "none"}, tmp_path) as service:
        service.start("w", wait=False)
        wait_for(lambda: "trying again" in service.log("w"), within_s=30)
        service.stop("w")


def test_what_came_while_the_worker_was_asleep_is_not_late_when_it_wakes_up(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**settings, "idle_timeout_ms": 4_000, "session_timeout_ms": 30_000}
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(2), skus=20)))
        service.processes["w"].send_signal(signal.SIGSTOP)
        asleep = lines(range(2), skus=40)  # of the same days, half of them duplicates
        send(kafka, topic_prefix, asleep)
        time.sleep(5)
        service.processes["w"].send_signal(signal.SIGCONT)
        service.await_closed(FIRST_MS + 2 * DAY_MS, partitions=2)
        assert service.total("skutrend_outcomes", outcome="late") == 0
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(2))


def test_a_dormant_sku_does_not_come_back_from_the_changelog(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**settings, "dormant_after_ms": 3 * DAY_MS}
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(1), skus=40)))
        service.await_closed(FIRST_MS + DAY_MS, partitions=2)
        send(kafka, topic_prefix, lines(range(1, 8), skus=20))
        service.await_closed(FIRST_MS + 8 * DAY_MS, partitions=2)
        service.stop("w")
        assert "dormant SKUs forgotten" in service.log("w")
        shutil.rmtree(service.state_dir("w"))
        service.start("w")
        assert service.total("skutrend_recovered_rows") > 0
        service.stop("w")
        looking = {**settings, "state_dir": service.state_dir("w")}
        assert "S003 is in partition" in skutrend("state", "show", "S003", settings=looking).stdout
        assert "knows the SKU 'S033'" in skutrend("state", "show", "S033", settings=looking, check=False).stderr
