"""Wiring: the Faust app, its three agents, and the worker they feed. Nothing is decided here."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faust.types import TP

from features.sku_state import CLICKS, ORDERS, PRICES
from schemas.errors import Broken
from streams.kafka import clients
from streams.kafka.faust_app import batch_topic, build_app
from streams.worker.worker import Worker, input_partitions

if TYPE_CHECKING:
    import faust

    from inference.session import Session
    from streams.settings import Settings

log = logging.getLogger(__name__)
TICK_S = 0.2
COMMIT_S = 5.0


def build(settings: Settings, session: Session | None, partition_counts: dict[str, int]) -> tuple[faust.App, Worker]:
    """Build the app of one worker. partition_counts: of each input topic (`BrokerTrouble` where they differ)."""
    app = build_app(
        group=settings.group,
        brokers=settings.brokers.split(","),
        client=settings.kafka,
        datadir=Path(settings.state_dir),
        session_timeout_ms=settings.session_timeout_ms,
    )
    worker = Worker(settings, session, input_partitions(partition_counts), tp=TP)
    _agents(app, worker, settings)
    _life(app, worker)
    _clockwork(app, worker)
    return app, worker


def _agents(app: faust.App, worker: Worker, settings: Settings) -> None:
    """One agent per input topic; concurrency 1, because a partition's batches are acked in order."""

    async def fold(source: int, batches: Any) -> None:  # noqa: ANN401 - faust's stream
        async for event in batches.noack().events():
            try:
                await worker.take(source, event.value, app.consumer)
            except Broken as error:
                await fail(app, worker, error)
                return
            event.ack()

    @app.agent(batch_topic(app, settings.topic("orders")), concurrency=1, name="orders")  # type: ignore[untyped-decorator]  # Faust has no types
    async def fold_orders(batches: Any) -> None:  # noqa: ANN401
        """Fold every fetched batch of order lines into its partition."""
        await fold(ORDERS, batches)

    @app.agent(batch_topic(app, settings.topic("clicks")), concurrency=1, name="clicks")  # type: ignore[untyped-decorator]  # Faust has no types
    async def fold_clicks(batches: Any) -> None:  # noqa: ANN401
        """Fold every fetched batch of clicks into its partition."""
        await fold(CLICKS, batches)

    @app.agent(batch_topic(app, settings.topic("price-changes")), concurrency=1, name="price-changes")  # type: ignore[untyped-decorator]  # Faust has no types
    async def fold_price_changes(batches: Any) -> None:  # noqa: ANN401
        """Fold every fetched batch of price changes into its partition."""
        await fold(PRICES, batches)


def _life(app: faust.App, worker: Worker) -> None:
    """Hand the group's and the process's turns of fate to the worker."""

    async def resume_offsets(tps: set[TP]) -> dict[TP, int]:
        return worker.offsets(tps)

    app.transport.resume_offsets = resume_offsets
    app.transport.shorten_deadline = worker.shorten_deadline
    app.transport.instance = worker.settings.instance or None
    app.transport.answer_ms = clients.answer_ms(worker.settings.client)

    @app.on_rebalance_complete.connect  # type: ignore[untyped-decorator]  # Faust has no types
    async def recover(app: faust.App, **_: Any) -> None:  # noqa: ANN401
        try:
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
        if worker.failure is None:
            await worker.close()


def _clockwork(app: faust.App, worker: Worker) -> None:
    """Drive what must happen without events."""

    @app.task  # type: ignore[untyped-decorator]  # Faust has no types
    async def clockwork() -> None:
        """Tick, and now and then tell the group how far we are."""
        beat, ticked_ms = 0, worker.clock()
        while not app.should_stop:
            await asyncio.sleep(TICK_S)
            if not worker.assigned or app.rebalancing:
                continue
            now_ms = worker.clock()
            worker.missed(now_ms - ticked_ms)
            ticked_ms = now_ms
            try:
                await worker.tick(app.consumer)
            except Broken as error:
                await fail(app, worker, error)
                return
            beat += 1
            if beat % round(COMMIT_S / TICK_S) == 0:
                await app.consumer.commit_own(worker.flushed_offsets())


async def fail(app: faust.App, worker: Worker, error: Broken) -> None:
    """Stop the worker, nothing acked since the last flush."""
    worker.fail(error)
    log.error("stopping: %s", error)
    await app.crash(error)
