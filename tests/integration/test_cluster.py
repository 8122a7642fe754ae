"""A broker of three is lost and does not come back: what lived on it moves to the others, and the workers carry on."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from streams.worker.app import TICK_S
from tests.support.kafka_broker import require_kafka
from tests.support.kafka_cluster import KafkaCluster
from tests.support.service import Service, new_group, skutrend
from tests.support.shop import (
    HOUR_MS,
    TIMEZONE,
    assert_buried,
    assert_windows,
    disordered,
    end_of,
    merged,
    month,
    pulses,
    send,
)
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kafka

PARTITIONS = 4
FLUSH_S = 0.1
UNTIL_MS = 1_300_924_800_000  # 2011-03-24
WORKERS = ("a", "b")


@pytest.fixture(scope="module")
def nodes() -> Iterator[KafkaCluster]:
    require_kafka()
    with KafkaCluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: KafkaCluster) -> KafkaCluster:
    """The three nodes, all up and in step."""
    nodes.start()
    nodes.await_in_sync()
    return nodes


def test_topics_get_the_clusters_own_number_of_copies_and_single_ones_are_reported(
    nodes: KafkaCluster, topic_prefix: str
) -> None:
    prefixes = {f"{topic_prefix}three-": (), f"{topic_prefix}one-": ("--replication", "1")}
    for prefix, how in prefixes.items():
        settings = {"brokers": nodes.bootstrap, "topic_prefix": prefix}
        skutrend("topics", "create", "--partitions", "1", *how, settings=settings)
        copies = {len(each.replicas) for each in nodes.partitions(f"{prefix}orders").values()}
        assert copies == ({1} if how else {3})
        said = skutrend("topics", "check", settings=settings, check=False).stderr
        assert (f"{prefix}orders, {prefix}clicks" in said and "there is but one copy" in said) == bool(how), said


class Sales:
    """Ten days with a pulse an hour in every partition, so that no window waits for an idle timeout."""

    def __init__(self) -> None:
        sample = {kind: table[table.event_time_ms < UNTIL_MS] for kind, table in month().items()}
        self.end_ms = end_of(sample)
        hourly = range(int(sample["orders"].event_time_ms.min()), self.end_ms, HOUR_MS)
        pulse = pulses(PARTITIONS, [*hourly, self.end_ms + 6 * HOUR_MS])
        self.tables = merged(sample, pulse)
        self.records = disordered(self.tables, by_ms=2 * HOUR_MS, duplicates=0.01)


@pytest.fixture(scope="module")
def sales() -> Sales:
    return Sales()


def settings_of(cluster: KafkaCluster, prefix: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # settings
    how = {"timezone": TIMEZONE, "allowed_lateness_ms": 3 * HOUR_MS, "flush_interval_ms": int(1000 * FLUSH_S), **more}
    return new_group(cluster.bootstrap, prefix, partitions=PARTITIONS, replication=3, **how)


class Shop:
    """Two workers over a month of sales that is being sent while a test does harm to the cluster."""

    def __init__(self, cluster: KafkaCluster, service: Service, group: str) -> None:
        self.cluster, self.service, self.group = cluster, service, group

    def told(self) -> list[object]:
        return [(self.service.get(name, "/readyz"), self.service.log(name)) for name in WORKERS]

    def await_progress(self) -> None:
        """Wait until every partition takes records again and again, which it does only while its flushes succeed."""
        for _ in range(3):
            before = self._taken()
            wait_for(lambda before=before: self._grown(before), within_s=60, told=self.told)
            time.sleep(2 * FLUSH_S + TICK_S)

    def _taken(self) -> Counter[str]:
        """How many records the workers have taken, by partition."""
        taken: Counter[str] = Counter()
        for labels, value in self.service.metrics("skutrend_records").items():
            taken[dict(labels)["partition"]] += int(value)
        return taken

    def _grown(self, before: Counter[str]) -> bool:
        now = self._taken()
        return len(now) == PARTITIONS and all(now[number] > before[number] for number in now)

    def await_livez(self, *statuses: int) -> None:
        """Wait until the workers' /livez has given each of these, one after the other."""
        for status in statuses:
            wanted = [status] * len(WORKERS)
            wait_for(
                lambda wanted=wanted: [self.service.get(name, "/livez")[0] for name in WORKERS] == wanted,
                within_s=60,
                told=self.told,
            )

    def transactions_lie_on(self) -> int:
        """Return the node that coordinates most partitions' transactions."""
        ids = [f"{self.group}-{number}" for number in range(PARTITIONS)]
        ((node, _),) = Counter(map(self.cluster.transaction_coordinator, ids)).most_common(1)
        return node


