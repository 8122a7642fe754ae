"""`skutrend ingest` on a real Kafka: nested orders of a bus become order lines by SKU, each exactly once."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.provenance import read_dead_letter_headers
from streams.kafka.murmur2 import partitions_of
from tests.support.kafka_broker import KafkaBroker
from tests.support.service import Service, new_group, read_topic, skutrend
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kafka

KILLS = int(os.environ.get("SKUTREND_TEST_KILLS", "5"))
ORDERS, PARTITIONS, BUS_PARTITIONS = 6_000, 4, 6
T0 = 1_700_000_000_000
FRAME = b"\0\0\0\0\x07"
MAPPING = """
name = "bus"
title = "orders of the bus"
[orders]
format = "json"
topics = ["TOPIC"]
each = "lines"
[orders.fields]
order_id = "parent.id"
sku = "sku"
quantity = "pieces"
unit_price = { from = "cents", minor_units = true }
currency = "parent.currency"
event_time_ms = "parent.at"
customer_id = "parent.customer_id"
"""
Bus = Sequence[tuple[bytes, "bytes | None"]]


def bus_of(count: int) -> tuple[Bus, dict[str, tuple[str, float, float]], list[bytes]]:
    """Orders keyed by their number, half of them framed by a registry; their lines by id; and what is no order."""
    dice = random.Random(5)  # noqa: S311  # reproducible, not secret
    sent: list[tuple[bytes, bytes]] = []
    lines: dict[str, tuple[str, float, float]] = {}
    bad: list[bytes] = []
    for number in range(count):
        items = [
            {"sku": f"SKU-{dice.randrange(300)}", "pieces": dice.randrange(1, 5), "cents": dice.randrange(1, 9_999)}
            for _ in range(dice.randrange(1, 5))
        ]
        at = f"2026-03-{1 + number % 28:02d}T{number % 24:02d}:00:00Z"
        order = {"id": f"o{number}", "currency": "eur", "at": at, "customer_id": f"c{number}", "lines": items}
        for line, item in enumerate(items, 1):
            lines[f"o{number}/{line}"] = (item["sku"], item["pieces"], round(item["cents"] / 100, 9))
        sent.append((b"o%d" % number, FRAME * (number % 2) + json.dumps(order).encode()))
        if number % 100 == 0:
            bad.append(dice.choice([b"{no json %d", b'{"id": "bad %d"}', b"\0\0\0\0\x07{%d"]) % number)
            sent.append((b"b%d" % number, bad[-1]))
    return sent, lines, bad


def send(kafka: KafkaBroker, topic: str, records: Bus) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 5})
    for key, value in records:
        producer.produce(topic, value, key)
        producer.poll(0)
    assert producer.flush(30) == 0


@pytest.fixture
def bus(kafka: KafkaBroker, topic_prefix: str) -> str:
    topic = f"{topic_prefix}bus.orders"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    (made,) = admin.create_topics([NewTopic(topic, BUS_PARTITIONS, 1)]).values()
    made.result(30)
    return topic


@pytest.fixture
def stage(kafka: KafkaBroker, topic_prefix: str, tmp_path: Path, bus: str) -> Service:
    """The stage over the bus's topic; not started."""
    path = tmp_path / "bus.toml"
    path.write_text(MAPPING.replace("TOPIC", bus))
    settings = new_group(kafka.bootstrap, topic_prefix, partitions=PARTITIONS)
    return Service(settings, tmp_path, command=("ingest", "--mapping", str(path)))


def orders_of(kafka: KafkaBroker, prefix: str) -> list[dict[str, Any]]:
    """What readers of committed records see; each lies where its SKU belongs."""
    found = []
    for message in read_topic(kafka.bootstrap, f"{prefix}orders"):
        order = json.loads(message.value() or b"")
        assert message.key() == order["sku"].encode()
        assert message.partition() == partitions_of([message.key()], count=PARTITIONS)[0]
        found.append(order)
    return found


