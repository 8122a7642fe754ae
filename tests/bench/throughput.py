"""Events per second and CPU-seconds per event of the windowed job: the service next to plain Faust.

From orders in Kafka to `windows` in Kafka, day windows, the sample's 3,900 SKUs, 4 partitions, real Kafka, each side
pinned to one core with the broker on another. The clock runs from the first fetch to the last window published.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from tests.bench.load import fill
from tests.support.kafka_broker import ROOT, KafkaBroker, free_ports
from tests.support.service import COMMAND, environment, read_topic

if TYPE_CHECKING:
    from collections.abc import Callable

PARTITIONS = 4
TICKS = os.sysconf("SC_CLK_TCK")
CORE = max(os.sched_getaffinity(0))
LIMIT_S = 400.0
STILL_S = 4.0  # without another window all that are due have been closed


@dataclass
class Job:
    """What is to be done: events in, `windows` out to `topic`."""

    name: str
    bootstrap: str
    topic: str
    events: int


@dataclass
class Run:
    """What one side did. seconds: first fetch to last window; cpu_s: of the process, over the same span."""

    name: str
    events: int
    seconds: float
    cpu_s: float
    rss_mb: float
    windows: int

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU-microseconds an event."""
        return 1e6 * self.cpu_s / self.events

    def __str__(self) -> str:
        """Give one line for a person."""
        return (
            f"{self.name:<34}{self.events:>10,} events {self.seconds:>7.1f} s {self.rate:>10,.0f} events/s "
            f"{self.cpu_us:>8.2f} CPU-us/event {self.rss_mb:>6.0f} MB RSS {self.windows:>9,} windows"
        )


@dataclass
class Still:
    """A count that was looked at again and again."""

    value: float = -1.0
    since_s: float = 0.0

    def at(self, value: float) -> bool:
        """Whether the count, which is this now, has not moved for `STILL_S`."""
        if value != self.value:
            self.value, self.since_s = value, time.monotonic()
        return time.monotonic() - self.since_s > STILL_S


def cpu_s(pid: int) -> float:
    """CPU time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int | str) -> float:
    """Resident memory at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def written(bootstrap: str, topic: str) -> int:
    """Count the records of a topic by its end offsets."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-ends"})
    try:
        return sum(
            consumer.get_watermark_offsets(TopicPartition(topic, p, OFFSET_END), timeout=10)[1]
            for p in range(PARTITIONS)
        )
    finally:
        consumer.close()


def measure(job: Job, *, command: list[str], env: dict[str, str], done: Callable[[], bool]) -> Run:
    """Run one side on its core until `done`, and read the span from the stamps of what it published."""
    bootstrap, topic = job.bootstrap, job.topic
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        process = subprocess.Popen(  # noqa: S603  # our own commands
            command,
            env=env,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, {CORE}),  # noqa: PLW1509  # no thread runs yet
        )
        try:
            while written(bootstrap, topic) == 0:
                _alive(process, log.name)
                time.sleep(0.05)
            cpu_before, started_ms = cpu_s(process.pid), time.time() * 1000
            deadline = time.monotonic() + LIMIT_S
            while not done() and time.monotonic() < deadline:
                _alive(process, log.name)
                time.sleep(0.1)
            cpu_after, memory = cpu_s(process.pid), rss_mb(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    stamps = [message.timestamp()[1] for message in read_topic(bootstrap, topic)]
    before_end = [stamp for stamp in stamps if stamp <= time.time() * 1000]
    first_ms = min(before_end)
    return Run(
        job.name,
        job.events,
        (max(before_end) - min(first_ms, started_ms)) / 1000,
        cpu_after - cpu_before,
        memory,
        len(stamps),
    )


def _alive(process: subprocess.Popen[bytes], log: str) -> None:
    if process.poll() is not None:
        sys.exit(f"the process ended with {process.returncode}:\n{Path(log).read_text()[-3000:]}")


def ours(kafka: KafkaBroker, events: int, folder: Path, **settings: object) -> Run:
    """Run `skutrend worker`, windows only."""
    prefix = f"b{uuid.uuid4().hex[:6]}-"
    names = ("orders", "clicks", "price-changes", "windows", "forecasts", "alerts", "late-events", "dead-letters")
    kafka.make_topics([prefix + name for name in names], partitions=PARTITIONS)
    fill(kafka.bootstrap, f"{prefix}orders", events)
    (port,) = free_ports(1)
    env = environment(
        brokers=kafka.bootstrap,
        group=f"{prefix}g",
        topic_prefix=prefix,
        state_dir=folder / prefix,
        timezone="UTC",
        bundle="none",
        silent_windows="skip",
        idle_timeout_ms=2_000,  # half of which a busy turn of the clock must not exceed, or nothing counts as idle
        http_host="127.0.0.1",
        http_port=port,
        **settings,
    )

    is_still = Still()

    def done() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except (urllib.error.URLError, OSError):
            return False
        is_over = is_still.at(_total(lines, "skutrend_windows_closed_total"))
        return is_over and _total(lines, "skutrend_records_total") >= events

    name = " ".join(("skutrend", *map(str, settings.values())))
    job = Job(name, kafka.bootstrap, f"{prefix}windows", events)
    return measure(job, command=[*COMMAND, "worker"], env=env, done=done)


def _total(lines: list[str], name: str) -> float:
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def plain(kafka: KafkaBroker, events: int, folder: Path) -> Run:
    """Run the plain Faust agent."""
    prefix = f"b{uuid.uuid4().hex[:6]}-"
    kafka.make_topics([prefix + name for name in ("orders", "windows")], partitions=PARTITIONS)
    fill(kafka.bootstrap, f"{prefix}orders", events)
    command = [sys.executable, "-m", "tests.bench.plain_faust", kafka.bootstrap, prefix, str(folder / prefix)]
    is_still = Still()

    def done() -> bool:
        return is_still.at(written(kafka.bootstrap, f"{prefix}windows"))

    job = Job("plain Faust agent, RocksDB table", kafka.bootstrap, f"{prefix}windows", events)
    return measure(job, command=[*command, "worker", "-l", "warn", "--without-web"], env=environment(), done=done)


def main(events: int, plain_events: int) -> None:
    """Print both sides and their ratios."""
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(heap_mb=1024) as kafka:
        os.sched_setaffinity(kafka.pid, set(os.sched_getaffinity(0)) - {CORE} or {CORE})
        peer = plain(kafka, plain_events, Path(folder))
        print(peer, flush=True)
        loose = ours(kafka, events, Path(folder), guarantee="at_least_once", changelog="off")
        print(loose, flush=True)
        own = ours(kafka, events, Path(folder), guarantee="exactly_once")
        print(own, flush=True)
        print(f"exactly once with the changelog costs {1 - own.rate / loose.rate:.0%} of the events/s without either")
        print(f"events/s: {own.rate / peer.rate:.1f} x plain Faust; CPU per event: 1/{peer.cpu_us / own.cpu_us:.1f}")
