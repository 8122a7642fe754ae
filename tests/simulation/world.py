"""Kafka in memory, and processes that can die between any two steps of what they write.

`Log` keeps topics with transactions: records take their place when they are put, and are seen by readers of committed
records only once their transaction is. `Process` is a worker with a disk and a consumer of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from faust.types import TP

from schemas.errors import Fenced, FlushFailed
from streams.state.snapshots import Snapshots
from streams.state.store import Store
from streams.worker.environment import Environment
from streams.worker.opening import Opener
from streams.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from streams.kafka.batch import RecordBatch
    from streams.kafka.deadline import Deadline
    from streams.partition.partition import Partition
    from streams.settings import Settings
    from streams.state.flush_record import Flush

Headers = list[tuple[str, bytes | None]]


class Crash(BaseException):
    """A process died here; nothing in it may catch that."""


class Entry(NamedTuple):
    """A record of the log, as confluent-kafka would hand it out."""

    at: int
    name: bytes | None
    data: bytes | None
    headers: Headers

    def key(self) -> bytes | None:
        return self.name

    def value(self) -> bytes | None:
        return self.data

    def offset(self) -> int:
        return self.at


@dataclass
class Transaction:
    """What an owner of an id has put since its last commit: (topic, partition, record), and who it was."""

    puts: list[tuple[str, int, Entry]] = field(default_factory=list)
    owner: OutputProducer | None = None


class Log:
    """All topics. committed: told of every transaction, at the moment from which on it is seen."""

    def __init__(self, committed: Callable[[Transaction], None]) -> None:
        self.committed = committed
        self.visible: dict[tuple[str, int], list[Entry]] = defaultdict(list)
        self.ends: dict[tuple[str, int], int] = defaultdict(int)
        self.owners: dict[str, OutputProducer] = {}
        self.open: dict[str, Transaction] = {}

    def init_transactions(self, name: str, owner: OutputProducer) -> None:
        """Give an id to a new owner; what the last one left open never happened."""
        left = self.open.pop(name, None)
        if left is not None:
            self._mark_end(left)
        self.owners[name] = owner

    def place(self, topic: str, partition: int) -> int:
        """Take the next offset of a topic."""
        self.ends[topic, partition] += 1
        return self.ends[topic, partition] - 1

    def commit(self, name: str) -> None:
        transaction = self.open.pop(name)
        for topic, partition, entry in transaction.puts:
            self.visible[topic, partition].append(entry)
        self._mark_end(transaction)
        self.committed(transaction)

    def _mark_end(self, transaction: Transaction) -> None:
        """Write a marker, which takes an offset, to every partition that a transaction touched."""
        for topic, partition in sorted({(topic, partition) for topic, partition, _ in transaction.puts}):
            self.place(topic, partition)

    def compact(self, topic: str, partition: int, *, tombstones: bool) -> None:
        """Keep the last record of each key, as a broker may at any time; tombstones stay for a while."""
        entries = self.visible[topic, partition]
        last = {entry.name: entry.at for entry in entries}
        self.visible[topic, partition] = [
            e for e in entries if last[e.name] == e.at and not (tombstones and e.data is None)
        ]

    def latest(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """Give what a compacted topic comes down to."""
        found = {entry.name: entry.data for entry in self.visible[topic, partition]}
        return {key: value for key, value in found.items() if key is not None and value is not None}


class OutputProducer:
    """Stands in for streams.kafka.output_producer.OutputProducer.

    Of its process it asks where to die (`point`), what the next commit of a transaction is to do (`plan`), and whether
    a fenced producer hears of it at the next put already, not only when it commits (`eager`).
    """

    def __init__(self, log: Log, process: Process, transactional_id: str | None) -> None:
        self.log, self.process, self.transactional_id = log, process, transactional_id
        self._waiting: list[tuple[str, int, Entry]] = []
        self._marked: int | None = None
        self._mark: int | None = None
        self._spoilt = False

    def init_transactions(self, timeout_s: float, *, meanwhile: Callable[[], None]) -> None:
        assert self.transactional_id is not None
        meanwhile()
        assert timeout_s > 0
        self.process.point("claim")
        if self.process.plan == "refuse_claim":
            self.process.plan = ""
            msg = "the claim got no answer"
            raise FlushFailed(msg)
        self.log.init_transactions(self.transactional_id, self)
        self.process.point("claimed")

    def put(self, topic: str, keys: Sequence[bytes], values: Sequence[bytes | None], partition: int = -1) -> None:
        for key, value in zip(keys, values, strict=True):
            self._one(topic, key, value, [], partition)

    def put_one(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> None:
        self._one(topic, key, value, list(headers), -1)

    def put_marked(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        self._marked = None
        self._mark = self._one(topic, key, value, [], partition)
        self.process.point("finished")

    def _one(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int) -> int:
        self._check(at_put=True)
        place = self.log.place(topic, partition)
        put = topic, partition, Entry(place, key, value, headers)
        if self.transactional_id is None:
            self._waiting.append(put)
        elif self._is_owner:
            self.log.open.setdefault(self.transactional_id, Transaction(owner=self)).puts.append(put)
        return place

    def has_room(self, *, by_s: float) -> bool:
        assert by_s > 0
        self.process.point("room")
        return True

    @property
    def _is_owner(self) -> bool:
        return self.transactional_id is None or self.log.owners.get(self.transactional_id) is self

    def _check(self, *, at_put: bool) -> None:
        assert not self._spoilt, "a producer that failed is used again"
        if not self._is_owner and (self.process.eager or not at_put):
            self._spoilt = True
            self.process.tally["fenced"] += 1
            msg = "another has taken the id over"
            raise Fenced(msg)

    @property
    def marked_offset(self) -> int | None:
        return self._marked

    def begin(self, deadline: Deadline) -> None:
        assert deadline.left_s > 0

    def commit(self) -> int:
        """Commit. By the process's plan it fails instead, `fail_before` without and `fail_after` with a commit."""
        self.process.point("commit")
        self._check(at_put=False)
        name = self.transactional_id
        if name is None:
            count = len(self._waiting)
            self._deliver()
        else:
            count = len(self.log.open[name].puts) if name in self.log.open else 0
            plan, self.process.plan = self.process.plan, ""
            if plan == "fail_before":
                self._fail(plan)
            if name in self.log.open:
                self.log.commit(name)
            if plan == "fail_after":
                self._fail(plan)
        self._marked = self._mark
        self.process.point("committed")
        return count

    def _fail(self, plan: str) -> None:
        self._spoilt = True
        self.process.tally[plan] += 1
        msg = f"no answer ({plan})"
        raise FlushFailed(msg)

    def _deliver(self) -> None:
        for topic, partition, entry in self._waiting:
            self.log.visible[topic, partition].append(entry)
        self._waiting.clear()

    def close(self) -> None:
        self._spoilt = True

    def lose(self) -> None:
        """Die; what was on the way outside of a transaction may arrive all the same."""
        if self.transactional_id is None and len(self._waiting) % 2:
            self._deliver()


