"""Three real Apache Kafka nodes, each broker and controller, so that one can be lost and not come back."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from confluent_kafka.admin import AdminClient

from tests.support.kafka_broker import INTERNAL, Node, free_ports
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from types import TracebackType

    from confluent_kafka.admin import PartitionMetadata

IDS = (1, 2, 3)
IN_SYNC = 2  # of three replicas, without which nothing is written
TRANSACTIONS = "__transaction_state"
# what is compiled in haste serves for a minute, and leaves the processor to the workers
JVM = "-Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
SETTINGS = {
    "default.replication.factor": "3",
    "min.insync.replicas": str(IN_SYNC),
    **{f"{topic}.replication.factor": "3" for topic in INTERNAL},
    "transaction.state.log.min.isr": str(IN_SYNC),
    "share.coordinator.state.topic.min.isr": str(IN_SYNC),
    # a third of Kafka's own patience, on a machine without a network in between
    "broker.session.timeout.ms": "3000",
    "controller.quorum.election.timeout.ms": "700",
    "controller.quorum.fetch.timeout.ms": "1500",
    "controller.quorum.election.backoff.max.ms": "500",
    # three nodes on one machine
    "num.network.threads": "2",
    "num.io.threads": "3",
    "log.cleaner.dedupe.buffer.size": str(8 << 20),
}


class KafkaCluster:
    """Nodes by id; `bootstrap` names them all. No process and no file outlives the `with`.

    with KafkaCluster() as cluster:
        cluster.nodes[cluster.coordinator("group")].kill()
    """

    def __init__(self) -> None:
        """Make the directories; nothing runs yet."""
        self._directory = Path(tempfile.mkdtemp(prefix="skutrend-kafka-"))
        ports = free_ports(2 * len(IDS))
        client, control = (dict(zip(IDS, half, strict=True)) for half in (ports[: len(IDS)], ports[len(IDS) :]))
        voters = ",".join(f"{each}@127.0.0.1:{control[each]}" for each in IDS)
        self.nodes: dict[int, Node] = {}
        for each in IDS:
            at = f"127.0.0.1:{client[each]}"
            own = {
                "node.id": str(each),
                "controller.quorum.voters": voters,
                "listeners": f"PLAINTEXT://{at},CONTROLLER://127.0.0.1:{control[each]}",
                "advertised.listeners": f"PLAINTEXT://{at}",
            }
            directory = self._directory / f"node-{each}"
            directory.mkdir()
            self.nodes[each] = Node(directory, {**SETTINGS, **own}, bootstrap=at, jvm=JVM)
        self.bootstrap = ",".join(node.bootstrap for node in self.nodes.values())

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def partitions(self, topic: str) -> dict[int, PartitionMetadata]:
        """Return what the brokers say of a topic's partitions: leader, replicas, isrs."""
        found: dict[int, PartitionMetadata] = self._admin().list_topics(topic, timeout=30).topics[topic].partitions
        return found

    def coordinator(self, group: str) -> int:
        """Return the node that coordinates a consumer group."""
        admin = self._admin()  # an answer comes only while its client lives
        (asked,) = admin.describe_consumer_groups([group], request_timeout=30).values()
        return int(asked.result(timeout=30).coordinator.id)

    def transaction_coordinator(self, transactional_id: str) -> int:
        """Return the node that coordinates the transactions of an id."""
        partitions = self.partitions(TRANSACTIONS)
        return int(partitions[abs(java_hash(transactional_id)) % len(partitions)].leader)

    def await_in_sync(self, *, within_s: float = 60) -> None:
        """Wait until every partition has all its replicas, as an operator does before the next node's turn."""

        def behind() -> list[str]:
            topics = self._admin().list_topics(timeout=30).topics
            return [
                f"{name}[{number}] {each.isrs}"
                for name, topic in topics.items()
                for number, each in topic.partitions.items()
                if len(each.isrs) < len(each.replicas)
            ]

        wait_for(lambda: not behind(), within_s=within_s, told=behind)

    def start(self) -> None:
        """Run what does not run, all at once, and wait until each answers."""
        asleep = [node for node in self.nodes.values() if not node.is_running]
        for node in asleep:
            node.launch()
        for node in asleep:
            node.await_ready()

    def close(self) -> None:
        """End all nodes, whatever happens to one of them, and remove their data."""
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
            for node in self.nodes.values():
                stack.callback(node.close)

    def __enter__(self) -> Self:
        """Start all nodes."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them; their data goes too."""
        self.close()


def java_hash(text: str) -> int:
    """Return what Java's `String.hashCode` gives for ASCII.

    >>> java_hash("skutrend-0"), java_hash("polygenelubricants")
    (-266351549, -2147483648)
    """
    value = 0
    for letter in text.encode("ascii"):
        value = (31 * value + letter) & 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value
