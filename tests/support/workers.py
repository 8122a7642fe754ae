"""Runs counting workers as child processes and reads what they counted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import msgspec

from tests.support.counting_worker import TOPICS, Folded, Job
from tests.support.kafka_broker import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Tp = tuple[str, int]


def wait_for(what: Callable[[], Any], *, within_s: float, told: Callable[[], object] = str) -> Any:  # noqa: ANN401
    """Ask again and again until the answer is truthy, and return it; fails with what `told` tells."""
    deadline = time.monotonic() + within_s
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {told()}"
        time.sleep(0.05)
    return answer


@dataclass
class Crew:
    """Workers of one group over one shared folder; none outlives the `with`."""

    broker: str
    prefix: str
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def start(self, name: str, **wishes: Any) -> None:  # noqa: ANN401  # fields of Job
        job = Job(name=name, brokers=[self.broker], prefix=self.prefix, folder=str(self.folder), **wishes)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, "-m", "tests.support.counting_worker", msgspec.json.encode(job).decode()],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def stop(self, name: str) -> int:
        """Ask a worker to end, as an orchestrator does; returns its exit code."""
        self.processes[name].send_signal(signal.SIGTERM)
        return self.processes.pop(name).wait(timeout=30)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        (self.folder / f"worker-{name}.json").unlink(missing_ok=True)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def counts(self) -> dict[Tp, Folded]:
        found: dict[Tp, Folded] = {}
        for topic in TOPICS:
            for path in self.folder.glob(f"{self.prefix}{topic}-*.json"):
                found[topic, int(path.stem.rpartition("-")[2])] = msgspec.json.decode(path.read_bytes(), type=Folded)
        return found

    def rows(self) -> int:
        return sum(each.rows for each in self.counts().values())

    def held(self, name: str) -> set[Tp]:
        path = self.folder / f"worker-{name}.json"
        if not path.exists():
            return set()
        return {
            (topic.removeprefix(self.prefix), number)
            for topic, number in msgspec.json.decode(path.read_bytes())["held"]
        }
