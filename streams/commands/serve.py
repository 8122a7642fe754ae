"""The `worker` command: build the app from the settings, run it, and close everything afterwards."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec
from confluent_kafka import KafkaException

from features.encoding import fingerprint
from inference import bundle as bundles
from inference.bundle import Bundle
from inference.session import Session
from schemas.errors import BadSetting, BrokerTrouble, BundleMismatch, Refused, Unavailable
from schemas.inputs import INPUT_NAMES
from streams.config.bundle_source import BundleSource
from streams.kafka import broker_errors, clients, rights, topics
from streams.kafka.broker_errors import Attempt, ErrorClass
from streams.kafka.faust_app import run
from streams.observe import logs
from streams.observe.metrics import Health, HttpServer, Metrics
from streams.settings import Settings
from streams.state import directories
from streams.worker.app import build
from streams.worker.environment import input_partitions
from streams.worker.models import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from confluent_kafka.admin import AclOperation, AdminClient

    Probe = Callable[[], tuple[bool, str]]

log = logging.getLogger(__name__)
BROKERS_WAIT_S = 30.0
_RETRY_S = 1.0

Answer = TypeVar("Answer")


def serve(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT; raises what broke it (`Broken`)."""
    logs.set_up(settings.log_level)
    warn_of_moved_state(settings)
    ready = prepare(settings)
    settings = ready.settings
    if settings.personal == "pseudonym" and not settings.personal_key_file:
        log.info("customer_id is removed from letters: SKUTREND_PERSONAL_KEY_FILE names no key for pseudonyms")
    app, worker = build(
        settings,
        ready.session,
        partition_count=ready.partition_count,
        letter_limit_bytes=ready.letter_limit_bytes,
        watched=watched(settings),
    )
    server = start_http(settings, worker.environment.metrics, live=worker.live, ready=worker.ready)
    try:
        run(app)
    finally:
        worker.end()
        if server is not None:
            server.stop()
    if worker.failure is not None:
        raise worker.failure


class Prepared(NamedTuple):
    """What partitions need before they are opened.

    settings: with the bundle's horizon. letter_limit_bytes: how large a letter may be.
    """

    settings: Settings
    session: Session | None
    partition_count: int
    letter_limit_bytes: int


def prepare(settings: Settings) -> Prepared:
    """Make the state directory, load the model, and see that all topics are there and may be used.

    Waits a while for brokers and inputs; `Broken` where something is not as it must be.
    """
    what = f"the state directory {settings.group_dir} (SKUTREND_STATE_DIR)"
    directories.prepare(settings.group_dir, what=what, error=BadSetting)
    session = open_session(settings)
    count = input_partitions(partition_counts(settings))
    if settings.changelog == "on":
        ensure_changelog(settings, partitions=count)
    rights.demand(settings.client, needed_rights(settings))
    settings = with_horizon(settings, session)
    return Prepared(settings, session, count, topics.letter_limit_bytes(settings.client, prefix=settings.output("")))


def warn_of_moved_state(settings: Settings) -> None:
    """Warn of state in the directory that was used before the prefix was part of its name."""
    before = Path(settings.state_dir) / settings.group
    if before != settings.group_dir and before.is_dir() and not settings.group_dir.is_dir():
        log.warning(
            "the state is kept in %s now, and there is older state in %s: where that is this shop's, stop this worker "
            "and move it there; else it is built anew from the changelog, or without one from the inputs",
            settings.group_dir,
            before,
        )


def needed_rights(settings: Settings) -> dict[str, tuple[AclOperation, ...]]:
    """Give the rights that a worker needs, by topic; those on its group and transactional ids no broker tells."""
    needed: dict[str, tuple[AclOperation, ...]] = {settings.topic(name): (rights.READ,) for name in INPUT_NAMES}
    made = topics.outputs(shadow=bool(settings.shadow_bundle))
    needed |= {settings.output(name): (rights.WRITE,) for name in made}
    if settings.changelog == "on":
        needed[settings.changelog_topic] = (rights.READ, rights.WRITE)
    return needed


def open_session(settings: Settings) -> Session | None:
    """Load the bundle that the settings name and warm it up; None for `none` (`BundleMismatch` if it cannot serve)."""
    return None if settings.bundle == "none" else make_session(settings, any_horizon=not settings.horizon)


def make_session(settings: Settings, source: BundleSource | None = None, *, any_horizon: bool = False) -> Session:
    """Load the bundle as it is now and warm it up (`BundleMismatch` if it cannot serve).

    any_horizon: whether it may forecast more or fewer windows than the settings say.
    """
    bundle = bundles.load((source or source_of(settings.bundle, settings)).local(), expected_fingerprint=fingerprint())
    _check_window(bundle, settings)
    horizon = settings.grid.cadence.horizon
    if not any_horizon and bundle.manifest.window_ms == settings.window_ms and bundle.manifest.horizon != horizon:
        msg = (
            f"bundle {bundle.id} forecasts {bundle.manifest.horizon} windows, this worker {horizon}; train one that "
            f"does (`skutrend train --horizon {horizon}`), or start the worker with this one and no SKUTREND_HORIZON"
        )
        raise BundleMismatch(msg)
    return Session(bundle, provider=settings.provider, threads=settings.threads)


