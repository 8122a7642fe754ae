"""What goes wrong and when: a timetable that follows from a dice alone, and the class that carries it out."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    import subprocess

    from tests.support.kafka_broker import KafkaBroker
    from tests.support.service import Service

SESSION_TIMEOUT_S: Final = 6.0
EVERY_S: Final = 2.5  # between two troubles, on average
LEAVES_WITHIN_S: Final = 90.0
STARTS_S: Final = 1.5  # an interpreter that is still coming up dies of SIGTERM, with which nothing is wrong
BROKER: Final = "broker"
GUEST: Final = "guest"  # a worker more than there should be, for a while


@dataclass(frozen=True)
class Trouble:
    """Something done to a worker or the broker, and what ends it; weight: how often, beside the others."""

    weight: int
    does: str
    ends: str
    least_s: float
    most_s: float


WORKER: Final = (
    Trouble(5, "kill", "start", 0.0, 3.0),
    Trouble(2, "kill", "start", SESSION_TIMEOUT_S, 2 * SESSION_TIMEOUT_S),
    Trouble(3, "rob", "start", 0.0, 3.0),
    Trouble(5, "stop", "start", 0.0, 2.0),
    Trouble(3, "stop", "start", 5.0, 15.0),  # fewer workers for a while
    Trouble(3, "freeze", "thaw", 0.2, 0.8 * SESSION_TIMEOUT_S),
    Trouble(3, "freeze", "thaw", 1.2 * SESSION_TIMEOUT_S, 2.5 * SESSION_TIMEOUT_S),
)
OTHER: Final = (
    Trouble(2, "kill", "start", 0.0, 3.0),
    Trouble(1, "stop", "start", 1.0, 6.0),
    Trouble(2, "freeze", "thaw", 0.5, 10.0),
)
VISIT: Final = Trouble(3, "start", "stop", 8.0, 20.0)


@dataclass(frozen=True, order=True)
class Step:
    """One thing to do at a moment of the round."""

    at_s: float
    what: str
    who: str


def timetable(dice: random.Random, *, lasts_s: float, workers: list[str]) -> list[Step]:
    """Choose what happens within so many seconds; all is mended by the end of the list, in the order of time."""
    kinds = [*((t, "worker") for t in WORKER), *((t, BROKER) for t in OTHER), (VISIT, GUEST)]
    steps: list[Step] = []
    free_s = dict.fromkeys([*workers, BROKER, GUEST], 0.0)
    at_s = dice.uniform(0, EVERY_S)
    while at_s < lasts_s:
        ((trouble, whom),) = dice.choices(kinds, [trouble.weight for trouble, _ in kinds])
        free = [who for who in (workers if whom == "worker" else [whom]) if free_s[who] <= at_s]
        if free:
            who, over_s = dice.choice(free), at_s + dice.uniform(trouble.least_s, trouble.most_s)
            steps += [Step(at_s, trouble.does, who), Step(over_s, trouble.ends, who)]
            free_s[who] = over_s + dice.uniform(STARTS_S, 4)  # a worker may be hit while it restores
        at_s += dice.expovariate(1 / EVERY_S)
    return sorted(steps)


@dataclass
class FaultInjector:
    """Carries steps out, one at a time."""

    service: Service
    broker: KafkaBroker
    say: Callable[[str], None]
    leaving: dict[str, tuple[subprocess.Popen[bytes], float]] = field(default_factory=dict)

    def follow(self, steps: list[Step]) -> None:
        """Do all of it, with at least the time between steps that the timetable says.

        A worker that ends unasked is an error.
        """
        began_s = time.monotonic()
        late_s = dict.fromkeys((step.who for step in steps), 0.0)  # what came late puts off what follows it
        left = list(steps)
        while left or self.leaving:
            self.look_after()
            passed_s = time.monotonic() - began_s
            due = [step for step in left if step.at_s + late_s[step.who] <= passed_s]
            # who is still leaving is waited for, but not by the others
            step = next((step for step in due if step.who not in self.leaving), None)
            if step is None:
                time.sleep(0.02)
                continue
            left.remove(step)
            late_s[step.who] = passed_s - step.at_s
            self.say(f"{step.at_s:6.1f} s  {step.what} {step.who}")
            if step.who == BROKER:
                self._to_broker(step.what)
            else:
                self._to_worker(step.what, step.who)

    def look_after(self) -> None:
        """Assert that nobody ended unasked, and that who was asked left in order."""
        for name, process in self.service.processes.items():
            assert process.poll() is None, f"worker {name} ended by itself, with {process.returncode}"
        for name, (process, asked_s) in list(self.leaving.items()):
            late = time.monotonic() - asked_s > LEAVES_WITHIN_S
            if late:
                process.kill()
            assert not late, f"worker {name} had not left {LEAVES_WITHIN_S:g} s after SIGTERM"
            if process.poll() is not None:
                del self.leaving[name]
                assert process.returncode == 0, f"worker {name} left with {process.returncode} after SIGTERM"

    def _to_worker(self, what: str, name: str) -> None:
        if what == "start":
            self.service.start(name, wait=False)
        elif what == "stop":
            process = self.service.processes.pop(name)
            process.terminate()
            self.leaving[name] = process, time.monotonic()
        elif what in {"kill", "rob"}:
            self.service.kill(name)
            if what == "rob":
                shutil.rmtree(self.service.state_dir(name), ignore_errors=True)
        else:
            self.service.processes[name].send_signal(_PAUSES[what])

    def _to_broker(self, what: str) -> None:
        if what in _PAUSES:
            os.kill(self.broker.pid, _PAUSES[what])
        else:
            {"start": self.broker.start, "stop": self.broker.stop, "kill": self.broker.kill}[what]()

    def end(self) -> None:
        """Let nobody outlive us who was asked to leave."""
        for process, _ in self.leaving.values():
            process.kill()
            process.wait()


_PAUSES: Final = {"freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}
