"""Run one seed, and say how to see it again when it fails."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.simulation.schedule import Simulation

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

STEPS: Final = 90
_LAST_STEPS: Final = 12
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a disk in memory, for directories with names of their own


class SeedError(AssertionError):
    """A seed that broke a promise, and how to replay it."""

    def __init__(self, seed: int, cause: BaseException, trace: list[str]) -> None:
        self.seed = seed
        steps = "\n".join(f"    {line}" for line in trace[-_LAST_STEPS:])
        super().__init__(
            f"seed {seed}: {type(cause).__name__}: {cause}\n  after\n{steps}\n"
            f"  replay it step by step: python -m tests.simulation --seed {seed}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log of partitions lost and reopened to itself: that is what happens here all the time."""
    log = logging.getLogger("streams")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def run(seed: int, *, steps: int = STEPS, say: Callable[[str], None] = lambda _: None) -> Counter[str]:
    """Run a seed; returns what has happened in it. `SeedError` when a promise was broken, or anything raised."""
    where = _MEMORY if _MEMORY.is_dir() else None
    with _quiet(), tempfile.TemporaryDirectory(prefix="skutrend-simulation-", dir=where) as folder:
        simulation = Simulation(seed, Path(folder), say=say)
        try:
            simulation.run(steps)
        except Exception as error:
            raise SeedError(seed, error, simulation.trace) from error
    return simulation.tally
