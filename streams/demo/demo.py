"""The `demo` command: the real worker on an embedded broker, fed with the shipped sample as fast as it can take it."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from features import dates
from features.cadence import DAY_MS
from features.encoding import fingerprint
from features.grid import WindowGrid
from inference.bundle import load
from schemas.errors import BadInput, Broken
from streams.demo import report as demo_report
from streams.demo.collector import Collector
from streams.events.files import sample_paths
from streams.events.replay import Replay
from streams.events.replay import ReplayProgress as Sent
from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.topics import names
from streams.observe.progress import track_progress
from streams.state import directories

TIMEZONE = "Europe/London"
_MAX_IN_FLIGHT = 16_000  # events: what the embedded broker keeps, with room to spare
_MAX_UNSEEN = 8_000  # forecasts the collector may be behind by, for the same reason
_POLL_S = 0.02
_IDLE_MS = 3_000
_PATIENCE_S = 30.0


@dataclass
class Counters:
    """Sums of the worker's metrics."""

    records: int = 0
    windows: int = 0
    skus: int = 0
    forecasts: int = 0
    alerts: int = 0
    watermark_ms: int = 0


@dataclass
class WorkerProcess:
    """The `skutrend worker` that the demo runs, seen through its /metrics."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    counters: Counters = field(default_factory=Counters)

    def look(self) -> Counters:
        """Scrape; the previous counters while it does not answer. A worker that has ended is `Broken`."""
        if self.process.poll() is not None:
            msg = f"the worker ended with exit code {self.process.returncode}; {self.log} says why"
            raise Broken(msg)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, OSError):
            return self.counters
        found = Counters()
        for family in text_string_to_metric_families(text):
            _add(found, family.name, [(s.name, s.labels, s.value) for s in family.samples])
        self.counters = found
        return found


def _add(found: Counters, family: str, samples: list[tuple[str, dict[str, str], float]]) -> None:
    totals = [
        (labels, int(value))
        for name, labels, value in samples
        if math.isfinite(value) and not name.endswith("_created")
    ]
    if family == "skutrend_records":
        found.records = sum(value for _, value in totals)
    elif family == "skutrend_windows_closed":
        found.windows = sum(value for _, value in totals)
    elif family == "skutrend_skus":
        found.skus = sum(value for _, value in totals)
    elif family == "skutrend_watermark_timestamp_seconds":
        found.watermark_ms = 1000 * min((value for _, value in totals), default=0)
    elif family == "skutrend_published":
        by_topic = {labels["topic"]: value for labels, value in totals}
        found.forecasts, found.alerts = by_topic.get("forecasts", 0), by_topic.get("alerts", 0)


def run(out: Path) -> None:
    """Run the demo and leave its outputs in `out`; ends by itself in about a minute."""
    console = Console()
    shutil.rmtree(out / "state", ignore_errors=True)
    directories.prepare(out, what=f"the directory {out} (--out)", error=BadInput)
    manifest = load(expected_fingerprint=fingerprint()).manifest
    console.print(
        "[bold]skutrend[/bold] replays a year of a gift shop's real sales (Online Retail, UCI, CC BY\n"
        "4.0; the clicks are synthetic) through the worker: Kafka protocol -> per-SKU\n"
        "windows in RocksDB -> LSTM -> forecasts and alerts.\n",
        highlight=False,
    )
    with EmbeddedBroker() as broker:
        broker.make(names())
        replay = Replay({"bootstrap.servers": broker.bootstrap}, sample_paths())
        grid = WindowGrid(window_ms=DAY_MS, timezone=TIMEZONE)
        first_ms, last_ms = _span_ms(replay)
        with _worker(broker.bootstrap, out) as worker:
            _await_start(worker, console)
            seen = Collector(broker.bootstrap, grid, first_ms=first_ms, last_ms=last_ms, out=out)
            throughput = _drive(replay, worker, seen, console, last_window=grid.number(last_ms))
            stopped = time.monotonic()
        seen.finish()
    (out / "forecasts.jsonl").write_bytes(b"\n".join(seen.latest.values()) + b"\n")
    throughput += f"; the worker flushed and left in {time.monotonic() - stopped:.1f} s"
    demo_report.show(console, seen, out=out, trained_until_ms=manifest.training_span.end_ms, throughput=throughput)


@contextmanager
def _worker(brokers: str, out: Path) -> Iterator[WorkerProcess]:
    """Run a worker; SIGTERM at the end, and anything but a clean exit is `Broken`."""
    port = _free_port()
    settings = {
        "BROKERS": brokers,
        "STATE_DIR": str(out / "state"),
        "TIMEZONE": TIMEZONE,
        "COUNTRY": "GB",
        "CURRENCY": "GBP",
        "FLUSH_INTERVAL_MS": "250",
        "GUARANTEE": "at_least_once",  # the embedded broker keeps nothing for long, so there is nothing to recover from
        "CHANGELOG": "off",
        "IDLE_TIMEOUT_MS": str(_IDLE_MS),
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": str(port),
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SKUTREND_")}
    environment |= {f"SKUTREND_{name}": value for name, value in settings.items()}
    log = out / "worker.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams", "worker"], env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
        try:
            yield WorkerProcess(process, port, log)
            process.terminate()
            code = process.wait(_PATIENCE_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code:
        msg = f"the worker ended with exit code {code}; {log} says why"
        raise Broken(msg)


def _free_port() -> int:
    import socket  # noqa: PLC0415 - only the demo needs one

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _span_ms(replay: Replay) -> tuple[int, int]:
    span_ms = replay.span_ms
    if span_ms is None:
        msg = "the shipped sample is empty: install skutrend again"
        raise BadInput(msg)
    return span_ms


def _await_start(worker: WorkerProcess, console: Console) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    with console.status("the worker starts and joins its group"):
        while time.monotonic() < deadline:
            worker.look()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/readyz", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
    msg = f"the worker was not ready within {_PATIENCE_S:.0f} s; {worker.log} says why"
    raise Broken(msg)


@dataclass
class _Display:
    """The bar, and below it what the worker has counted."""

    progress: Progress
    started: float
    counters: Text = field(default_factory=Text)

    def draw(self, c: Counters) -> None:
        """Show the counters of now."""
        day = dates.short_day(c.watermark_ms, TIMEZONE) if c.watermark_ms else "starting"
        rate = f"{c.records / max(time.monotonic() - self.started, 0.001):,.0f} events/s"
        (task,) = self.progress.task_ids
        self.progress.update(task, completed=c.records, day=day, rate=rate)
        self.counters.plain = (
            f"  {c.windows:,} windows closed, {c.skus:,} SKUs, {c.forecasts:,} forecasts, {c.alerts:,} alerts"
        )


@contextmanager
def _showing(display: _Display, console: Console, total: int) -> Iterator[Callable[[Counters], None]]:
    """Keep the display in view; where it goes into a file, tell on stderr how far it is."""
    if console.is_terminal:
        with Live(Group(display.progress, display.counters), console=console, refresh_per_second=4):
            yield display.draw
        return
    with track_progress("replaying events", total) as told:
        counters = Counters()

        def draw(c: Counters) -> None:
            nonlocal counters
            counters = c
            told.at(c.records, detail=f"{c.windows:,} windows closed, {c.forecasts:,} forecasts")

        yield draw
    display.draw(counters)
    console.print(display.progress, display.counters)


def _drive(replay: Replay, worker: WorkerProcess, seen: Collector, console: Console, *, last_window: int) -> str:
    """Replay everything, never further ahead than the embedded broker can hold; returns a sentence on throughput."""
    bars = (
        SpinnerColumn(),
        TextColumn("{task.fields[day]}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    started = time.monotonic()
    sent = Sent(0, replay.total, 0)
    display = _Display(Progress(*bars, console=console), started)
    display.progress.add_task("replay", total=replay.total, day="", rate="")
    with _showing(display, console, replay.total) as draw:

        def note(now: Sent) -> None:
            nonlocal sent
            sent = now

        def gate(_: int) -> None:
            while True:
                c = worker.look()
                draw(c)
                if sent.sent - c.records < _MAX_IN_FLIGHT and c.forecasts - seen.counts["forecasts"] < _MAX_UNSEEN:
                    return
                time.sleep(_POLL_S)

        replay.run(gate=gate, on_progress=note)
        seconds = _await_end(worker, seen, replay.total, last_window, draw)
    console.print()
    seconds -= started
    c = worker.look()
    lost = c.forecasts - seen.counts["forecasts"]
    missed = f"; {lost:,} forecasts were not read in time" if lost else ""
    return (
        f"{c.records:,} events, {c.windows:,} partition windows, {c.forecasts:,} forecasts and {c.alerts:,} alert "
        f"messages in {seconds:.0f} s: {c.records / seconds:,.0f} events/s with {c.forecasts / seconds:,.0f} "
        f"forecasts/s beside them{missed}"
    )


def _await_end(
    worker: WorkerProcess, seen: Collector, total: int, last_window: int, draw: Callable[[Counters], None]
) -> float:
    """Wait until all is folded, the last window with sales has closed and its forecasts are read.

    Returns when all was folded.
    """
    deadline = time.monotonic() + 4 * _PATIENCE_S
    end_ms = seen.grid.end_ms(last_window)
    folded_at = 0.0
    while time.monotonic() < deadline:
        c = worker.look()
        draw(c)
        if c.records >= total and not folded_at:
            folded_at = time.monotonic()
        if folded_at and c.watermark_ms >= end_ms and seen.counts["forecasts"] >= c.forecasts:
            return folded_at
        time.sleep(_POLL_S)
    msg = f"the worker did not finish within {4 * _PATIENCE_S:.0f} s after the replay; {worker.log} says why"
    raise Broken(msg)
