"""`skutrend ingest` of a topic that holds the latest state of each order, on a real Kafka: all changes count once."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.test_ingest import (
    BUS_PARTITIONS,
    MAPPING,
    PARTITIONS,
    letters_of,
    orders_of,
    send,
    send_between_kills,
)
from tests.support.service import Service, new_group, skutrend
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka
ORDERS, MESSAGES = 800, 5_000


@pytest.fixture
def bus(kafka: KafkaBroker, topic_prefix: str) -> str:
    topic = f"{topic_prefix}bus.orders"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    made = admin.create_topics([NewTopic(topic, BUS_PARTITIONS, 1, config={"cleanup.policy": "compact"})])
    made[topic].result(30)
    return topic


def stage_of(kafka: KafkaBroker, prefix: str, folder: Path, bus: str, *, apart: bool) -> Service:
    path = folder / "bus.toml"
    path.write_text(MAPPING.replace("TOPIC", bus).replace('each = "lines"', 'each = "lines"\nenvelope = "upsert"'))
    settings = new_group(kafka.bootstrap, prefix, partitions=PARTITIONS)
    return Service(settings, folder, apart=apart, command=("ingest", "--mapping", str(path)))


def states_of(
    count: int, orders: int, dice: random.Random
) -> tuple[list[tuple[bytes, bytes | None]], Counter[str], int]:
    """Messages, what the last of each key adds up to by order and SKU, and how many are no orders."""
    sent: list[tuple[bytes, bytes | None]] = []
    latest: dict[str, dict[str, Any] | None] = {}
    bad = 0
    for _ in range(count):
        number = f"o{dice.randrange(orders)}"
        if dice.random() < 0.01:
            bad += 1
            sent.append((number.encode(), b"{no json"))
            continue
        lines = [
            {"sku": f"SKU-{dice.randrange(50)}", "pieces": dice.randrange(1, 5), "cents": 250}
            for _ in range(dice.randrange(1, 4))
        ]
        order = {"id": number, "currency": "EUR", "at": "2026-03-01T08:00:00Z", "customer_id": None, "lines": lines}
        latest[number] = None if dice.random() < 0.1 else order
        sent.append((number.encode(), None if latest[number] is None else json.dumps(order).encode()))
    total: Counter[str] = Counter()
    for order_id, state in latest.items():
        for line in () if state is None else state["lines"]:
            total[f"{order_id} {line['sku']}"] += line["pieces"]
    return sent, total, bad


def sold(kafka: KafkaBroker, prefix: str) -> tuple[Counter[str], Counter[str]]:
    """Give units by order and SKU, and how often each id is there."""
    total, ids = Counter[str](), Counter[str]()
    for order in orders_of(kafka, prefix):
        total[f"{order['order_id']} {order['sku']}"] += int(order["quantity"])
        ids[order["event_id"]] += 1
    return Counter({key: units for key, units in total.items() if units}), ids


@pytest.mark.parametrize("apart", [False, True], ids=["one disk", "a disk each, one of which is lost"])
def test_kills_and_moves_leave_each_order_as_it_is_in_the_end(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path, bus: str, apart: bool
) -> None:
    dice = random.Random(int(apart))  # noqa: S311  # reproducible, not secret
    sent, expected, bad = states_of(MESSAGES, ORDERS, dice)
    names = ["a", "b", "c"]
    with stage_of(kafka, topic_prefix, tmp_path, bus, apart=apart) as stage:
        for name in names:
            stage.start(name, wait=False, instance=name)
        stage.await_ready(names)

        def back_as(victim: str, start: int) -> str:
            if apart and start == 0:
                shutil.rmtree(stage.state_dir(victim))
            # often by another name, so that partitions move and what others know of them is behind
            return dice.choice([victim, f"{victim}-{start}"])

        send_between_kills(kafka, bus, sent, stage, dice, back_as)
        wait_for(
            lambda: sold(kafka, topic_prefix)[0] == expected,
            within_s=120,
            told=lambda: [stage.log(name)[-2_000:] for name in names],
        )
        stage.await_ready(names)
        for name in names:
            stage.stop(name)
    total, ids = sold(kafka, topic_prefix)
    assert total == expected
    assert set(ids.values()) == {1}, "each event once"
    letters = letters_of(kafka, topic_prefix)
    assert len({source for source, _ in letters}) == len(letters) == bad


def test_what_was_known_is_read_again_from_the_topic_when_it_is_lost_or_damaged(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path, bus: str
) -> None:
    sent, first, _ = states_of(1_000, 300, random.Random(7))  # noqa: S311
    later, expected, _ = states_of(1_000, 300, random.Random(7))  # noqa: S311
    later = [*later, *((b"o%d" % number, None) for number in range(300))]
    assert first == expected
    with stage_of(kafka, topic_prefix, tmp_path, bus, apart=False) as stage:
        stage.start("a")
        send(kafka, bus, sent)
        wait_for(lambda: sold(kafka, topic_prefix)[0] == first, within_s=60, told=lambda: stage.log("a"))
        stage.stop("a")
        lost, damaged, *_ = sorted((tmp_path / "state").glob("*/*"))
        shutil.rmtree(lost)
        for file in damaged.glob("*.log"):
            file.write_bytes(b"\xff" * 4_096)
        (damaged / "CURRENT").write_text("nonsense\n")
        stage.start("a")
        send(kafka, bus, later[len(sent) :])
        wait_for(lambda: not sold(kafka, topic_prefix)[0], within_s=60, told=lambda: stage.log("a"))
        stage.stop("a")
        assert "are read again" in stage.log("a")


def test_a_letter_of_such_a_topic_is_mended_by_writing_its_row_again(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path, bus: str
) -> None:
    with stage_of(kafka, topic_prefix, tmp_path, bus, apart=False) as stage:
        stage.start("a")
        send(kafka, bus, [(b"o1", b"{no json")])
        wait_for(lambda: letters_of(kafka, topic_prefix), within_s=60, told=lambda: stage.log("a"))
        stage.stop("a")
    path = tmp_path / "letters.jsonl"
    skutrend("dead-letters", "list", "--out", str(path), settings=stage.settings)
    replay = ("dead-letters", "replay", str(path), *stage.command[1:])
    for more in ((), ("--force",)):
        refused = skutrend(*replay, *more, settings=stage.settings, check=False)
        assert refused.returncode == 1
        assert "write the row to that topic again, as it is now" in refused.stderr