def letters_of(kafka: KafkaBroker, prefix: str) -> list[tuple[str, bytes]]:
    """Source and value of the dead letters."""
    found = read_topic(kafka.bootstrap, f"{prefix}dead-letters")
    return [(read_dead_letter_headers(message.headers()).source, message.value() or b"") for message in found]


def send_between_kills(
    kafka: KafkaBroker,
    topic: str,
    records: Bus,
    stage: Service,
    dice: random.Random,
    back_as: Callable[[str, int], str] = lambda victim, _: victim,
) -> None:
    """Send in parts, and after each but the last kill a member and start it again.

    back_as: is told whom and after which record, while the member is dead, and gives the instance it comes back as.
    """
    names, size = list(stage.processes), len(records) // (KILLS + 1) + 1
    for start in range(0, len(records), size):
        send(kafka, topic, records[start : start + size])
        if start + size < len(records):
            time.sleep(dice.uniform(0, 0.5))
            victim = dice.choice(names)
            stage.kill(victim)
            time.sleep(dice.uniform(0, 0.5))
            stage.start(victim, wait=False, instance=back_as(victim, start))


def test_kills_of_a_stage_leave_every_line_once_and_every_bad_record_one_letter(
    kafka: KafkaBroker, topic_prefix: str, bus: str, stage: Service
) -> None:
    dice = random.Random(9)  # noqa: S311
    sent, lines, bad = bus_of(ORDERS)
    names = ["a", "b", "c"]
    with stage:
        for name in names:
            stage.start(name, wait=False, instance=name)
        stage.await_ready(names)
        send_between_kills(kafka, bus, sent, stage, dice)
        wait_for(lambda: len(orders_of(kafka, topic_prefix)) >= len(lines), within_s=120, told=lambda: stage.log("a"))
        stage.await_ready(names)
        for name in names:
            stage.stop(name)
    found = orders_of(kafka, topic_prefix)
    assert Counter(order["event_id"] for order in found) == Counter(lines.keys()), "each line once"
    for order in found:
        assert (order["sku"], order["quantity"], order["unit_price"]) == lines[order["event_id"]]
        assert (order["currency"], order["customer_id"]) == ("EUR", f"c{order['order_id'][1:]}")
    letters = letters_of(kafka, topic_prefix)
    assert len({source for source, _ in letters}) == len(letters) == len(bad)
    assert all(source.startswith(f"{bus}[") for source, _ in letters)


def test_members_that_come_and_go_share_the_work_and_repeat_nothing(
    kafka: KafkaBroker, topic_prefix: str, bus: str, stage: Service
) -> None:
    sent, lines, _ = bus_of(2_000)
    with stage:
        stage.start("a")
        send(kafka, bus, sent[:500])
        stage.start("b")
        send(kafka, bus, sent[500:1_500])
        wait_for(lambda: stage.total("skutrend_ingested", topic=bus) >= 1_500, within_s=60)
        assert stage.get("b", "/readyz")[1].count(bus) == BUS_PARTITIONS // 2
        stage.stop("a")
        send(kafka, bus, sent[1_500:])
        wait_for(lambda: stage.get("b", "/readyz")[1].count(bus) == BUS_PARTITIONS, within_s=60)
        wait_for(lambda: len(orders_of(kafka, topic_prefix)) >= len(lines), within_s=60, told=lambda: stage.log("b"))
        stage.stop("b")
    assert Counter(order["event_id"] for order in orders_of(kafka, topic_prefix)) == Counter(lines.keys())


