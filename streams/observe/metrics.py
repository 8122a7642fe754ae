"""What an operator can see of a worker: Prometheus metrics, liveness and readiness."""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from typing import Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

log = logging.getLogger(__name__)
_DELAY_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_CLOSE_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class Metrics:
    """All metrics of one worker, in a registry of their own, so that several can live in one process."""

    def __init__(self) -> None:
        """Register every metric."""
        self.registry = CollectorRegistry()
        self._register_reading(self.registry)
        self._register_closing(self.registry)
        self._register_durability(self.registry)
        self._register_model(self.registry)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _register_reading(self, r: CollectorRegistry) -> None:
        per_input = ("topic", "partition")
        self.records = Counter("skutrend_records", "Records taken from the inputs", per_input, registry=r)
        self.outcomes = Counter(
            "skutrend_outcomes", "What became of them; sums up to skutrend_records", (*per_input, "outcome"), registry=r
        )
        self.corrected = Counter(
            "skutrend_corrected", "Late records that have changed their closed window", per_input, registry=r
        )
        self.refusals = Counter("skutrend_refusals", "Dead-lettered records by code", ("topic", "code"), registry=r)
        self.ingested = Counter(
            "skutrend_ingested", "Messages of the bus that ingest has taken", ("topic",), registry=r
        )
        self.ingest_left_out = Counter(
            "skutrend_ingest_left_out", "Messages, or parts of them, that are no events", ("reason",), registry=r
        )
        self.lag = Gauge("skutrend_lag", "Records not read yet", per_input, registry=r)
        self.paused = Gauge("skutrend_paused", "1 while an input waits for slower ones", per_input, registry=r)

    def _register_closing(self, r: CollectorRegistry) -> None:
        self.windows = Counter("skutrend_windows_closed", "Windows closed", ("partition",), registry=r)
        self.published = Counter("skutrend_published", "Records published", ("topic",), registry=r)
        self.skus = Gauge("skutrend_skus", "SKUs with state", ("partition",), registry=r)
        self.watermark = Gauge(
            "skutrend_watermark_timestamp_seconds",
            "Event time up to which windows are closed",
            ("partition",),
            registry=r,
        )
        self.windows_due = Gauge(
            "skutrend_windows_due", "Windows that are over and wait to be closed", ("partition",), registry=r
        )
        self.close = Histogram(
            "skutrend_close_seconds", "Time to close a window of a partition", registry=r, buckets=_CLOSE_BUCKETS_S
        )
        self.close_delay = Histogram(
            "skutrend_close_delay_seconds",
            "Time from when the watermark passed the end of a window until its outputs were committed",
            registry=r,
            buckets=_DELAY_BUCKETS_S,
        )
        self.open_alerts = Gauge(
            "skutrend_open_alerts", "Alerts that are open", ("partition", "kind", "severity"), registry=r
        )

    def _register_durability(self, r: CollectorRegistry) -> None:
        self.flush = Histogram(
            "skutrend_flush_seconds", "Time to make a flush durable", registry=r, buckets=_CLOSE_BUCKETS_S
        )
        self.reopened = Counter(
            "skutrend_reopened",
            "Partitions closed after a failed write and opened anew, by cause",
            ("partition", "cause"),
            registry=r,
        )
        self.recovered = Counter(
            "skutrend_recovered_rows", "Changelog rows read to restore a partition", ("partition",), registry=r
        )
        self.snapshots = Counter(
            "skutrend_snapshots", "Snapshots tried, by outcome", ("partition", "outcome"), registry=r
        )
        self.snapshot_sequence = Gauge(
            "skutrend_snapshot_sequence", "Flush that the newest snapshot is of", ("partition",), registry=r
        )

    def _register_model(self, r: CollectorRegistry) -> None:
        self.provider = Gauge("skutrend_model_info", "The model that serves", ("model", "provider"), registry=r)
        self.bundles_refused = Counter(
            "skutrend_bundles_refused", "Looks at a bundle that cannot serve, while another one goes on", registry=r
        )
        self.shadow_loss = Gauge(
            "skutrend_shadow_relative_loss",
            "How much higher the shadow's loss is than what is served, as a share: mean, and 95 % interval",
            ("model", "bound"),
            registry=r,
        )
        self.shadow_windows = Gauge("skutrend_shadow_windows", "Windows over which they are compared", registry=r)
        self.loss = Gauge(
            "skutrend_live_wql",
            "Weighted quantile loss of one-step forecasts, recent windows",
            ("partition", "source"),
            registry=r,
        )
        self.weight = Gauge(
            "skutrend_expert_weight",
            "Weight of an expert in the forecasts that are served, mean over levels and velocity classes",
            ("partition", "source", "steps"),
            registry=r,
        )
        self.hit = Gauge(
            "skutrend_live_hit_ratio",
            "Share of actuals below a quantile that was served, by the randomised PIT of the panel, recent windows",
            ("partition", "level", "steps"),
            registry=r,
        )
        self.coverage = Gauge(
            "skutrend_live_coverage",
            "Share of actuals within the 90 % band of the one-step forecast served, recent windows",
            ("partition",),
            registry=r,
        )
        self.build = Gauge(
            "skutrend_build_info",
            "Versions of what runs, and what the model runs on",
            ("version", "python", "onnxruntime", "provider"),
            registry=r,
        )

    def set_build(self, *, provider: str) -> None:
        """Say which build this is; provider: what the model runs on, `none` without one."""
        self.build.labels(version("skutrend"), platform.python_version(), _onnxruntime_version(), provider).set(1)

    def forget(self, number: int) -> None:
        """Drop the gauges of a partition that is no longer here: its new owner shows them."""
        wanted = str(number)
        for gauge in (
            *(self.skus, self.watermark, self.windows_due, self.lag, self.paused, self.snapshot_sequence),
            *(self.loss, self.coverage, self.open_alerts),
        ):
            for sample in next(iter(gauge.collect())).samples:
                if sample.labels.get("partition") == wanted:
                    gauge.remove_by_labels(sample.labels)

    def render(self) -> bytes:
        """Give the text that Prometheus scrapes."""
        return generate_latest(self.registry)


def _onnxruntime_version() -> str:
    for name in ("onnxruntime-gpu", "onnxruntime"):
        with suppress(PackageNotFoundError):
            return version(name)
    return "none"


@dataclass(frozen=True)
class Health:
    """Answers for the probes: whether it is so, and the sentence that says why (not)."""

    live: Callable[[], tuple[bool, str]]
    ready: Callable[[], tuple[bool, str]]


class HttpServer:
    """`/metrics`, `/livez`, `/readyz` from a thread of its own, so that a busy worker still answers."""

    def __init__(self, *, host: str, port: int, metrics: Metrics, health: Health) -> None:
        """Bind; a port that is taken is an OSError."""
        self._server = ThreadingHTTPServer((host, port), _handler(metrics, health))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> Self:
        """Serve until `stop`."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(metrics: Metrics, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer a scrape or a probe."""
            if self.path == "/metrics":
                self._answer(200, metrics.render(), CONTENT_TYPE_LATEST)
                return
            probe = {"/livez": health.live, "/readyz": health.ready}.get(self.path)
            if probe is None:
                self._answer(404, b"there is /metrics, /livez and /readyz\n")
                return
            fine, sentence = probe()
            self._answer(200 if fine else 503, sentence.encode() + b"\n")

        def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own name
            """Keep probes out of the log."""
            log.debug(format, *args)

    return Handler
