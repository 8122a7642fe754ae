"""Going live next to history: a seeded group says what one says that has always been there."""

from __future__ import annotations

import signal
import subprocess
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd
import pytest
from confluent_kafka import Producer

from schemas.inputs import INPUT_NAMES, ORDERS
from streams.seeding import live_start
from streams.seeding.live_start import LiveStart
from tests.support.kafka_broker import ROOT
from tests.support.partitions import HOUR_MS, T0, order
from tests.support.service import COMMAND, Service, environment, new_group, read_topic, skutrend
from tests.support.shop import TIMEZONE, end_of, month

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker
    from tests.support.shop import Tables

pytestmark = pytest.mark.kafka
PARTITIONS = 3
LIVE_FROM = "2011-03-30 13:00"  # in the midst of a day


def at_ms(moment: str) -> int:
    return int(pd.Timestamp(moment, tz=TIMEZONE).timestamp() * 1000)


def between(tables: Tables, since: str, until: str) -> Tables:
    low, high = at_ms(since), at_ms(until) - 1
    return {kind: table[table.event_time_ms.between(low, high)] for kind, table in tables.items()}


def options(tables: Tables, folder: Path) -> Iterator[str]:
    """Write event files, and name them to a command."""
    folder.mkdir()
    for kind in INPUT_NAMES:
        tables[kind].to_parquet(folder / f"{kind}.parquet")
        yield from (f"--{kind}", str(folder / f"{kind}.parquet"))


def served(kafka: KafkaBroker, prefix: str, topic: str, since_ms: int) -> dict[str, Any]:
    """Give what readers of committed records see of windows that end after a moment, but for when it was said."""
    found: dict[str, Any] = {}
    for message in read_topic(kafka.bootstrap, f"{prefix}{topic}"):
        value = msgspec.json.decode(message.value() or b"")
        if value["window_end_ms"] > since_ms:
            assert value["id"] not in found, "an id was published twice"
            found[value["id"]] = value | {"emitted_ms": 0}
    return found


def serve(settings: dict[str, Any], folder: Path, end_ms: int) -> float:
    """Run a worker until all windows up to `end_ms` are closed; returns how many events were late."""
    folder.mkdir()
    with Service(settings, folder) as service:
        service.start("w")
        service.await_closed(end_ms, partitions=PARTITIONS)
        late = service.total("skutrend_outcomes", outcome="late")
        service.stop("w")
    return late


USUAL = {"timezone": TIMEZONE, "idle_timeout_ms": 3_000, "bundle": "shipped", "currency": "GBP"}


