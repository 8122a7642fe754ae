"""What is said over and over is said once, with its count; what differs is said."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from streams.observe.logs import EVERY_S, KEPT, Damper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def now() -> list[float]:
    return [1_000.0]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def say(now: list[float], said: list[str]) -> Iterator[Callable[..., None]]:
    class Sink(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    sink = Sink()
    sink.addFilter(Damper(lambda: now[0]))

    def logged(name: str, text: str, *values: object, level: int = logging.WARNING) -> None:
        sink.handle(logging.LogRecord(name, level, __file__, 1, text, values, None))

    yield logged
    sink.close()


def test_the_attempts_of_a_library_to_connect_are_reported_once_in_a_while_with_their_count(
    say: Callable[..., None], said: list[str], now: list[float]
) -> None:
    for attempt in range(100):
        say("librdkafka", "FAIL [rdkafka#consumer-%d] refused (after %dms)", attempt % 8, attempt)
    assert said == ["FAIL [rdkafka#consumer-0] refused (after 0ms)"]
    now[0] += EVERY_S
    for attempt in range(3):
        say("librdkafka", "FAIL [rdkafka#consumer-%d] refused (after %dms)", attempt, attempt)
    assert said[1:] == ["FAIL [rdkafka#consumer-0] refused (after 0ms) [99 more like it in the last 10 s]"]
    now[0] += EVERY_S
    say("librdkafka", "FAIL [rdkafka#consumer-%d] refused (after %dms)", 7, 7)
    assert said[2:] == ["FAIL [rdkafka#consumer-7] refused (after 7ms) [2 more like it in the last 10 s]"]


def test_our_own_lines_about_different_partitions_all_pass(say: Callable[..., None], said: list[str]) -> None:
    for number in [0, 1, 2, 0, 1, 2]:
        say("streams.worker.worker", "partition %d is given up", number)
    assert said == [f"partition {number} is given up" for number in range(3)]


def test_texts_of_other_levels_and_loggers_are_other_texts(say: Callable[..., None], said: list[str]) -> None:
    for name in ("aiokafka", "aiokafka.consumer"):
        for level in (logging.INFO, logging.ERROR):
            say(name, "it is away", level=level)
    assert said == ["it is away"] * 4


def test_what_it_remembers_is_bounded_and_nothing_new_is_ever_held_back(
    say: Callable[..., None], said: list[str], now: list[float]
) -> None:
    for number in range(2 * KEPT):
        say("streams.worker.worker", "line %d", number)
    assert len(said) == 2 * KEPT
    now[0] += EVERY_S
    for number in range(2 * KEPT, 2 * KEPT + 3):
        say("streams.worker.worker", "line %d", number)
        say("streams.worker.worker", "line %d", number)
    assert len(said) == 2 * KEPT + 3


def test_a_line_says_its_time_in_utc_whatever_the_zone_of_the_machine() -> None:
    code = (
        "import logging\n"
        "from streams.observe import logs\n"
        "logs.set_up('info')\n"
        "record = logging.makeLogRecord({'name': 'a', 'levelname': 'INFO', 'msg': 'm', 'created': 1312380005.25,"
        " 'msecs': 250.0})\n"
        "print(logging.root.handlers[0].format(record))\n"
    )
    done = subprocess.run(  # noqa: S603 - our own code; a process of its own, since logging is set up once
        [sys.executable, "-c", code], env={**os.environ, "TZ": "Asia/Tokyo"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2011-08-03T14:00:05.250Z INFO a: m\n"
