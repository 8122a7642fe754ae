"""Runs the `skutrend` command as its users do: child processes, set up through the environment, watched over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from tests.support.kafka_broker import ROOT, free_ports
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from confluent_kafka import Message

COMMAND = [sys.executable, "-m", "streams"]
FRAMES = 20  # of a crashed thread


def environment(**settings: object) -> dict[str, str]:
    """Return an environment whose only SKUTREND_ settings are these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SKUTREND_")}
    clean["PYTHONFAULTHANDLER"] = "1"  # a crash of native code says where
    return clean | {f"SKUTREND_{name.upper()}": str(value) for name, value in settings.items()}


def skutrend(*arguments: str, settings: dict[str, Any], check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    done = subprocess.run(  # noqa: S603  # our own command
        [*COMMAND, *arguments],
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def crash_in(log: str) -> str:
    """Give where native code crashed, the reason and the thread's latest frames: whoever sees the end of a log sees it.

    >>> told = ["Fatal Python error: Aborted", "", "Thread 0x1:", "  a", "", "Current thread 0x2:", "  b", "", "x"]
    >>> print(crash_in("\\n".join(told)))
    Fatal Python error: Aborted
    Current thread 0x2:
      b
    """
    _, fatal, told = log.rpartition("Fatal Python error: ")
    if not fatal:
        return ""
    reason, *_ = told.splitlines()
    _, current, frames = told.partition("Current thread ")
    return "\n".join([fatal + reason, *(current + frames.partition("\n\n")[0]).splitlines()[:FRAMES]])


def new_group(
    bootstrap: str,
    prefix: str,
    *,
    partitions: int,
    replication: int = 1,
    **more: Any,  # noqa: ANN401  # settings
) -> dict[str, Any]:
    """Make the topics of a group; returns the settings of its workers, without a model unless told otherwise."""
    settings = {"brokers": bootstrap, "group": f"{prefix}g", "topic_prefix": prefix, "bundle": "none", **more}
    how = ("--partitions", str(partitions), "--replication", str(replication))
    skutrend("topics", "create", *how, settings=settings)
    return settings


def published_once(bootstrap: str, prefix: str) -> list[dict[str, Any]]:
    """Return all windows that readers of committed records see; no id may be there twice."""
    windows = values(bootstrap, f"{prefix}windows")
    assert len(windows) == len({window["id"] for window in windows}), "an id was published twice"
    return windows


@dataclass
class Service:
    """`skutrend worker` processes of one group, over one state directory unless `apart`; none outlives the `with`.

    command: which command they run instead.
    """

    settings: dict[str, Any]
    folder: Path
    apart: bool = False  # a state directory for each, as on machines of their own
    command: tuple[str, ...] = ("worker",)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def state_dir(self, name: str) -> Path:
        """Where a worker keeps its state."""
        return self.folder / (f"state-{name}" if self.apart else "state")

    def start(self, name: str, *, wait: bool = True, **more: Any) -> None:  # noqa: ANN401  # settings
        """Run a worker and wait until it owns partitions, unless told not to."""
        (self.ports[name],) = free_ports(1)
        settings = {
            "session_timeout_ms": 6_000,
            **self.settings,
            "state_dir": self.state_dir(name),
            "http_host": "127.0.0.1",
            "http_port": self.ports[name],
            **more,
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(  # noqa: S603  # our own command
                [*COMMAND, *self.command], env=environment(**settings), cwd=ROOT, stdout=log, stderr=log
            )
        if not wait:
            return
        wait_for(lambda: self.get(name, "/readyz")[0] == 200, within_s=60, told=lambda: self.log(name))

    def stop(self, name: str) -> None:
        """Ask a worker to end, as an orchestrator does: it must leave with exit code 0."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, self.end(name)

    def kill(self, name: str) -> None:
        """Kill a worker as the machine's memory manager would."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        """Return all that a worker has logged, over its restarts."""
        return (self.folder / f"{name}.log").read_text()

    def end(self, name: str) -> str:
        """Return all that a worker has logged, and last where its native code crashed, if it did."""
        log = self.log(name)
        return f"{log}\n{crash_in(log)}"

    def get(self, name: str, path: str) -> tuple[int, str]:
        """Ask a worker over HTTP; status 0 while it does not answer."""
        process = self.processes.get(name)
        assert process is None or process.poll() is None, f"the worker ended with {process.poll()}: {self.end(name)}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=10) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (urllib.error.URLError, OSError):
            return 0, ""

    def metrics(self, family: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Add up a family over all running workers, by labels."""
        found: dict[tuple[tuple[str, str], ...], float] = {}
        for name in self.processes:
            for each in text_string_to_metric_families(self.get(name, "/metrics")[1]):
                if each.name == family:
                    for sample in each.samples:
                        if not sample.name.endswith("_created"):
                            key = tuple(sorted(sample.labels.items()))
                            found[key] = found.get(key, 0.0) + sample.value
        return found

    def total(self, family: str, **labels: str) -> float:
        """Add up the samples of a family that carry these labels."""
        wanted = set(labels.items())
        return sum(value for key, value in self.metrics(family).items() if wanted <= set(key))

    def watermark_ms(self, partitions: int = 0) -> int:
        """Event time up to which every partition has closed its windows; 0 while fewer than so many have closed one."""
        closed = self.metrics("skutrend_watermark_timestamp_seconds")
        return round(1000 * min(closed.values(), default=0.0)) if len(closed) >= partitions else 0

    def await_records(self, count: int, *, within_s: float = 240) -> None:
        """Wait until the running workers have taken so many records from the inputs."""
        wait_for(
            lambda: self.total("skutrend_records") >= count,
            within_s=within_s,
            told=lambda: (self.total("skutrend_records"), *(self.log(name) for name in self.processes)),
        )

    def await_late(self, count: int) -> None:
        """Wait until so many events have come too late."""
        wait_for(lambda: self.total("skutrend_outcomes", outcome="late") >= count, within_s=60)

    def await_ready(self, names: list[str], *, within_s: float = 60) -> None:
        """Wait until these workers own partitions, all restored."""
        wait_for(
            lambda: all(self.get(name, "/readyz")[0] == 200 for name in names),
            within_s=within_s,
            told=lambda: [(self.get(name, "/readyz"), self.log(name)) for name in names],
        )

    def await_all_partitions(self, processes: dict[str, subprocess.Popen[bytes]], count: int) -> None:
        """Wait until one worker owns them all."""
        (name,) = processes
        wanted = str(list(range(count)))
        wait_for(lambda: wanted in self.get(name, "/readyz")[1], within_s=60, told=lambda: self.log(name))

    def await_closed(self, end_ms: int, *, within_s: float = 120, partitions: int = 0) -> None:
        """Wait until all windows up to `end_ms` are closed in every partition."""
        wait_for(
            lambda: self.watermark_ms(partitions) >= end_ms,
            within_s=within_s,
            told=lambda: (
                self.metrics("skutrend_watermark_timestamp_seconds"),
                *(self.log(name) for name in self.processes),
            ),
        )


def read_topic(bootstrap: str, topic: str, since: dict[int, int] | None = None) -> Iterator[Message]:
    """Yield every record of a topic that a read_committed reader sees, from its beginning to its present end.

    since: by partition, where to begin instead; is moved on behind what was read.
    """
    positions = {} if since is None else since
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reader-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        left = set(partitions)
        consumer.assign(
            [TopicPartition(topic, number, positions.get(number, OFFSET_BEGINNING)) for number in partitions]
        )
        while left:
            for message in consumer.consume(10_000, 0.05):
                error = message.error()
                if error is None:
                    positions[message.partition()] = message.offset() + 1
                    yield message
                else:
                    assert error.name() == "_PARTITION_EOF", error.str()
                    left.discard(message.partition())
    finally:
        consumer.close()


def values(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """Decode every value of a JSON topic."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    return [decode(message.value() or b"") for message in read_topic(bootstrap, topic)]
