"""A real Apache Kafka node as a child process of the tests; tests/support/kafka_cluster.py has three of them.

The jars come once through Maven (`deploy/kafka/pom.xml`) and the node is run by `deploy/kafka/start.sh`, the script a
developer would use, on free ports and in a directory of its own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple, Self

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
KAFKA = ROOT / "deploy" / "kafka"
LIBS = KAFKA / "libs"
INTERNAL = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
_ALLOW: Final = AclPermissionType.ALLOW
REMEDY = "install a Java 17 runtime and Maven (Debian: apt-get install openjdk-17-jre-headless maven)"


class KafkaUnavailableError(Exception):
    """The node cannot be run on this machine; the sentence says what is missing."""


def why_unavailable() -> str | None:
    """Say what this machine lacks to run Kafka and how to mend it; None when it can."""
    missing = [] if shutil.which("java") else ["java"]
    if not (LIBS / ".complete").exists() and not shutil.which("mvn"):
        missing.append("mvn")
    return f"real Kafka needs {' and '.join(missing)}: {REMEDY}" if missing else None


def require_kafka() -> None:
    """Skip the test on a machine that cannot run Kafka; in CI, where none may be skipped, fail it."""
    reason = why_unavailable()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI may not skip the tests on real Kafka)")
    pytest.skip(reason)


def ensure_libs() -> None:
    """Fetch the jars once; concurrent test sessions wait for each other."""
    work = ROOT / ".kafka-test"
    work.mkdir(exist_ok=True)
    with (work / "libs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (LIBS / ".complete").exists():
            return
        command = ["mvn", "-q", "-B", "-f", str(KAFKA / "pom.xml"), "dependency:copy-dependencies"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own command
        if done.returncode:
            msg = f"mvn could not fetch Kafka: {done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise KafkaUnavailableError(msg)
        (LIBS / ".complete").touch()


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def configure(bootstrap: str, topic: str, settings: dict[str, str]) -> None:
    """Change settings of a topic, as an operator does; others stay."""
    entries = [ConfigEntry(*each, incremental_operation=AlterConfigOpType.SET) for each in settings.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    (done,) = admin.incremental_alter_configs([resource]).values()
    done.result(30)


def make_certificate(folder: Path) -> Path:
    """Make a certificate of this machine that is its own authority: `ca.pem`, and `broker.pem` with the key, too."""
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    paths = ["-addext", names, "-keyout", folder / "key.pem", "-out", folder / "ca.pem"]
    subprocess.run([*command, *paths], capture_output=True, check=True)  # noqa: S603  # our own command
    both = folder / "broker.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "ca.pem").read_text())
    return both


def _guard(
    open_at: str, guarded_at: str, controller: int, users: dict[str, str], certificate: Path | None
) -> dict[str, str]:
    """Return the properties of a node with a second listener for these users only."""
    protocol = "SASL_PLAINTEXT" if certificate is None else "SASL_SSL"
    known = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    return {
        "listeners": f"PLAINTEXT://{open_at},GUARDED://{guarded_at},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://{open_at},GUARDED://{guarded_at}",
        "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,GUARDED:{protocol},CONTROLLER:PLAINTEXT",
        "listener.name.guarded.ssl.keystore.type": "PEM",
        **({} if certificate is None else {"listener.name.guarded.ssl.keystore.location": str(certificate)}),
        "listener.name.guarded.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.guarded.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {known};"
        ),
    }


def _authorize() -> dict[str, str]:
    """Return the properties of a node that asks for rights; whoever comes without a name is the administrator."""
    return {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }


class Node:
    """One Kafka 4.1 process over a directory with its properties, log and data.

    `stop()` is SIGTERM and `kill()` is SIGKILL; `restart()` brings it up again with the same ports and data.
    """

    def __init__(
        self, directory: Path, settings: dict[str, str], *, bootstrap: str, jvm: str, start_timeout_s: float = 60
    ) -> None:
        """settings: what this node has beyond, or otherwise than, all nodes of tests. jvm: options of its JVM."""
        self.bootstrap, self.start_timeout_s = bootstrap, start_timeout_s
        self._directory, self._jvm = directory, jvm
        self._properties = directory / "server.properties"
        every = {
            "process.roles": "broker,controller",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(directory / "log"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            # tests send records stamped with event times of years ago
            "log.retention.ms": "-1",
            # a node that was killed waits this long for its own ghost before it serves again
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            **{f"{topic}.num.partitions": "4" for topic in INTERNAL},
            **settings,
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in every.items()))
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """The JVM's process id."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None

    def start(self) -> None:
        """Run the node and wait until it answers."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Run the node without waiting for it: one of several answers only when most of them run."""
        ensure_libs()
        self._log = (self._directory / "server.log").open("ab")
        self._process = subprocess.Popen(  # noqa: S603  # our own script
            [str(KAFKA / "start.sh"), str(self._properties)],
            env={**os.environ, "KAFKA_JVM_OPTS": self._jvm},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def await_ready(self) -> None:
        """Wait until the node answers."""
        deadline = time.monotonic() + self.start_timeout_s
        host, port = self.bootstrap.split(":")
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                # log_level 0: a node that is coming up closes a few connections, which is no news
                admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
                if admin.list_topics(timeout=2).brokers:
                    return
            except (OSError, KafkaException):
                time.sleep(0.1)
        tail = self.log_tail()
        self.close()
        msg = f"Kafka did not answer on {self.bootstrap} within {self.start_timeout_s:g} s; its log ends: {tail}"
        raise KafkaUnavailableError(msg)

    def log_tail(self) -> str:
        """Return the last 2,000 characters of what the node printed."""
        path = self._directory / "server.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def stop(self) -> None:
        """End the node in order (SIGTERM), as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node at once (SIGKILL), as a power cut would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let the node hang (SIGSTOP) until it is killed: it keeps its connections and answers nobody."""
        os.kill(self.pid, signal.SIGSTOP)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                # the group: while the storage is being formatted the script still has a child
                os.killpg(self._process.pid, how)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def restart(self) -> None:
        """Bring the node up again on the same ports with the same data; ends it first if it runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the node."""
        self.kill()


class Right(NamedTuple):
    """What a user may do, on what: a topic, a group, a transactional id, or all of them that begin so."""

    operation: AclOperation
    kind: ResourceType
    name: str
    is_prefix: bool = False


def _pattern(right: Right) -> tuple[ResourceType, str, ResourcePatternType]:
    how = ResourcePatternType.PREFIXED if right.is_prefix else ResourcePatternType.LITERAL
    return right.kind, right.name, how


def _binding(user: str, right: Right) -> AclBinding:
    return AclBinding(*_pattern(right), f"User:{user}", "*", right.operation, _ALLOW)


class KafkaBroker(Node):
    """One Kafka 4.1 node (KRaft) in a temporary directory; nothing is left behind.

        with KafkaBroker() as broker:
            Producer({"bootstrap.servers": broker.bootstrap})

    users: name to password; with them there is a second listener, `guarded`, that wants SASL/PLAIN. is_authorizing:
    those users have no rights but what `grant` gives them. certificate: see `make_certificate`; that listener then
    speaks TLS.
    """

    def __init__(
        self,
        *,
        heap_mb: int = 512,
        settings: dict[str, str] | None = None,
        start_timeout_s: float = 60,
        users: dict[str, str] | None = None,
        is_authorizing: bool = False,
        certificate: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        """directory: an empty one for log and data, which the caller removes; None: one that `close` removes."""
        self._is_kept = directory is not None
        port, controller, guarded = free_ports(3)
        bootstrap = f"127.0.0.1:{port}"
        self.guarded = f"127.0.0.1:{guarded}"
        own = {
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{bootstrap},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{bootstrap}",
            **{f"{topic}.replication.factor": "1" for topic in INTERNAL},
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.min.isr": "1",
            **(_guard(bootstrap, self.guarded, controller, users, certificate) if users else {}),
            **(_authorize() if is_authorizing else {}),
            **(settings or {}),
        }
        directory = directory or Path(tempfile.mkdtemp(prefix="skutrend-kafka-"))
        jvm = f"-Xms128m -Xmx{heap_mb}m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
        super().__init__(directory, own, bootstrap=bootstrap, jvm=jvm, start_timeout_s=start_timeout_s)

    def make_topics(self, names: Iterable[str], *, partitions: int, config: dict[str, str] | None = None) -> None:
        """Create topics and wait until they are there."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        wanted = [
            NewTopic(name, num_partitions=partitions, replication_factor=1, config=config or {}) for name in names
        ]
        for made in admin.create_topics(wanted).values():
            made.result()

    def grant(self, user: str, *rights: Right) -> None:
        """Give a user rights."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for done in admin.create_acls([_binding(user, right) for right in rights]).values():
            done.result()

    def revoke(self, user: str, *rights: Right) -> None:
        """Take rights away that were granted."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        wanted = [AclBindingFilter(*_pattern(right), f"User:{user}", "*", right.operation, _ALLOW) for right in rights]
        for done in admin.delete_acls(wanted).values():
            assert done.result(), f"{user} had no such right"

    def limit_reading(self, client_id: str, bytes_per_s: int) -> None:
        """Let a client read so much and no more, as an operator does with a quota."""
        tool = ["java", "-Xmx128m", "-cp", f"{LIBS}/*", "kafka.admin.ConfigCommand", "--bootstrap-server"]
        what = ["--alter", "--entity-type", "clients", "--entity-name", client_id]
        command = [*tool, self.bootstrap, *what, "--add-config", f"consumer_byte_rate={bytes_per_s}"]
        subprocess.run(command, capture_output=True, check=True, timeout=60)  # noqa: S603  # our own command

    def close(self) -> None:
        """End the node and remove its directory, unless that is the caller's."""
        self.kill()
        if not self._is_kept:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start the node."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the node; its data goes too."""
        self.close()