class Reader:
    """Stands in for streams.state.changelog.Reader. meanwhile: what others do before the end is known, and after."""

    def __init__(
        self, log: Log, topic: str, partition: int, *, at_once: int, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self._log, self._at, self._at_once = log, (topic, partition), at_once
        self._meanwhile = meanwhile

    def bounds(self) -> tuple[int, int]:
        self._meanwhile()
        end = self._log.ends[self._at]
        self._meanwhile()
        return 0, end

    def records(self, start: int, end: int) -> Iterable[list[Entry]]:
        found = [entry for entry in self._log.visible[self._at] if start <= entry.at < end]
        for low in range(0, len(found), self._at_once):
            yield found[low : low + self._at_once]

    def close(self) -> None:
        pass


class CrashingStore(Store):
    """The real one, whose process may die before and after each of its steps."""

    def __init__(self, path: Path, point: Callable[[str], None]) -> None:
        super().__init__(path)
        self._point, self._is_open = point, True
        self._ingest, self.db.ingest = self.db.ingest, self._ingest_or_die  # type: ignore[method-assign]

    def stage(self, flush: Flush, also: Callable[[bytes, bytes], None] | None = None) -> Callable[[], None]:
        self._point("stage")
        finish = super().stage(flush, also)
        self._point("staged")

        def finish_or_die() -> None:
            self._point("write")
            finish()
            self._point("written")

        return finish_or_die

    def apply(self, latest: Mapping[bytes, bytes | None]) -> None:
        self._point("apply")
        super().apply(latest)
        self._point("applied")

    def _ingest_or_die(self) -> None:
        self._point("ingest")
        self._ingest()
        self._point("ingested")

    def set_position(self, offset: int) -> None:
        self._point("set_position")
        super().set_position(offset)
        self._point("position_set")

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            super().close()


class CrashingFileSystem:
    """A file system for snapshots, whose user may die in between; not by table file, for their number is RocksDB's."""

    def __init__(self, fs: Any, point: Callable[[str], None]) -> None:  # noqa: ANN401 - fsspec has no types
        self._fs, self._point = fs, point

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - likewise
        return getattr(self._fs, name)

    def makedirs(self, *args: Any, **how: Any) -> None:  # noqa: ANN401 - likewise
        self._point("upload")
        self._fs.makedirs(*args, **how)

    def pipe_file(self, *args: Any) -> None:  # noqa: ANN401 - likewise
        self._point("manifest")
        self._fs.pipe_file(*args)
        self._point("snapshot kept")

    def rm_file(self, path: str) -> None:
        if path.endswith(".manifest"):
            self._point("prune")
        self._fs.rm_file(path)


class Openings(Opener):
    """Opens partitions over the simulated log."""

    def __init__(self, process: Process, environment: Environment) -> None:
        self._process = process
        super().__init__(environment)

    def open(self, number: int) -> Partition:
        self._process.point("open")
        partition = super().open(number)
        self._process.opened(number, partition)
        return partition

    def store(self, path: Path) -> Store:
        store = CrashingStore(path, self._process.point)
        self._process.held.append(store)
        return store

    def snapshots(self) -> Snapshots:
        snapshots = Snapshots(self._environment.settings, self._environment.metrics, in_background=False)
        repository = snapshots.repository
        repository.fs = CrashingFileSystem(repository.fs, self._process.point)
        return snapshots

    def _fetch(self, path: Path, number: int) -> bool:
        is_fetched = super()._fetch(path, number)
        self._process.tally["snapshots fetched"] += is_fetched
        return is_fetched

    def producer(self, transactional_id: str | None = None) -> Any:  # noqa: ANN401 - stands in for another class
        made = OutputProducer(self._process.log, self._process, transactional_id)
        self._process.held.append(made)
        return made

    def topic_ids(self, *, fresh: bool = True) -> dict[str, str]:
        return {}

    def reader(self, topic: str, partition: int) -> Any:  # noqa: ANN401 - likewise
        process = self._process
        return Reader(process.log, topic, partition, at_once=7, meanwhile=lambda: process.meanwhile(process, partition))


@dataclass
class Consumer:
    """Where a process reads its inputs, and what it has asked for. ends: of the inputs, as far as they are written."""

    ends: dict[TP, int]
    positions: dict[TP, int] = field(default_factory=dict)
    paused: set[TP] = field(default_factory=set)
    stale: list[RecordBatch] = field(default_factory=list)
    sought: int = 0

    def is_current(self, batch: RecordBatch) -> bool:
        return not any(batch is each for each in self.stale)

    def highwater(self, tp: TP) -> int | None:
        return self.ends[tp]

    def answered_ms(self, tp: TP) -> int | None:
        return 1 << 62  # just now: its brokers answer at once

    def pause(self, tps: Iterable[TP]) -> None:
        self.paused |= set(tps)

    def resume(self, tps: Iterable[TP]) -> None:
        self.paused -= set(tps)

    async def bounds(self, tps: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        return {tp: (0, self.ends[tp]) for tp in tps}

    async def seek_wait(self, offsets: Mapping[TP, int]) -> None:
        self.sought += 1
        self.positions.update(offsets)


@dataclass
class Silence:
    """Brokers that do not answer a flush of a partition. answered: with how that ends, see `OutputProducer.commit`."""

    partition: Partition
    answered: asyncio.Future[str]
    when_shortened: str
    since_ms: int


class Process:
    """A worker, its disk and its consumer.

    watch: told of each partition that opens. meanwhile: told of one that is about to, so that others may act. missed:
    told of one that has waited for its brokers, and for how long.
    doom: at how many more steps it dies; None: it lives.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        log: Log,
        *,
        count: int,
        ends: dict[TP, int],
        clock: Callable[[], int],
        monotonic: Callable[[], int],
        watch: Callable[[Process, int, Partition], None],
        meanwhile: Callable[[Process, int], None] = lambda *_: None,
        missed: Callable[[Process, int, int], None] = lambda *_: None,
        tally: Counter[str],
        eager: bool,
    ) -> None:
        self.name, self.settings, self.log, self.tally, self.eager = name, settings, log, tally, eager
        self.watch, self.meanwhile, self.missed = watch, meanwhile, missed
        self.consumer = Consumer(ends)
        self.held: list[Any] = []
        self.plan = ""
        self.silences: list[Silence] = []
        self.doom: int | None = None
        self.died_at = ""
        self.worker = Worker(
            Environment(settings, None, count, tp=TP, clock=clock, monotonic=monotonic),
            opener=partial(Openings, self),
            run_blocking=self._wait,
        )

    def point(self, where: str) -> None:
        """Die here, if the time has come."""
        if not self.died_at and self.doom is not None:
            self.doom -= 1
            if self.doom <= 0:
                self.died_at = where
                self.tally[f"crash at {where}"] += 1
        if self.died_at:
            raise Crash(where)

    async def _wait(self, call: Callable[[], None]) -> None:
        """Let the brokers answer a flush, at once or when `answer` or `shortened` says; a worker has a thread for it.

        plan: `hang, fail_before` waits, and when its deadline is shortened does `fail_before`.
        """
        what, _, when_shortened = self.plan.partition(", ")
        if what == "hang":
            self.plan = ""
            self.tally["hung"] += 1
            partition: Partition = call.func.__self__  # type: ignore[attr-defined]  # what it waits for is its commit
            answered = asyncio.get_running_loop().create_future()
            silence = Silence(partition, answered, when_shortened, self.worker.environment.monotonic())
            self.silences.append(silence)
            self.plan = await silence.answered
        call()

    def answer(self, silence: Silence, how: str = "") -> None:
        """End a silence."""
        self.silences.remove(silence)
        self.missed(self, silence.partition.number, self.worker.environment.monotonic() - silence.since_ms)
        silence.answered.set_result(how)

    def shortened(self, partition: Partition) -> None:
        """End the silence that a partition waits in; one that takes place later is not concerned."""
        for silence in list(self.silences):
            if partition is silence.partition:
                self.tally["shortened"] += 1
                self.answer(silence, silence.when_shortened)

    def is_silent(self, number: int) -> bool:
        """Whether a partition waits for its brokers."""
        return any(silence.partition.number == number for silence in self.silences)

    def opened(self, number: int, partition: Partition) -> None:
        shorten_deadline = partition.shorten_deadline

        def heard(by_s: float) -> None:
            shorten_deadline(by_s)
            if by_s < math.inf:
                self.shortened(partition)

        partition.shorten_deadline = heard  # type: ignore[method-assign]
        self.watch(self, number, partition)

    async def assign(self, numbers: Iterable[int], generation: int) -> None:
        """Hear from the group, and read on from where the state stands."""
        self.consumer.paused.clear()
        await self.worker.assign(numbers, lambda: generation)
        tps = [TP(topic, number) for number in self.worker.partitions for topic in self.worker.environment.topics]
        self.consumer.positions.update(self.worker.offsets(tps))

    def dead_letter(self) -> None:
        """Let go of what the operating system takes back from the dead: locks, and what was on the wire."""
        self.died_at = self.died_at or "killed"
        for thing in self.held:
            if isinstance(thing, Store):
                thing.close()
            else:
                thing.lose()
        self.worker.partitions.clear()
