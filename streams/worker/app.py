"""Wiring: the Faust app, an agent for each input, and the worker that they call. Nothing is decided here."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faust.types import TP

from schemas.errors import Broken
from schemas.inputs import INPUT_NAMES
from streams.kafka import clients
from streams.kafka.faust_app import batch_topic, build_app
from streams.kafka.topic_ids import CHECK_S
from streams.worker.environment import Environment
from streams.worker.models import Watched
from streams.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import faust

    from inference.session import Session
    from streams.settings import Settings

log = logging.getLogger(__name__)
TICK_S = 0.2
COMMIT_S = 5.0


def build(
    settings: Settings,
    session: Session | None,
    *,
    partition_count: int,
    letter_limit_bytes: int,
    watched: Watched | None = None,
) -> tuple[faust.App, Worker]:
    """Build the app of one worker. partition_count: of each input. letter_limit_bytes: see `Environment`.

    watched: see `Models`.
    """
    app = build_app(
        group=settings.group_id,
        brokers=settings.brokers.split(","),
        client=settings.kafka,
        datadir=Path(settings.state_dir),
        session_timeout_ms=settings.session_timeout_ms,
    )
    environment = Environment(settings, session, partition_count, tp=TP, letter_limit_bytes=letter_limit_bytes)
    worker = Worker(environment, watched=watched)
    _agents(app, worker, settings)
    _transport(app, worker, settings)
    _group(app, worker)
    _ticks(app, worker)
    _topic_checks(app, worker)
    if settings.bundle_check_ms:
        _bundle_checks(app, worker, every_s=settings.bundle_check_ms / 1000)
    return app, worker


def _agents(app: faust.App, worker: Worker, settings: Settings) -> None:
    """One agent per input topic; concurrency 1, because a partition's batches are acked in order."""

    def fold(source: int) -> Callable[[Any], Awaitable[None]]:
        async def agent(batches: Any) -> None:  # noqa: ANN401 - faust's stream
            async for event in batches.noack().events():
                try:
                    await worker.take(source, event.value, app.consumer)
                except Broken as error:
                    await fail(app, worker, error)
                    return
                event.ack()

        return agent

    for source, name in enumerate(INPUT_NAMES):
        app.agent(batch_topic(app, settings.topic(name)), concurrency=1, name=name)(fold(source))


def _transport(app: faust.App, worker: Worker, settings: Settings) -> None:
    """Set what the transport asks of the worker and of the settings."""

    async def resume_offsets(tps: set[TP]) -> dict[TP, int]:
        return worker.offsets(tps)

    def refused(reason: Broken) -> None:
        asyncio.run_coroutine_threadsafe(fail(app, worker, reason), app.loop)

    app.transport.resume_offsets = resume_offsets
    app.transport.shorten_deadline = worker.shorten_deadline
    app.transport.instance = settings.instance or None
    app.transport.max_batch_bytes = settings.max_batch_bytes
    app.transport.refused = refused
    app.transport.answer_ms = clients.answer_ms(settings.client)


def _group(app: faust.App, worker: Worker) -> None:
    """Call the worker when the group rebalances and when the process ends."""

    @app.on_rebalance_complete.connect  # type: ignore[untyped-decorator]  # Faust has no types
    async def recover(app: faust.App, **_: Any) -> None:  # noqa: ANN401
        try:
            if worker.assignment.generation < 0:
                await worker.models.begin()
            numbers = {tp.partition for tp in app.consumer.assignment()}
            await worker.assign(numbers, lambda: int(app.consumer_generation_id))
        except Broken as error:
            await fail(app, worker, error)

    @app.on_partitions_revoked.connect  # type: ignore[untyped-decorator]  # Faust has no types
    async def revoke(app: faust.App, *_: Any, **__: Any) -> None:  # noqa: ANN401
        try:
            await worker.flush()
        except Broken as error:
            await fail(app, worker, error)

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]  # Faust has no types
    async def leave(app: faust.App, **_: Any) -> None:  # noqa: ANN401
        if worker.failure is not None:
            return
        try:
            await worker.close()
        except Broken as error:
            worker.fail(error)
            log.error("stopped with unflushed records, which the next start reads again: %s", error)


def _ticks(app: faust.App, worker: Worker) -> None:
    """Call periodically what must happen without events."""

    @app.task  # type: ignore[untyped-decorator]  # Faust has no types
    async def tick() -> None:
        """Tick every `TICK_S`, and commit offsets to the group every `COMMIT_S`."""
        monotonic = worker.environment.monotonic
        ticks, ticked_ms = 0, monotonic()
        while not app.should_stop:
            await asyncio.sleep(TICK_S)
            if not worker.assignment.is_restored or app.rebalancing:
                continue
            now_ms = monotonic()
            worker.missed(now_ms - ticked_ms)
            ticked_ms = now_ms
            try:
                await worker.tick(app.consumer)
            except Broken as error:
                await fail(app, worker, error)
                return
            ticks += 1
            if ticks % round(COMMIT_S / TICK_S) == 0:
                await app.consumer.commit_own(worker.flushed_offsets())


def _topic_checks(app: faust.App, worker: Worker) -> None:
    """Check every `CHECK_S`, and after every assignment, whether the topics are still the same ones."""
    is_assigned = asyncio.Event()

    @app.on_rebalance_complete.connect  # type: ignore[untyped-decorator]  # Faust has no types
    async def check_now(_: faust.App, **__: Any) -> None:  # noqa: ANN401
        is_assigned.set()

    @app.task  # type: ignore[untyped-decorator]  # Faust has no types
    async def check_topics() -> None:
        """Stop where a topic has been deleted and made again: our offsets are not of that one."""
        while not app.should_stop:
            with suppress(TimeoutError):
                await asyncio.wait_for(is_assigned.wait(), CHECK_S)
            is_assigned.clear()
            try:
                await worker.check_topics()
            except Broken as error:
                await fail(app, worker, error)
                return


def _bundle_checks(app: faust.App, worker: Worker, *, every_s: float) -> None:
    """Look for a new bundle now and then."""

    @app.task  # type: ignore[untyped-decorator]  # Faust has no types
    async def check_bundle() -> None:
        while not app.should_stop:
            await worker.models.look()
            await asyncio.sleep(every_s)


async def fail(app: faust.App, worker: Worker, error: Broken) -> None:
    """Stop the worker, nothing acked since the last flush."""
    worker.fail(error)
    log.error("stopping: %s", error)
    await app.crash(error)
