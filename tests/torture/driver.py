"""One torture from its beginning to its end: rounds of sending and trouble, each followed by a check."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.hostile import unusable
from tests.support.kafka_broker import KafkaBroker
from tests.support.service import Service, skutrend
from tests.support.shop import (
    HOUR_MS,
    TIMEZONE,
    Tables,
    daily,
    disordered,
    end_of,
    merged,
    misplaced,
    month,
    pulses,
    send,
    sprinkled,
)
from tests.support.workers import wait_for
from tests.torture.checks import Checker, Sent
from tests.torture.trouble import SESSION_TIMEOUT_S, FaultInjector, timetable

DAYS: Final = 28  # of the sample's month, which is one round
ROUND_S: Final = 40.0
PARTITIONS: Final = 8
LATENESS_MS: Final = 3 * HOUR_MS
HOUR_OF_REAL_TIME_MS: Final = 3_600_000
PREFIX: Final = "torture-"


@dataclass(frozen=True)
class Plan:
    """What is asked for; the same plan throws the same dice."""

    seed: int
    minutes: float
    workers: int = 3
    guarantee: str = "exactly_once"

    def __str__(self) -> str:
        """Say how to do it again."""
        return (
            f"python -m tests.torture --minutes {self.minutes:g} --seed {self.seed} --workers {self.workers} "
            f"--guarantee {self.guarantee}"
        )


class TortureError(AssertionError):
    """A promise that was broken, by which plan, and where to look."""

    def __init__(self, plan: Plan, cause: BaseException, folder: Path) -> None:
        super().__init__(
            f"seed {plan.seed}: {type(cause).__name__}: {cause}\n"
            f"  throw the same dice again: {plan}\n"
            f"  logs, state directories and Kafka's data: {folder}"
        )


def torture(plan: Plan, say: Callable[[str], None]) -> None:
    """Go through a plan; `TortureError` when a promise was broken, and then everything is left on the disk."""
    folder = Path(tempfile.mkdtemp(prefix=f"skutrend-torture-{plan.seed}-"))
    try:
        (folder / "kafka").mkdir()
        with KafkaBroker(directory=folder / "kafka") as kafka:
            _Torture(plan, folder, kafka, say).run()
    except Exception as error:
        raise TortureError(plan, error, folder) from error
    shutil.rmtree(folder)


class _Torture:
    def __init__(self, plan: Plan, folder: Path, kafka: KafkaBroker, say: Callable[[str], None]) -> None:
        self.plan, self.kafka, self.say = plan, kafka, say
        self.dice = random.Random(plan.seed)  # noqa: S311  # reproducible, not secret
        self.names = [f"w{number}" for number in range(plan.workers)]
        self.settings: dict[str, Any] = {
            "brokers": kafka.bootstrap,
            "group": "torture",
            "topic_prefix": PREFIX,
            "timezone": TIMEZONE,
            "bundle": "none",
            "guarantee": plan.guarantee,
            "allowed_lateness_ms": LATENESS_MS,
            "flush_interval_ms": 100,
            "session_timeout_ms": int(1000 * SESSION_TIMEOUT_S),
            # event time runs 60,000 times too fast here: what a dead broker holds up is not silence
            "idle_timeout_ms": HOUR_OF_REAL_TIME_MS,
        }
        self.sample = month()
        self.sent = Sent()
        self.service = Service(self.settings, folder, apart=True)
        self.faults = FaultInjector(self.service, kafka, say)
        self.checker = Checker(kafka, PREFIX, self.sent, may_repeat=plan.guarantee == "at_least_once")

    def run(self) -> None:
        skutrend("topics", "create", "--partitions", str(PARTITIONS), settings=self.settings)
        rounds = max(1, round(60 * self.plan.minutes / ROUND_S))
        with self.service, ThreadPoolExecutor(1) as pool:
            try:
                for name in self.names:
                    self.service.start(name, wait=False)
                self.service.await_ready(self.names[:PARTITIONS])
                closed_ms = 0
                for number in range(rounds):
                    closed_ms = self._round(number, 60 * self.plan.minutes / rounds, closed_ms, pool)
                self._end()
            finally:
                self.faults.end()

    def _round(self, number: int, lasts_s: float, closed_ms: int, pool: ThreadPoolExecutor) -> int:
        """Send a month while things go wrong, then compare; returns up to where windows have closed."""
        tables = shifted(self.sample, round_number=number)
        end_ms = end_of(tables)
        tables = merged(tables, pulses(PARTITIONS, daily(tables)))
        hostile = [*unusable(), misplaced(PARTITIONS)]
        seed = self.dice.randrange(1 << 32)
        records = sprinkled(disordered(tables, by_ms=2 * HOUR_MS, duplicates=0.01, seed=seed), hostile)
        steps = timetable(self.dice, lasts_s=lasts_s, workers=self.names)
        self.say(f"round {number}: {len(records):,} records over {lasts_s:.0f} s, {len(steps)} steps")
        sending = pool.submit(send, self.kafka, PREFIX, records, over_s=lasts_s)
        self.faults.follow(steps)
        closing = pulses(PARTITIONS, [end_ms + LATENESS_MS + HOUR_MS])
        self.sent.records += sending.result() + send(self.kafka, PREFIX, disordered(closing, by_ms=0, duplicates=0.0))
        self.sent.parts += [tables, closing]
        self.sent.hostile += hostile
        began_s = time.monotonic()
        count = self.checker.windows(from_ms=closed_ms, until_ms=end_ms, tended=self.faults.look_after)
        self.checker.letters()
        self.say(f"round {number}: {count:,} windows as they should be, {time.monotonic() - began_s:.0f} s")
        return end_ms

    def _end(self) -> None:
        """Let the workers leave one after the other; the last one then has all partitions, and its state is checked."""
        *others, last = self.names
        for name in others:
            self.service.stop(name)
        self.service.await_all_partitions({last: self.service.processes[last]}, PARTITIONS)
        wait_for(lambda: self.service.total("skutrend_lag") == 0, within_s=60)
        self.service.stop(last)
        if self.checker.may_repeat:
            self.say(f"{self.checker.repeated:,} windows were published again, and said the same")
        self.say(self.checker.conservation(self.settings, self.service.state_dir(last), PARTITIONS))


def shifted(tables: Tables, *, round_number: int) -> Tables:
    """Return the same events so many months later, under ids of their own."""
    return {
        kind: table.assign(
            event_id=table.event_id + f"~{round_number}",
            event_time_ms=table.event_time_ms + round_number * DAYS * 24 * HOUR_MS,
        )
        for kind, table in tables.items()
    }
