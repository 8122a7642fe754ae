"""How a Faust app is built and run here: the settings that batches and our own assignor need, and a clean end.

app = build_app(group="skutrend", brokers=["localhost:9092"], client={}, datadir=Path("state"))
app.transport.resume_offsets = own_offsets          # before run(); see streams/kafka/transport.py

@app.agent(batch_topic(app, "orders"), concurrency=1)
async def orders(stream):
    async for event in stream.noack().events():
        fold(event.value)                            # a RecordBatch
        event.ack()

app.on_rebalance_complete.connect(recover)           # awaited without a time limit, before resume_offsets
app.on_partitions_revoked.connect(flush)             # agents have drained; awaited before the group goes on
app.on_before_shutdown.connect(flush)                # on a stop, in the place of on_partitions_revoked
run(app)                                             # until SIGTERM or SIGINT; raises what crashed the worker
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from typing import TYPE_CHECKING, Final

import faust
from faust.worker import Worker
from mode.supervisors import CrashingSupervisor

from schemas.errors import BadSetting, Broken
from streams.kafka import transport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

# per agent: with 64 a slow fold held twice the memory and was little faster, with 8 it starved
BUFFERED_BATCHES: Final = 16
METADATA_MAX_AGE_MS: Final = 30_000  # how soon added partitions are noticed
REQUEST_TIMEOUT_S: Final = 40.0
REBALANCE_TIMEOUT_S: Final = 60.0
# aiokafka leaves the group when nothing was fetched for so long, which a long recovery and a worker whose partitions
# are all paused look like; whether a worker is stuck is for its liveness probe to say
MAX_POLL_INTERVAL_S: Final = 86_400.0
SASL: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def build_app(  # all by name
    *,
    group: str,
    brokers: Sequence[str],
    client: Mapping[str, str],
    datadir: Path,
    session_timeout_ms: int = 10_000,
    check_crcs: bool = False,
) -> faust.App:
    """Build a Faust app that reads batches and does nothing by itself: no tables, no web server, no topics of its own.

    brokers: `host:port`. client: librdkafka properties; those about TLS and SASL are translated (`BadSetting` for what
    aiokafka cannot do), the others are the producers' business. datadir: Faust keeps nothing of weight there.
    """
    transport.register()
    request_timeout_s = max(REQUEST_TIMEOUT_S, session_timeout_ms / 1000)
    app = faust.App(
        group,
        broker=[f"{transport.SCHEME}://{broker}" for broker in brokers],
        broker_credentials=credentials(client),
        datadir=str(datadir),
        # liveness: the session says how soon a dead worker's partitions move on
        broker_session_timeout=session_timeout_ms / 1000,
        broker_heartbeat_interval=min(session_timeout_ms / 1000 / 5, 3.0),
        broker_rebalance_timeout=REBALANCE_TIMEOUT_S,
        broker_request_timeout=request_timeout_s,
        broker_max_poll_interval=MAX_POLL_INTERVAL_S,
        # reading: it would count batches
        broker_max_poll_records=None,
        stream_buffer_maxsize=BUFFERED_BATCHES,
        broker_check_crcs=check_crcs,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        stream_wait_empty=True,  # before partitions go, agents finish the batch in hand
        # Faust would create and join topics of its own
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        # an agent that raised has a bug or lost its broker: stop, fold nothing more
        agent_supervisor=CrashingSupervisor,
        autodiscover=False,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    app.boot_strategy.enable_kafka_producer = False  # everything is written by streams.kafka.output_producer
    return app


def batch_topic(app: faust.App, name: str) -> faust.Topic:
    """Return an existing topic as a channel of `RecordBatch`; nothing is decoded on the way."""
    return app.topic(name, key_serializer="raw", value_serializer="raw")


def credentials(client: Mapping[str, str]) -> faust.auth.Credentials | None:
    """Translate librdkafka's TLS and SASL properties; None for a plaintext connection."""
    protocol = client.get("security.protocol", "plaintext").upper()
    context = _ssl_context(client) if protocol.endswith("SSL") else None
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    if protocol not in {"SASL_PLAINTEXT", "SASL_SSL"}:
        msg = f"security.protocol is {protocol!r}; known are PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL"
        raise BadSetting(msg)
    mechanism = client.get("sasl.mechanism", client.get("sasl.mechanisms", "")).upper()
    if mechanism not in SASL:
        msg = f"sasl.mechanism is {mechanism!r}; the worker's consumer knows {', '.join(SASL)}"
        raise BadSetting(msg)
    return faust.SASLCredentials(
        username=client.get("sasl.username"),
        password=client.get("sasl.password"),
        mechanism=mechanism,
        ssl_context=context,
    )


def _ssl_context(client: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=client.get("ssl.ca.location"))
        if "ssl.certificate.location" in client:
            context.load_cert_chain(
                client["ssl.certificate.location"],
                keyfile=client.get("ssl.key.location"),
                password=client.get("ssl.key.password"),
            )
    except OSError as error:
        msg = f"the files named by ssl.ca.location, ssl.certificate.location or ssl.key.location do not serve: {error}"
        raise BadSetting(msg) from error
    # librdkafka checks host names unless told `none`
    context.check_hostname = client.get("ssl.endpoint.identification.algorithm", "https").lower() != "none"
    if client.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class _Worker(Worker):  # type: ignore[misc]  # Faust's types are not read
    """Faust's worker without its console habits."""

    def _setup_logging(self) -> None:
        """Leave logging to whoever set it up."""

    def _on_sigusr1(self) -> None:
        """Do not print every stack."""

    def _on_sigusr2(self) -> None:
        """Do not wait in a debugger."""

    def _setproctitle(self, info: str, *, ident: str = "") -> None:
        """Leave the process its name."""


def run(app: faust.App) -> None:
    """Run an app until SIGTERM or SIGINT, or until something in it crashes, which is raised from here.

    Call it once, in the main thread, where no event loop is running. After a signal, agents finish the batch in hand,
    `on_before_shutdown` is awaited, the worker leaves the group, and this returns about a second later.
    """
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    app.loop = loop
    worker = _Worker(app, loop=loop, quiet=True, redirect_stdouts=False)
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit as end:
        if worker.crash_reason is not None:
            raise worker.crash_reason from None
        if end.code:
            msg = "the worker ended in an error that its log tells"
            raise Broken(msg) from end
    finally:
        asyncio.set_event_loop(None)


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415  # not to be had on Windows

    return uvloop.new_event_loop()
