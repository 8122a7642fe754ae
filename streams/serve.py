"""The `worker` command: from settings to a running app, and back out cleanly."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from features.encoding import fingerprint
from features.ledger import INPUT_NAMES
from inference import bundle as bundles
from inference.bundle import Bundle
from inference.session import Session
from schemas.errors import BrokerTrouble, BundleMismatch
from streams import clients, logs, topics
from streams.app import build
from streams.faust_app import run
from streams.metrics import Health, HttpServer
from streams.settings import Settings
from streams.worker import Worker

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

log = logging.getLogger(__name__)
_PATIENCE_S = 30.0
_RETRY_S = 1.0


def serve(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT; raises what broke it (`Broken`)."""
    logs.set_up(settings.log_level)
    if settings.personal == "pseudonym" and not settings.personal_key_file:
        log.info("customer_id is removed from letters: SKUTREND_PERSONAL_KEY_FILE names no key for pseudonyms")
    session = open_session(settings)
    app, worker = build(settings, session, partition_counts(settings))
    if settings.changelog == "on":
        topics.ensure_changelog(settings.client, settings.changelog_topic, partitions=worker.partition_count)
    worker.letter_limit_bytes = topics.letter_limit_bytes(settings.client, prefix=settings.topic_prefix)
    server = _http(settings, worker)
    try:
        run(app)
    finally:
        worker.end()
        if server is not None:
            server.stop()
    if worker.failure is not None:
        raise worker.failure


def open_session(settings: Settings) -> Session | None:
    """Load the bundle that the settings name and warm it up; None for `none` (`BundleMismatch` if it cannot serve)."""
    if settings.bundle == "none":
        return None
    path = None if settings.bundle == "shipped" else Path(settings.bundle)
    bundle = bundles.load(path, expected_fingerprint=fingerprint())
    _check_window(bundle, settings)
    return Session(bundle, provider=settings.provider, threads=settings.threads)


def _check_window(bundle: Bundle, settings: Settings) -> None:
    """Refuse a bundle of one's own that learnt other windows; of the shipped one say that the baseline serves."""
    learnt_ms = bundle.manifest.window_ms
    if learnt_ms == settings.window_ms:
        return
    what = f"bundle {bundle.id} learnt windows of {learnt_ms} ms, SKUTREND_WINDOW_MS is {settings.window_ms}"
    if settings.bundle != "shipped":
        msg = f"{what}; train one for these windows, or set SKUTREND_BUNDLE=shipped to be served by the baseline"
        raise BundleMismatch(msg)
    log.warning("%s: all forecasts come from the seasonal naive baseline", what)


def check_bundle(directory: Path | None) -> list[str]:
    """Describe a bundle and prove that this machine can serve it."""
    bundle = bundles.load(directory, expected_fingerprint=fingerprint())
    session = Session(bundle)
    return [*bundles.describe(bundle), f"this machine serves it on {session.provider}"]


def partition_counts(settings: Settings) -> dict[str, int]:
    """Ask the brokers for the partition count of each input topic; waits a while for brokers and topics to appear."""
    admin = clients.admin(settings.client)
    inputs = [settings.topic(name) for name in INPUT_NAMES]
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        counts, missing = _ask(admin, inputs, settings.brokers)
        if not missing:
            return counts
        if time.monotonic() > deadline:
            raise BrokerTrouble(missing)
        log.warning("%s; trying again", missing)
        time.sleep(_RETRY_S)


def _ask(admin: AdminClient, topics: list[str], brokers: str) -> tuple[dict[str, int], str]:
    counts = {}
    for topic in topics:
        try:
            found = admin.list_topics(topic, timeout=10).topics[topic]
        except KafkaException as error:
            return {}, f"no answer from the brokers at {brokers} ({error.args[0].str()}); check SKUTREND_BROKERS"
        if found.error is not None:
            return {}, f"topic {topic} is not there ({found.error.str()}); run `skutrend topics create`"
        counts[topic] = len(found.partitions)
    return counts, ""


def _http(settings: Settings, worker: Worker) -> HttpServer | None:
    if not settings.http_port:
        return None
    health = Health(live=worker.live, ready=worker.ready)
    try:
        server = HttpServer(host=settings.http_host, port=settings.http_port, metrics=worker.metrics, health=health)
    except OSError as error:
        log.error("no /metrics, no probes: port %d is taken (%s); set SKUTREND_HTTP_PORT", settings.http_port, error)
        return None
    log.info("metrics and probes on port %d", server.port)
    return server.start()
