"""What is said about windows that wait to be closed."""

from __future__ import annotations

import logging

import pytest

from streams.observe.metrics import Metrics
from streams.partition.backlog import Backlog


def test_a_backlog_of_windows_is_reported_at_intervals_with_count_and_rate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_s, metrics = 5.0, Metrics()
    backlog = Backlog(3, metrics, now_s=lambda: now_s)
    due = 1_280
    backlog.note(closed=0, due=due)
    while due:
        now_s, due = now_s + 1 / 32, due - 1
        backlog.note(closed=1, due=due)
        assert metrics.registry.get_sample_value("skutrend_windows_due", {"partition": "3"}) == due
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "partition 3: 960 windows are due, 320 closed in 10 s (32 a second), at that rate 30 s left",
        "partition 3: 640 windows are due, 640 closed in 20 s (32 a second), at that rate 20 s left",
        "partition 3: 320 windows are due, 960 closed in 30 s (32 a second), at that rate 10 s left",
        "partition 3: all 1280 windows closed, in 40 s",
    ]


def test_windows_that_close_in_time_are_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_s = 5.0
    backlog = Backlog(3, Metrics(), now_s=lambda: now_s)
    for _ in range(100):
        now_s += 3600.0
        backlog.note(closed=1, due=0)
        backlog.note(closed=0, due=0)
    assert caplog.records == []


def test_only_what_was_closed_counts_and_each_backlog_starts_at_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_s = 5.0
    backlog = Backlog(3, Metrics(), now_s=lambda: now_s)
    for _ in range(2):
        backlog.note(closed=1, due=2)
        now_s += 20.0
        backlog.note(closed=1, due=1)
        backlog.note(closed=0, due=0)
    assert [record.getMessage() for record in caplog.records] == 2 * [
        "partition 3: 1 windows are due, 2 closed in 20 s (0 a second), at that rate 10 s left",
        "partition 3: all 2 windows closed, in 20 s",
    ]