def with_horizon(settings: Settings, session: Session | None) -> Settings:
    """Forecast as many windows as the bundle does that has learnt these, unless the settings say how many."""
    horizon = None if session is None else session.horizon_for(settings.grid)
    return settings if horizon is None else msgspec.structs.replace(settings, horizon=horizon)


def source_of(where: str, settings: Settings) -> BundleSource:
    """Say where a bundle is."""
    return BundleSource(where, copies=settings.group_dir / ".bundles")


def watched(settings: Settings) -> Watched:
    """Say which bundles are looked at while the worker runs: that which serves, where it can change, and the shadow."""
    serving = None if settings.bundle in {"none", "shipped"} else source_of(settings.bundle, settings)
    shadow = source_of(settings.shadow_bundle, settings) if settings.shadow_bundle else None
    return Watched(serving, shadow, lambda source: make_session(settings, source))


def _check_window(bundle: Bundle, settings: Settings) -> None:
    """Refuse a bundle that was trained for other windows; with the shipped one, warn that it does not serve."""
    learnt_ms = bundle.manifest.window_ms
    if learnt_ms == settings.window_ms:
        return
    what = f"bundle {bundle.id} learnt windows of {learnt_ms} ms, SKUTREND_WINDOW_MS is {settings.window_ms}"
    if settings.bundle != "shipped":
        msg = (
            f"{what}; train one for these windows (`skutrend train --window-ms {settings.window_ms}`), or set "
            "SKUTREND_BUNDLE=shipped to be served by plain forecasts"
        )
        raise BundleMismatch(msg)
    log.warning("%s: all forecasts are plain ones, without a net", what)


def check_bundle(directory: Path | None) -> list[str]:
    """Describe a bundle and prove that this machine can serve it."""
    bundle = bundles.load(directory, expected_fingerprint=fingerprint())
    session = Session(bundle)
    return [*bundles.describe(bundle), f"this machine serves it on {session.provider}"]


def partition_counts(settings: Settings, names: Iterable[str] | None = None) -> dict[str, int]:
    """Ask the brokers for the partition count of topics; waits a while for brokers and topics to appear.

    names: None for the inputs.
    """
    admin = clients.admin(settings.client)
    wanted = list(names or map(settings.topic, INPUT_NAMES))
    return _patiently(lambda: {topic: _partition_count(admin, topic, settings) for topic in wanted})


def _partition_count(admin: AdminClient, topic: str, settings: Settings) -> int:
    try:
        found = admin.list_topics(topic, timeout=10).topics[topic]
    except KafkaException as error:
        msg = f"no answer from the brokers at {settings.brokers} ({error.args[0].str()}); check SKUTREND_BROKERS"
        raise Unavailable(msg) from error
    if found.error is not None and broker_errors.classify(found.error.code()) is ErrorClass.REFUSED:
        remedy = Attempt("Read", topic=topic).remedy(found.error.code())
        msg = f"topic {topic} may not be seen ({found.error.str()}); {remedy}"
        raise Refused(msg)
    if found.error is not None:
        is_ours = topic in (*map(settings.topic, INPUT_NAMES), *map(settings.output, topics.outputs(shadow=True)))
        remedy = "run `skutrend topics create`" if is_ours else "see whether that is its name"
        msg = f"topic {topic} is not there ({found.error.str()}); {remedy}"
        if not is_ours and broker_errors.is_absent(admin, topic):
            raise BrokerTrouble(msg)
        raise Unavailable(msg)
    return len(found.partitions)


def ensure_changelog(settings: Settings, *, partitions: int) -> None:
    """Make the changelog topic where it is missing; waits a while for brokers that have gone since they answered."""
    _patiently(lambda: topics.ensure_changelog(settings.client, settings.changelog_topic, partitions=partitions))


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask the brokers, and again for a while as long as they cannot answer (`Unavailable`)."""
    deadline = time.monotonic() + BROKERS_WAIT_S
    while True:
        try:
            return ask()
        except Unavailable as trouble:
            if time.monotonic() > deadline:
                raise
            log.warning("%s; trying again", trouble)
        time.sleep(_RETRY_S)


def start_http(settings: Settings, metrics: Metrics, *, live: Probe, ready: Probe) -> HttpServer | None:
    """Serve metrics and probes; None where no port is wanted, or it is taken: the worker runs without them."""
    if not settings.http_port:
        return None
    health = Health(live=live, ready=ready)
    try:
        server = HttpServer(host=settings.http_host, port=settings.http_port, metrics=metrics, health=health)
    except OSError as error:
        log.error("no /metrics, no probes: port %d is taken (%s); set SKUTREND_HTTP_PORT", settings.http_port, error)
        return None
    log.info("metrics and probes on port %d", server.port)
    return server.start()
