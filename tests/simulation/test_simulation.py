"""Whatever the schedule: each record counts once, each window is said once, and the state is that of a calm run."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.runs import run

FEW = 4
SEEDS = 130
MUST_HAVE_HAPPENED = (
    *("folded", "duplicate", "late", "rejected", "windows published", "windows corrected", "commits"),
    *("fail_before", "fail_after", "fenced", "zombies", "flush of a zombie", "moved", "killed"),
    *("disks lost", "compacted", "scale moved"),
    *("refused by offset", "refused as stale"),
    *("hung", "shortened", "put off", "clock set"),
    *("snapshots fetched", "snapshots damaged", "restored from a snapshot"),
    *(f"crash at {step}" for step in ("upload", "manifest", "snapshot kept")),
    *(f"crash at {step}" for step in ("open", "claim", "claimed", "apply", "applied", "ingest", "ingested")),
    *(f"crash at {step}" for step in ("stage", "staged", "finished", "commit", "committed")),
    *(f"crash at {step}" for step in ("write", "written", "set_position", "position_set")),
)


@pytest.mark.slow
def test_a_few_schedules_end_in_the_promised_outputs_and_state() -> None:
    """A seed that fails says how to replay it."""
    for seed in range(FEW):
        run(seed)


@pytest.mark.slow
def test_every_schedule_ends_in_the_promised_outputs_and_state() -> None:
    """The same of many, in which everything that may happen has happened."""
    tally: Counter[str] = Counter()
    for seed in range(SEEDS):
        tally += run(seed)
    missing = [what for what in MUST_HAVE_HAPPENED if not tally[what]]
    assert not missing, f"in {SEEDS} schedules these never happened, so nothing was shown of them: {missing}"


@pytest.mark.slow
def test_a_schedule_follows_from_its_seed_alone() -> None:
    said: list[list[str]] = [[], []]
    for each in said:
        run(11, say=each.append)
    assert said[0] == said[1]
