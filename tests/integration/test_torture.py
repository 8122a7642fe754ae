"""A little of `make torture-kafka`: whatever hits the workers and the broker, every window is right."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.torture.driver import Plan, torture
from tests.torture.trouble import timetable

SEED = 201  # kills, robberies, exits, long pauses, a visitor, a broker that dies and one that stops


def test_a_timetable_follows_from_its_seed_and_mends_all_it_breaks() -> None:
    first, second = (timetable(random.Random(1), lasts_s=600, workers=["a", "b"]) for _ in range(2))  # noqa: S311
    assert first == second
    happened = Counter((step.what, "worker" if step.who in "ab" else step.who) for step in first)
    for whom in ("worker", "broker"):
        broken = sum(happened[what, whom] for what in ("kill", "rob", "stop"))
        assert broken == happened["start", whom] > 0
        assert happened["freeze", whom] == happened["thaw", whom] > 0
    assert happened["start", "guest"] == happened["stop", "guest"] > 0
    assert happened["rob", "worker"] > 0


@pytest.mark.kafka
@pytest.mark.usefixtures("kafka")  # skips or fails where there is none; the one that is harmed is another
@pytest.mark.parametrize(("guarantee", "minutes"), [("exactly_once", 0.4), ("at_least_once", 0.2)])
def test_a_short_time_of_trouble_leaves_every_window_right(guarantee: str, minutes: float) -> None:
    """When it fails it says how to replay it, and keeps logs and state."""
    torture(Plan(seed=SEED, minutes=minutes, guarantee=guarantee), print)