def test_letters_of_the_bus_are_mended_and_their_lines_go_out_once(
    kafka: KafkaBroker, topic_prefix: str, bus: str, stage: Service, tmp_path: Path
) -> None:
    lines = [{"sku": "A", "pieces": 2, "cents": 250}, {"sku": "B", "pieces": "many", "cents": 100}]
    order = {"id": "o1", "currency": "EUR", "at": "2026-03-01T08:00:00Z", "customer_id": None, "lines": lines}
    with stage:
        stage.start("a")
        send(kafka, bus, [(b"o1", json.dumps(order).encode()), (b"o2", b"{no json")])
        wait_for(lambda: len(letters_of(kafka, topic_prefix)) == 2, within_s=60, told=lambda: stage.log("a"))
        stage.stop("a")
    assert [found["event_id"] for found in orders_of(kafka, topic_prefix)] == ["o1/1"]
    path = tmp_path / "letters.jsonl"
    skutrend("dead-letters", "list", "--out", str(path), settings=stage.settings)
    replay = ("dead-letters", "replay", str(path))
    refused = skutrend(*replay, settings=stage.settings, check=False)
    assert refused.returncode == 1
    assert "give the --mapping of `skutrend ingest`" in refused.stderr
    replay = (*replay, *stage.command[1:])
    refused = skutrend(*replay, settings=stage.settings, check=False)
    assert refused.returncode == 1
    assert "(unmapped: " in refused.stderr
    assert "nothing was sent" in refused.stderr
    mended = [json.loads(each) for each in path.read_text().splitlines() if '"not_json"' not in each]
    mended[0]["value"] = mended[0]["value"].replace('"many"', "7")
    path.write_text("".join(json.dumps(each) + "\n" for each in mended))
    assert skutrend(*replay, settings=stage.settings).stdout.startswith("1 sent, 0 skipped")
    assert skutrend(*replay, settings=stage.settings).stdout.startswith("0 sent, 1 skipped")
    found = Counter((each["event_id"], each["quantity"]) for each in orders_of(kafka, topic_prefix))
    assert found == {("o1/1", 2.0): 2, ("o1/2", 7.0): 1}, "what went out before has the same id, and is a duplicate"


def test_brokers_that_come_later_are_waited_for(topic_prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    path.write_text(MAPPING.replace("TOPIC", f"{topic_prefix}bus.orders"))
    with KafkaBroker() as broker:
        settings = new_group(broker.bootstrap, topic_prefix, partitions=2)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        (made,) = admin.create_topics([NewTopic(f"{topic_prefix}bus.orders", 1, 1)]).values()
        made.result(30)
        broker.kill()
        with Service(settings, tmp_path, command=("ingest", "--mapping", str(path))) as stage:
            stage.start("a", wait=False)
            wait_for(lambda: "no answer from the brokers" in stage.log("a"), within_s=30)
            broker.restart()
            stage.await_ready(["a"])
            stage.stop("a")


def test_what_cannot_work_is_one_sentence(kafka: KafkaBroker, topic_prefix: str, bus: str, stage: Service) -> None:
    path = stage.command[-1]
    for arguments, said in (
        (("--mapping", path, "--topic", f"{topic_prefix}nowhere"), f"topic {topic_prefix}nowhere"),
        (("--mapping", path, "--topic", f"{topic_prefix}orders"), "which this stage writes"),
        (("--preset", "shopify-orders-json"), "names no topics"),
        (("--preset", "shopify"), "no preset 'shopify'"),
    ):
        done = skutrend("ingest", *arguments, settings=stage.settings, check=False)
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1].startswith("skutrend: "), done.stderr
        assert said in done.stderr
    assert bus.startswith(topic_prefix)


def test_of_two_members_with_one_name_one_ends_and_says_why(stage: Service) -> None:
    with stage:
        stage.start("first", instance="pod-0")
        stage.start("second", wait=False, instance="pod-0")
        ended = wait_for(
            lambda: next((name for name, p in stage.processes.items() if p.poll() is not None), None),
            within_s=60,
            told=lambda: [stage.log(name) for name in stage.processes],
        )
        assert stage.processes[ended].returncode == 1
        assert "SKUTREND_INSTANCE=pod-0 is in use by another member" in stage.log(ended)
        stage.processes.pop(ended)
        (left,) = stage.processes
        stage.await_ready([left])
        stage.stop(left)
