"""What happens, and when: all of it follows from one integer.

A step is one of: records are written, delivered, delivered again; time passes, or the time of day is set; a worker
ticks, flushes, dies at its n-th step from now, is told of a rebalance or is not; a flush gets no answer, or none for
now; the changelog is compacted; a disk is lost.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import msgspec
from faust.types import TP

from features import cadence
from schemas.errors import Fenced, FlushFailed
from streams.settings import Settings
from streams.state.keys import META
from streams.state.meta import Meta
from streams.state.store import Store
from tests.simulation import checks
from tests.simulation.checks import require
from tests.simulation.inputs import Inputs, batch_of
from tests.simulation.loop import VirtualLoop
from tests.simulation.oracle import IDLE_MS, INPUTS, LATENESS_MS, MAX_AHEAD_MS, WINDOW_MS, Oracle
from tests.simulation.world import Crash, Log, Process, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from streams.partition.partition import Partition

START_MS: Final = 1_700_000_000_000 // WINDOW_MS * WINDOW_MS
FLUSH_MS: Final = 1_000
SESSION_MS: Final = 10_000
# how often a step of each kind is taken, in a run in which it is taken at all
WEIGHTS: Final = {
    "write": 24,
    "deliver": 60,
    "clock": 16,
    "tick": 16,
    "flush": 8,
    "doom": 6,
    "silence": 4,
    "hang": 6,
    "answer": 10,
    "rebalance": 5,
    "again": 4,
    "compact": 2,
    "lose_disk": 2,
    "set_clock": 3,
}
FAULTS: Final = ("doom", "silence", "hang", "rebalance", "again", "compact", "lose_disk", "set_clock")
LIMITS: Final = (
    "streams.partition.capture.BULK_ROWS",
    "streams.partition.capture.PACK_ROWS",
    "streams.state.recovery.SPILL_BYTES",
)
JUMPS_MS: Final = (1, 300, 1_000, 1_000, 5_000, 20_000, IDLE_MS, WINDOW_MS // 2, 2 * WINDOW_MS + 1)
SKEWS_MS: Final = (-3 * WINDOW_MS, -WINDOW_MS, -20_000, 0, 0, 20_000, WINDOW_MS, 3 * WINDOW_MS)


@dataclass(frozen=True)
class Undone:
    """What a process has begun. source: the input whose batch it is about.

    then: what follows once it is done; told whether it was held up meanwhile.
    """

    process: Process
    task: asyncio.Future[Any]
    then: Callable[[bool], None]
    source: int | None = None


def nothing(_: bool) -> None:
    """Follow with nothing."""


class Simulation:
    """One run. tally: what has happened in it, to see afterwards that all of it did. trace: the steps, in words."""

    def __init__(self, seed: int, folder: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
        self.dice = dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.folder, self._say = folder, say
        self.tally: Counter[str] = Counter()
        self.trace: list[str] = []
        self.now_ms = START_MS + dice.randrange(WINDOW_MS)  # the time of day, which may be set
        self.up_ms = dice.randrange(WINDOW_MS)  # the time since something, which only passes
        self.skew_ms = 0
        self.count = dice.choice([2, 3])
        self.exactly_once = dice.random() < 0.8
        self.eager = dice.random() < 0.5
        self.silent = dice.choice(["publish", "publish", "skip"])
        self.within_ms = dice.choice([0, WINDOW_MS, 3 * WINDOW_MS, 100 * WINDOW_MS])
        self.keeps_snapshots = dice.random() < 0.5
        self.small = dice.random() < 0.5  # whether what is for many rows is done for few
        self.weights = {
            name: weight * (dice.choice([0, 1, 1, 3]) if name in FAULTS else 1) for name, weight in WEIGHTS.items()
        }
        self.inputs = Inputs(dice, partitions=self.count)
        self.ends = {TP(INPUTS[source], p): 0 for p, source in self.inputs.ends}
        self.log = Log(self._committed)
        self.committed = {
            p: Oracle(p, self.inputs.at_home[p], skips_silence=self.silent == "skip", within_ms=self.within_ms)
            for p in range(self.count)
        }
        self.owed: Counter[Any] = Counter()  # outputs that must be there
        self.loop = VirtualLoop()
        self.undone: list[Undone] = []
        self.thread = ThreadPoolExecutor(1)  # partitions open one after the other, always in the same order
        self.loop.set_default_executor(self.thread)
        self.generation = 0
        self.oracles: dict[tuple[Process, int], Oracle] = {}
        self.processes = {name: self._process(name) for name in "ABC"[: dice.choice([2, 2, 3])]}
        self.dead: set[str] = set()
        self.note(
            f"{self.count} partitions, {len(self.processes)} workers, "
            f"{'exactly_once' if self.exactly_once else 'at_least_once'}, silent windows: {self.silent}, "
            f"corrected within {self.within_ms} ms, "
            f"{'snapshots' if self.keeps_snapshots else 'no snapshots'}, "
            f"{'small' if self.small else 'large'} limits, fenced {'at once' if self.eager else 'at the next commit'}"
        )

    def note(self, what: str) -> None:
        self.trace.append(what)
        self._say(what)

    def settings_of(self, name: str) -> Settings:
        return Settings(
            state_dir=str(self.folder / name),
            window_ms=WINDOW_MS,
            allowed_lateness_ms=LATENESS_MS,
            correct_within_ms=self.within_ms,
            max_ahead_ms=MAX_AHEAD_MS,
            idle_timeout_ms=IDLE_MS,
            alignment_ms=2 * WINDOW_MS,
            flush_interval_ms=FLUSH_MS,
            session_timeout_ms=SESSION_MS,
            bundle="none",
            guarantee="exactly_once" if self.exactly_once else "at_least_once",
            silent_windows=self.silent,
            personal="keep",  # letters are told apart by their values
            snapshot_dir=str(self.folder / "snapshots") if self.keeps_snapshots else "",
            snapshot_interval_ms=FLUSH_MS,
        )

    def _process(self, name: str) -> Process:
        return Process(
            name,
            self.settings_of(name),
            self.log,
            count=self.count,
            ends=self.ends,
            clock=lambda: self.now_ms,
            monotonic=lambda: self.up_ms,
            watch=self._opened,
            meanwhile=self._meanwhile,
            missed=self._missed,
            tally=self.tally,
            eager=self.eager,
        )

    def path(self, name: str, number: int) -> Path:
        settings = self.settings_of(name)
        return settings.partition_dir(number)

    # ------------------------------------------------------------------ what the world is told
    def _opened(self, process: Process, number: int, partition: Partition) -> None:
        """A partition begins a new life: with what was committed, nothing less and nothing more."""
        oracle = self.committed[number].reborn()
        checks.compare(partition, oracle)
        self.oracles[process, number] = oracle
        self.tally["opened"] += 1
        self.note(f"       {process.name} has opened {number} at {partition.meta.offsets}")

    def _meanwhile(self, process: Process, number: int) -> None:
        """While one reads the changelog, another that thinks it owns the partition tries to add to it."""
        others = [
            p
            for p in self.alive
            if p is not process
            and number in p.worker.partitions
            and p.doom is None
            and not p.silences
            and not p.plan.startswith("hang")
        ]
        if others and self.dice.random() < 0.3:
            other = self.dice.choice(others)
            self.note(f"       {other.name} flushes while {process.name} opens {number}")
            self.tally["flush of a zombie"] += 1
            asyncio.run_coroutine_threadsafe(other.worker.flush(), self.loop).result()

    def _missed(self, process: Process, number: int, for_ms: int) -> None:
        """A partition has waited so long for its brokers, and could not listen."""
        oracle = self.oracles.get((process, number))
        if oracle is not None:
            oracle.missed(for_ms)

    def _committed(self, transaction: Transaction) -> None:
        """A transaction is seen: it must be the next one of its partition, and say what is to be said."""
        owner = transaction.owner
        require(owner is not None, "a transaction has an owner")
        (number,) = {p for _, p, _ in transaction.puts if p >= 0} or {-1}
        metas = [entry.data for _, p, entry in transaction.puts if p >= 0 and entry.name == META]
        require(len(metas) == 1, f"a transaction holds {len(metas)} meta records")
        meta = msgspec.msgpack.decode(metas[0] or b"", type=Meta)
        oracle = self.oracles[owner.process, number]
        while oracle.closed < meta.windows_closed:
            require(oracle.close_next(), f"window {oracle.first_open} of {number} is closed before its time")
        oracle.tell_corrected()
        base = self.committed[number].commits
        require(oracle.commits == base, f"a life of {number} that began before commit {base} has committed")
        checks.compare_meta(meta, oracle)
        outputs = [checks.heard(topic, entry) for topic, p, entry in transaction.puts if p < 0]
        said = [checks.expected(each) for each in oracle.said]
        if self.exactly_once:
            checks.same(outputs, said, f"outputs of flush {meta.sequence} of {number}")
        else:
            require(not outputs, "outputs in the transaction of the changelog")
            checks.none_missing(self.log, said)
        self.owed.update(said)
        oracle.commits += 1
        oracle.said.clear()
        self.committed[number] = oracle.copy()
        self.tally["commits"] += 1
        self.note(f"       {owner.process.name} has committed flush {meta.sequence} of {number}, {len(said)} outputs")

    def _lags(self, process: Process, oracle: Oracle) -> dict[int, bool | None]:
        tps = {source: TP(topic, oracle.number) for source, topic in enumerate(INPUTS)}
        return {
            source: None if tp in process.consumer.paused else self.ends[tp] > oracle.offsets.get(source, 0)
            for source, tp in tps.items()
        }

    # ------------------------------------------------------------------ a run
    def run(self, steps: int) -> None:
        """Take so many steps, then let everything come to its end, and compare."""
        tags = random.Random(0)  # noqa: S311 - of the owners of snapshots, which the dice must not notice
        with ExitStack() as stack:
            stack.callback(self.close)
            stack.enter_context(
                mock.patch(
                    "streams.state.snapshots.uuid.uuid4", side_effect=lambda: uuid.UUID(int=tags.getrandbits(128))
                )
            )
            if self.small:
                for name in LIMITS:
                    stack.enter_context(mock.patch(name, 2))
                young = {name: replace(getattr(cadence, name), mature_after=2) for name in ("HOUR", "DAY")}
                stack.enter_context(mock.patch.multiple(cadence, **young))
            self.rebalance(everybody=True)
            names, weights = list(self.weights), list(self.weights.values())
            for _ in range(steps):
                getattr(self, self.dice.choices(names, weights)[0])()
                self.check()
            self.finish()
            checks.at_the_end(self)

    def close(self) -> None:
        for process in self.processes.values():
            process.dead_letter()
        self.thread.shutdown()
        self.loop.close()

    def check(self) -> None:
        for (process, number), oracle in self.oracles.items():
            partition = process.worker.partitions.get(number)
            if partition is not None and not process.is_silent(number):
                checks.compare(partition, oracle)

    def do(
        self,
        process: Process,
        work: Coroutine[Any, Any, None],
        then: Callable[[bool], None] = nothing,
        *,
        source: int | None = None,
    ) -> bool:
        """Let a process begin something, and everything go on as far as it gets; whether it has survived that."""
        begun = Undone(process, self.loop.create_task(work), then, source)
        self.undone.append(begun)
        self._go_on(begun)
        return process in self.alive

    def _go_on(self, begun: Undone | None = None) -> None:
        self.loop.rest()
        for each in [each for each in self.undone if each.task.done()]:
            if each not in self.undone:  # its process has died of another
                continue
            self.undone.remove(each)
            error = each.task.exception()
            if isinstance(error, Crash):
                self._die(each.process)
            elif error is not None:
                raise error
            else:
                each.then(each is not begun)

    def _die(self, process: Process) -> None:
        process.died_at = process.died_at or "killed"
        mourned = [each.task for each in self.undone if each.process is process]
        self.undone = [each for each in self.undone if each.process is not process]
        for silence in list(process.silences):
            process.answer(silence)
        self.loop.rest()
        for task in mourned:
            if task.done():
                task.exception()  # is known
        self.thread.submit(int).result()  # what was being opened has met its end as well
        process.dead_letter()
        self.note(f"       {process.name} has died at {process.died_at!r}")
        self.dead.add(process.name)
        for key in [key for key in self.oracles if key[0] is process]:
            del self.oracles[key]

    @property
    def alive(self) -> list[Process]:
        return [process for name, process in self.processes.items() if name not in self.dead]

    def _busy(self, process: Process) -> set[str]:
        """Topics whose agent has a batch in hand."""
        return {INPUTS[each.source] for each in self.undone if each.process is process and each.source is not None}

    def _any(self) -> Process | None:
        return self.dice.choice(self.alive) if self.alive else None

    # ------------------------------------------------------------------ steps
    def write(self) -> None:
        p, source = self.dice.choice(list(self.inputs.ends))
        self._write(p, source, self.dice.choice([1, 5, 20]))

    def _write(self, p: int, source: int, count: int) -> None:
        self.inputs.write(p, source, count, now_ms=self.now_ms)
        self.ends[TP(INPUTS[source], p)] = self.inputs.ends[p, source]
        self.note(f"write {count} to {INPUTS[source]}[{p}], up to {self.inputs.ends[p, source]}")

    def deliver(self) -> None:
        """Let a consumer hand the next records over."""
        choices = [
            (process, tp)
            for process in self.alive
            for tp, position in process.consumer.positions.items()
            if position < self.ends[tp] and tp not in process.consumer.paused and tp.topic not in self._busy(process)
        ]
        if not choices:
            self.write()
            return
        process, tp = self.dice.choice(choices)
        self._deliver(process, tp, self.dice.choice([1, 3, 10, 40]))

    def _deliver(self, process: Process, tp: TP, count: int) -> None:
        start = process.consumer.positions[tp]
        following = min(start + count, self.ends[tp])
        process.consumer.positions[tp] = following
        self._hand(process, tp, start, following)

    def _hand(self, process: Process, tp: TP, start: int, following: int, *, stale: bool = False) -> None:
        """Hand a batch to a worker, which may or may not be waiting for this one."""
        source, number = INPUTS.index(tp.topic), tp.partition
        records = self.inputs.between(number, source, start, following)
        batch = batch_of(number, source, start, following, records)
        if stale:
            process.consumer.stale.append(batch)
        oracle = self.oracles.get((process, number)) if number in process.worker.partitions else None
        comes_early = process.is_silent(number) or process.worker.inputs.is_put_off(batch)
        takes = oracle is not None and not stale and not comes_early and oracle.offsets.get(source, 0) == start
        self.note(
            f"{process.name} gets {tp.topic}[{number}] {start}..{following}"
            f"{'' if takes else ' (which it must not take)'}"
        )
        if oracle is not None and takes:
            oracle.take(source, records, following, now_ms=self.now_ms, up_ms=self.up_ms)
        elif oracle is not None:
            why = "put off" if comes_early else "refused as stale" if stale else "refused by offset"
            self.tally[why] += 1
        then = partial(self._close_all, process, oracle) if oracle is not None and takes else nothing
        self.do(process, process.worker.take(source, batch, process.consumer), then, source=source)

    def _close_all(self, process: Process, oracle: Oracle, held_up: bool) -> None:
        """Close what is due; a partition whose hand is wanted may leave some of that to whoever comes next."""
        partition = process.worker.partitions.get(oracle.number)
        if partition is None or self.oracles.get((process, oracle.number)) is not oracle:
            return
        while (not held_up or oracle.closed < partition.meta.windows_closed) and oracle.close_next():
            self.tally["windows closed"] += 1

    def again(self) -> None:
        """Hand over what is not the next: old batches, overlapping ones, ones from too far ahead."""
        process = self._any()
        if process is None or not process.consumer.positions:
            return
        tp = self.dice.choice(list(process.consumer.positions))
        if tp.topic in self._busy(process):
            return
        stale = self.dice.random() < 0.3
        oracle = self.oracles.get((process, tp.partition))
        expected = oracle.offsets.get(INPUTS.index(tp.topic), 0) if oracle else 0
        start = self.dice.randint(max(0, expected - 10), expected + 3)
        if expected in (0, start) or start >= self.ends[tp]:  # from 0 on anything is the next
            start, stale = expected, True
        following = min(start + self.dice.choice([1, 5, 20]), self.ends[tp])
        if following > start:
            self._hand(process, tp, start, following, stale=stale)

    def clock(self) -> None:
        jump_ms = self.dice.choice(JUMPS_MS)
        self._pass(jump_ms)
        self.note(f"{jump_ms} ms pass")

    def _pass(self, ms: int) -> None:
        self.now_ms += ms
        self.up_ms += ms

    def set_clock(self) -> None:
        """Let somebody put the time of day forward or back, by up to hours; the shop's clock goes with it."""
        self._set_clock(self.dice.choice(SKEWS_MS))

    def _set_clock(self, skew_ms: int) -> None:
        self.note(f"the clock is set by {skew_ms - self.skew_ms} ms")
        self.tally["clock set"] += skew_ms != self.skew_ms
        self.now_ms += skew_ms - self.skew_ms
        self.skew_ms = skew_ms

    def tick(self) -> None:
        process = self._any()
        if process is not None and process.worker.assignment.is_restored:
            self._tick(process)

    def _tick(self, process: Process) -> None:
        self.note(f"{process.name} ticks")
        tended = [
            oracle
            for (each, number), oracle in self.oracles.items()
            if each is process and number in process.worker.partitions and not process.is_silent(number)
        ]
        for oracle in tended:
            oracle.tick(self._lags(process, oracle), now_ms=self.now_ms, up_ms=self.up_ms)
        self.do(process, process.worker.tick(process.consumer), partial(self._ticked, process, tended))

    def _ticked(self, process: Process, tended: list[Oracle], held_up: bool) -> None:
        """Follow the tasks of a tick; those that go on are followed once they have ended."""
        for oracle in tended:
            task = process.worker.locks.running_task(oracle.number)
            if task is None:
                self._close_all(process, oracle, held_up)
            else:
                self.undone.append(Undone(process, task, partial(self._close_all, process, oracle)))

    def flush(self) -> None:
        process = self._any()
        if process is not None:
            self.note(f"{process.name} flushes")
            self._flush(process)

    def _flush(self, process: Process) -> bool:
        return self.do(process, process.worker.flush())

    def doom(self) -> None:
        """Let a process die at one of its next steps, or at once; what is dead comes back."""
        if self.dead and (len(self.dead) == len(self.processes) or self.dice.random() < 0.5):
            self._restart(self.dice.choice(sorted(self.dead)))
            return
        process = self._any()
        if process is None:
            return
        if self.dice.random() < 0.2:
            self.note(f"{process.name} is killed")
            self.tally["killed"] += 1
            self._die(process)
            return
        process.doom = self.dice.randint(1, 20)
        self.note(f"{process.name} will die at step {process.doom} from here")
        if self.dice.random() < 0.7:
            self._pass(FLUSH_MS)
            self._flush(process)

    def _restart(self, name: str) -> None:
        self.dead.discard(name)
        if self.dice.random() < 0.3:
            self._lose(name)
        self.processes[name] = self._process(name)
        self.note(f"{name} is started")
        self.rebalance()

    def silence(self) -> None:
        """Let the next commit or claim get no answer."""
        process = self._any()
        if process is not None:
            process.plan = self.dice.choice(["fail_before", "fail_after", "refuse_claim"])
            self.note(f"{process.name}: {process.plan} next")
            if self.dice.random() < 0.5:
                self._flush(process)

    def hang(self) -> None:
        """Let the next flush wait for its brokers, until they answer or its deadline is shortened."""
        process = self._any()
        if process is not None:
            process.plan = f"hang, {self.dice.choice(['', 'fail_before', 'fail_after'])}"
            self.note(f"{process.name}: {process.plan} next")

    def answer(self) -> None:
        """Let brokers answer that kept somebody waiting."""
        waiting = [(process, silence) for process in self.alive for silence in process.silences]
        if waiting:
            process, silence = self.dice.choice(waiting)
            how = self.dice.choice(["", "", "fail_before", "fail_after"])
            self.note(f"{process.name} gets an answer for {silence.partition.number}: {how or 'done'}")
            process.answer(silence, how)
            self._go_on()

    def rebalance(self, *, everybody: bool = False) -> None:
        """Give partitions to workers; who does not hear of it is a zombie until it hears of a later one."""
        told = [process for process in self.alive if everybody or self.dice.random() < 0.8]
        if not told:
            return
        self.generation += 1
        homes = {number: self.dice.choice(told) for number in range(self.count)}
        if not everybody and self.dice.random() < 0.3:  # nothing moves but the generation
            for process in told:
                homes |= dict.fromkeys(process.worker.assignment.owned, process)
        self.dice.shuffle(told)
        deaf = [process.name for process in self.alive if process not in told]
        self.tally["zombies"] += sum(bool(p.worker.partitions) for p in self.alive if p not in told)
        self.note(
            f"generation {self.generation}: { {n: p.name for n, p in homes.items()} }"
            f"{f', unheard by {deaf}' if deaf else ''}"
        )
        for process in list(told):
            if self.dice.random() < 0.7 and not self._flush(process):
                told.remove(process)
        for process in told:
            numbers = {number for number, home in homes.items() if home is process}
            self.tally["moved"] += len(numbers - process.worker.assignment.owned)
            self.do(process, process.assign(numbers, self.generation))

    def compact(self) -> None:
        number = self.dice.randrange(self.count)
        tombstones = self.dice.random() < 0.3
        self.log.compact(self.changelog, number, tombstones=tombstones)
        self.tally["compacted"] += 1
        self.note(f"changelog {number} is compacted{', tombstones too' if tombstones else ''}")

    @property
    def changelog(self) -> str:
        return self.settings_of("A").changelog_topic

    def lose_disk(self) -> None:
        """Lose the copies of the state that nobody has open."""
        self._lose(self.dice.choice(list(self.processes)))
        if self.dice.random() < 0.5:
            self._harm_snapshot()

    def _harm_snapshot(self) -> None:
        """Cut a file of a snapshot short, or take it away."""
        files = sorted(
            path for kind in ("CURRENT", ".manifest") for path in self.folder.glob(f"snapshots/*/*/*/*{kind}")
        )
        if files:
            path = self.dice.choice(files)
            self.note(f"snapshot file {path.name} is damaged")
            self.tally["snapshots damaged"] += 1
            if self.dice.random() < 0.5:
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[:-1])

    def _lose(self, name: str) -> None:
        held = self.processes[name].worker.partitions if name not in self.dead else {}
        lost = [n for n in range(self.count) if n not in held and self.path(name, n).exists()]
        for number in lost:
            Store.destroy(self.path(name, number))
            self.tally["disks lost"] += 1
        self.note(f"{name} loses its disk: {lost}")

    # ------------------------------------------------------------------ the end
    def finish(self) -> None:
        """Without further faults: read everything, let all windows close, flush."""
        self.note("no more faults")
        self._set_clock(0)
        for process in self.alive:
            process.doom, process.plan = None, ""
            for silence in list(process.silences):
                process.answer(silence)
        self._go_on()
        for name in sorted(self.dead):
            self.dead.discard(name)
            self.processes[name] = self._process(name)
        self.rebalance(everybody=True)
        for times in range(60):
            self._pass(FLUSH_MS if times < 20 else IDLE_MS // 10)  # until those that lost a partition try again
            for process in self.alive:
                self._tick(process)
                for tp in list(process.consumer.positions):
                    if process.consumer.positions[tp] < self.ends[tp] and tp not in process.consumer.paused:
                        self._deliver(process, tp, 200)
                        self.check()
            if self._is_read():
                break
        require(self._is_read(), "inputs are not read to their end in due time")
        # a paused input is idle only when it has been resumed, and the others with it
        for pause_ms in (8 * WINDOW_MS, IDLE_MS, IDLE_MS, IDLE_MS, FLUSH_MS):
            self._pass(pause_ms)
            for process in self.alive:
                self._tick(process)
                self.check()
        for process in self.alive:
            try:
                self._flush(process)
            except (Fenced, FlushFailed) as error:
                require(False, f"the last flush of {process.name} fails: {error}")
        self.check()

    def _is_read(self) -> bool:
        owners = {number: process for process in self.alive for number in process.worker.partitions}
        return len(owners) == self.count and all(
            owners[tp.partition].worker.partitions[tp.partition].next_offset(tp.topic) == end
            for tp, end in self.ends.items()
        )