@pytest.fixture(scope="module")
def always(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Prefix of a shop whose worker has read all events live."""
    prefix, folder = f"always-{uuid.uuid4().hex}-", tmp_path_factory.mktemp("always")
    settings = new_group(kafka.bootstrap, prefix, partitions=PARTITIONS, **USUAL)
    skutrend("replay", *options(month(), folder / "all"), settings=settings)
    serve(settings, folder / "worker", end_of(month()))
    return prefix


@pytest.mark.parametrize(
    ("history_ends", "cut", "first_live"),
    [
        ("2011-04-06", "2011-03-31", "2011-03-31 00:00:00 UTC+01:00"),
        ("2011-03-30 20:00", LIVE_FROM, "2011-03-30 00:00:00 UTC+01:00"),
    ],
    ids=["topics that hold whole days that history has, too", "topics that have only begun"],
)
def test_a_seeded_group_goes_on_as_if_it_had_always_been_there(  # noqa: PLR0917 - what makes two stories
    kafka: KafkaBroker, always: str, topic_prefix: str, tmp_path: Path, history_ends: str, cut: str, first_live: str
) -> None:
    tables, settings = month(), new_group(kafka.bootstrap, topic_prefix, partitions=PARTITIONS, **USUAL)
    skutrend("replay", *options(between(tables, LIVE_FROM, "2012-01-01"), tmp_path / "live"), settings=settings)
    history = between(tables, "2011-01-01", history_ends)
    command = ("seed", *options(history, tmp_path / "history"))
    elsewhere = settings | {"state_dir": tmp_path / "elsewhere"}
    die_in_the_midst(command, elsewhere)
    said = skutrend(*command, settings=elsewhere).stdout
    assert f"windows are closed up to {first_live}" in said
    taken = between(tables, "2011-01-01", cut)
    left = sum(map(len, history.values())) - sum(map(len, taken.values()))
    again = skutrend(*command, settings=elsewhere).stdout
    assert "0 of 3 partitions" in again
    assert "3 partitions had been seeded by an earlier run" in again
    if "partitions had been seeded" not in said:  # it died before it had seeded one
        assert f"{left:,} events of the files are not taken" in said

    late = serve(settings, tmp_path / "seeded", end_of(tables))
    assert late == (0 if cut == LIVE_FROM else sum(map(len, between(tables, LIVE_FROM, cut).values())))
    since_ms = at_ms(first_live[:10])
    for topic in ("windows", "forecasts"):
        expected = served(kafka, always, topic, since_ms)
        found = served(kafka, topic_prefix, topic, since_ms)
        assert len(found) > 1_000
        assert found == expected

    refused = skutrend(*command, settings=settings | {"state_dir": tmp_path / "seeded" / "state"}, check=False)
    assert refused.returncode == 1
    assert "live records already, and history goes before the first of them" in refused.stderr


def die_in_the_midst(command: tuple[str, ...], settings: dict[str, Any]) -> None:
    """Kill the command while it seeds its second partition, or a moment later."""
    second = settings["state_dir"] / f"{settings['topic_prefix']}{settings['group']}" / "partition-1"
    with subprocess.Popen(  # noqa: S603  # our own command
        [*COMMAND, *command],
        env=environment(**settings),
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and not second.exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


def test_workers_that_run_must_be_stopped_first(kafka: KafkaBroker, topic_prefix: str, tmp_path: Path) -> None:
    settings = new_group(kafka.bootstrap, topic_prefix, partitions=1, timezone=TIMEZONE)
    command = ("seed", *options(between(month(), "2011-03-14", "2011-03-16"), tmp_path / "history"))
    with Service(settings, tmp_path) as service:
        service.start("w")
        refused = skutrend(*command, settings=settings | {"state_dir": tmp_path / "other"}, check=False)
        assert refused.returncode == 1
        assert f"group {topic_prefix}{settings['group']} has 1 members: stop the workers" in refused.stderr
        service.stop("w")
    dear = between(month(), "2011-03-14", "2011-03-16")
    dear["orders"] = dear["orders"].assign(currency="USD")
    other = skutrend("seed", *options(dear, tmp_path / "dear"), settings=settings | {"currency": "GBP"}, check=False)
    assert "orders have money in currencies for which there is no rate" in other.stderr
    assert "1 of 1 partitions" in skutrend(*command, settings=settings | {"state_dir": tmp_path / "state"}).stdout


@pytest.mark.parametrize("skew_ms", [0, -2 * HOUR_MS], ids=["stamped when they happened", "stamped two hours before"])
def test_what_lies_before_the_cut_is_passed_over_where_stamps_tell(
    kafka: KafkaBroker, topic_prefix: str, skew_ms: int
) -> None:
    new_group(kafka.bootstrap, topic_prefix, partitions=1)
    config, topic = {"bootstrap.servers": kafka.bootstrap}, f"{topic_prefix}orders"
    look = partial(live_start.look, config, source=ORDERS, partitions=1, max_ahead_ms=HOUR_MS)
    assert look(topic) == LiveStart(topic, None, (0,), is_stamped=True)
    producer = Producer(config)
    producer.produce(topic, b"no order", b"?", timestamp=T0)
    for hour in range(10):
        at_ms = T0 + hour * HOUR_MS
        producer.produce(topic, order(f"{hour}", "a", at_ms), b"a", timestamp=at_ms + skew_ms)
    producer.flush(30)
    start = look(topic)
    assert start == LiveStart(topic, T0, (0,), is_stamped=skew_ms == 0)
    assert live_start.offsets_at(config, start, T0 + 5 * HOUR_MS) == ((6,) if skew_ms == 0 else (0,))
    assert live_start.offsets_at(config, start, T0 + 99 * HOUR_MS) == ((11,) if skew_ms == 0 else (0,))