@contextmanager
def open_shop(
    cluster: KafkaCluster, sales: Sales, settings: dict[str, Any], folder: Path, *, over_s: float
) -> Iterator[Shop]:
    """Sell while the block does harm; behind it everything must have been counted, each window told once."""
    prefix = settings["topic_prefix"]
    at_once = Event()
    with Service(settings, folder, apart=True) as service, ThreadPoolExecutor(1) as pool:
        for name in WORKERS:
            service.start(name, wait=False)
        service.await_ready(list(WORKERS))
        sending = pool.submit(send, cluster, prefix, sales.records, over_s=over_s, at_once=at_once)
        try:
            shop = Shop(cluster, service, f"{prefix}{settings['group']}")
            shop.await_progress()
            yield shop
            assert not sending.done(), "nothing was sent while the cluster was harmed"
        finally:
            at_once.set()
        sending.result()
        service.await_closed(sales.end_ms, partitions=PARTITIONS)
        for name in WORKERS:
            service.stop(name)
    assert_windows(cluster, prefix, sales.tables, until_ms=sales.end_ms)
    assert_buried(cluster, prefix, [])


def test_the_groups_coordinator_is_lost_for_good_and_then_the_quorum_for_a_while(
    cluster: KafkaCluster, topic_prefix: str, sales: Sales, tmp_path: Path
) -> None:
    settings = settings_of(cluster, topic_prefix, stalled_after_ms=5_000)
    with open_shop(cluster, sales, settings, tmp_path, over_s=150) as shop:
        cluster.nodes[cluster.coordinator(settings["topic_prefix"] + settings["group"])].kill()
        shop.await_progress()
        second = shop.transactions_lie_on()
        cluster.nodes[second].kill()
        shop.await_livez(200, 503)
        cluster.nodes[second].start()
        shop.await_progress()
        shop.await_livez(200)


def test_the_transactions_coordinator_is_lost_and_then_the_brokers_are_rolled_one_by_one(
    cluster: KafkaCluster, topic_prefix: str, sales: Sales, tmp_path: Path
) -> None:
    settings = settings_of(cluster, topic_prefix)
    with open_shop(cluster, sales, settings, tmp_path, over_s=150) as shop:
        lost = shop.transactions_lie_on()
        cluster.nodes[lost].kill()
        shop.await_progress()
        cluster.nodes[lost].start()
        for number in cluster.nodes.keys() - {lost}:
            cluster.await_in_sync()
            cluster.nodes[number].restart()
        shop.await_progress()


def test_a_broker_whose_machine_is_lost_answers_nobody_and_is_not_waited_for(
    cluster: KafkaCluster, topic_prefix: str, sales: Sales, tmp_path: Path
) -> None:
    settings = settings_of(cluster, topic_prefix, kafka_socket_timeout_ms=4_000)
    with open_shop(cluster, sales, settings, tmp_path, over_s=150) as shop:
        lost = cluster.nodes[cluster.coordinator(settings["topic_prefix"] + settings["group"])]
        lost.freeze()
        try:
            shop.await_progress()
        finally:
            lost.kill()
