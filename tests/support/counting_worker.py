"""A worker in miniature, run as a child process: counts the records of three topics and remembers how far it came.

It follows the three rules of streams/kafka/transport.py. What it folded of a partition lies in one file of the shared folder,
replaced at once as a whole, as the real worker's flush does; the test adds the files up.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streams.kafka.faust_app import batch_topic, build_app, run

if TYPE_CHECKING:
    from faust.types import TP

    from streams.kafka.batch import RecordBatch

TOPICS = ("orders", "clicks", "price-changes")


class Job(msgspec.Struct, kw_only=True):
    """What the test wants of this worker; one JSON argument on the command line."""

    name: str
    brokers: list[str]
    prefix: str
    folder: str
    toggle: bool = False  # pause and resume at random, many times a second
    fold_s: float = 0.0  # how long an agent takes over a batch
    poison: str | None = None  # a value at which the agent raises


class Folded(msgspec.Struct):
    """What was counted of one partition."""

    next: int | None = None
    rows: int = 0
    no_key: int = 0
    tombstones: int = 0
    with_headers: int = 0
    offset_sum: int = 0
    refused: int = 0

    def add(self, batch: RecordBatch) -> None:
        self.next = batch.next
        self.rows += len(batch)
        self.no_key += batch.keys.count(None)
        self.tombstones += batch.values.count(None)
        self.with_headers += len(batch.headers)
        self.offset_sum += sum(batch.offsets)


def write(path: Path, what: object) -> None:
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(msgspec.json.encode(what))
    part.replace(path)


class Counter:
    """Folds batches, and moves its counts to and from the folder."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = Path(job.folder)
        self.states: dict[TP, Folded] = {}
        self.app = build_app(
            group=f"{job.prefix}group", brokers=job.brokers, client={}, datadir=self.folder, session_timeout_ms=6_000
        )
        self.app.transport.resume_offsets = self.own_offsets
        self.app.on_rebalance_complete.connect(self.recover)
        self.app.on_partitions_revoked.connect(self.flush)
        self.app.on_before_shutdown.connect(self.flush)
        for topic in TOPICS:
            self.app.agent(batch_topic(self.app, job.prefix + topic), name=topic, concurrency=1)(self.fold)
        if job.toggle:
            self.app.task()(self.toggle)
        self.app.timer(0.3)(self.flush)

    def path(self, tp: TP) -> Path:
        return self.folder / f"{tp.topic}-{tp.partition}.json"

    async def recover(self, *_: Any, **__: Any) -> None:  # noqa: ANN401  # a Faust signal's
        self.states.clear()
        held = sorted(self.app.consumer.assignment())
        for tp in held:
            path = self.path(tp)
            self.states[tp] = msgspec.json.decode(path.read_bytes(), type=Folded) if path.exists() else Folded()
        generation = self.app.consumer_generation_id
        write(self.folder / f"worker-{self.job.name}.json", {"generation": generation, "held": held})

    async def own_offsets(self, tps: set[TP]) -> dict[TP, int]:
        return {tp: at for tp in tps if (at := self.states[tp].next) is not None}

    async def flush(self, *_: Any, **__: Any) -> None:  # noqa: ANN401  # a Faust signal's
        for tp, state in self.states.items():
            write(self.path(tp), state)
        if not self.app.rebalancing and not self.app.should_stop:
            await self.app.consumer.commit_own({tp: at for tp, s in self.states.items() if (at := s.next) is not None})

    async def fold(self, stream: Any) -> None:  # noqa: ANN401  # Faust's types are not read
        consumer = self.app.consumer
        async for event in stream.noack().events():
            batch: RecordBatch = event.value
            if self.job.fold_s:
                await asyncio.sleep(self.job.fold_s)
            if self.job.poison is not None and self.job.poison.encode() in batch.values:
                msg = "the agent met the poison"
                raise ValueError(msg)
            state = self.states.get(event.message.tp)
            if state is not None and consumer.is_current(batch):
                if state.next is None or batch.start == state.next:
                    state.add(batch)
                else:
                    state.refused += 1
                    await consumer.seek_wait({event.message.tp: state.next})
            event.ack()

    async def toggle(self) -> None:
        dice = random.Random(7)  # noqa: S311  # reproducible, not secret
        while not self.app.should_stop:
            consumer, held = self.app.consumer, sorted(self.states)
            some = {tp for tp in held if dice.random() < 0.5}
            consumer.pause(some)
            await asyncio.sleep(0.004)
            consumer.resume(some)
            await asyncio.sleep(0.002)


if __name__ == "__main__":
    run(Counter(msgspec.json.decode(sys.argv[1], type=Job)).app)
