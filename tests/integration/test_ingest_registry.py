"""`skutrend ingest` of orders in Avro on a real Kafka: a schema registry that is away, evolves, is asked once."""

from __future__ import annotations

import io
import json
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from schemas.inputs import INPUT_NAMES
from tests.integration.test_ingest import KILLS, MAPPING, bus, bus_of, letters_of, orders_of, send
from tests.support.apicurio import Apicurio
from tests.support.schema_registry import SchemaRegistry
from tests.support.service import Service, new_group, values
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka
__all__ = ["bus"]  # a fixture

LINE = {
    "type": "record",
    "name": "Line",
    "fields": [{"name": "sku", "type": "string"}, *({"name": n, "type": "int"} for n in ("pieces", "cents"))],
}
ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [
        *({"name": name, "type": "string"} for name in ("id", "currency", "at", "customer_id")),
        {"name": "lines", "type": {"type": "array", "items": LINE}},
    ],
}
NEWER = {**ORDER, "fields": [{"name": "note", "type": ["null", "string"]}, *ORDER["fields"]]}


def framed(number: int, schema: Any, order: dict[str, Any]) -> bytes:  # noqa: ANN401 - a parsed schema
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, order)
    return b"\0" + number.to_bytes(4, "big") + out.getvalue()


def test_kills_and_a_registry_that_is_away_leave_every_line_once_and_every_bad_record_one_letter(
    kafka: KafkaBroker, topic_prefix: str, bus: str, tmp_path: Path
) -> None:
    dice = random.Random(11)  # noqa: S311  # reproducible, not secret
    plain, lines, _ = bus_of(3_000)
    path = tmp_path / "bus.toml"
    path.write_text(MAPPING.replace("TOPIC", bus).replace('"json"', '"avro"'))
    settings = new_group(kafka.bootstrap, topic_prefix, partitions=4)
    names = ["a", "b"]
    with SchemaRegistry(user="shop:secret") as registry:
        numbers = [registry.add(f"{bus}-value", {"schema": json.dumps(each)}) for each in (ORDER, NEWER)]
        schemas = [fastavro.parse_schema(each) for each in (ORDER, NEWER)]
        sent, bad = [], 0
        for at, (key, value) in enumerate(plain):
            if key.startswith(b"b"):
                bad += 1
                wrong = (b"\0\0\0\x0f\xff..", framed(numbers[0], schemas[0], SOME)[:-3], b'{"id": "o1"}')
                sent.append((key, dice.choice(wrong)))
            else:
                order = json.loads(value[5:] if value[:1] == b"\0" else value)
                version = at >= len(plain) // 2
                sent.append((key, framed(numbers[version], schemas[version], {"note": None, **order})))
        registry.answers = False
        access = {"schema_registry_url": registry.url, "schema_registry_basic_auth_user_info": registry.user}
        with Service({**settings, **access}, tmp_path, command=("ingest", "--mapping", str(path))) as stage:
            for name in names:
                stage.start(name, wait=False, instance=name)
            stage.await_ready(names)
            size = len(sent) // (KILLS + 1) + 1
            send(kafka, bus, sent[:size])
            wait_for(lambda: "a batch waits to be written" in stage.get("a", "/readyz")[1], within_s=60)
            assert "cannot give schema" in stage.get("a", "/readyz")[1]
            assert orders_of(kafka, topic_prefix) == []
            registry.answers = True
            for start in range(size, len(sent), size):
                send(kafka, bus, sent[start : start + size])
                time.sleep(dice.uniform(0, 0.5))
                victim = dice.choice(names)
                stage.kill(victim)
                stage.start(victim, wait=False, instance=victim)
            wait_for(
                lambda: len(orders_of(kafka, topic_prefix)) >= len(lines), within_s=120, told=lambda: stage.log("a")
            )
            stage.await_ready(names)
            for name in names:
                stage.stop(name)
    found = orders_of(kafka, topic_prefix)
    assert Counter(order["event_id"] for order in found) == Counter(lines.keys()), "each line once"
    for order in found:
        assert (order["sku"], order["quantity"], order["unit_price"]) == lines[order["event_id"]]
    letters = letters_of(kafka, topic_prefix)
    assert len({source for source, _ in letters}) == len(letters) == bad
    answered = [asked for asked in registry.asked if asked.endswith(" 200")]
    assert len(answered) <= 2 * (KILLS + len(names)), "each member asks once for a schema"


BUS = """
name = "bus"
title = "a bus with a format for each input"
[orders]
topics = ["PREFIXbus.orders"]
format = "avro"
each = "lines"
[orders.fields]
order_id = "parent.id"
sku = "sku"
quantity = "pieces"
unit_price = { from = "cents", scale = 0.01 }
currency = "parent.currency"
event_time_ms = { from = "parent.at", time = "%Y-%m-%d", zone = "UTC" }
[clicks]
topics = ["PREFIXbus.clicks"]
format = "protobuf"
[clicks.fields]
event_id = "id"
session_id = "visit"
sku = "sku"
kind = "kind"
event_time_ms = "at"
[price-changes]
topics = ["PREFIXbus.prices"]
format = "json_schema"
[price-changes.fields]
event_id = "id"
sku = "sku"
price = "price"
currency = { constant = "EUR" }
kind = { constant = "list" }
event_time_ms = "at"
"""
CLICK = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Click {
  string id = 1;
  string visit = 2;
  string sku = 3;
  string kind = 4;
  google.protobuf.Timestamp at = 5;
}
"""
PRICE = {"type": "object", "properties": {"price": {"type": "number"}}}
SECONDS = 1_772_323_200  # 1 March 2026


def click_of(number: int) -> bytes:
    """Write a click as Protobuf has it: four texts, and a moment."""
    texts = [f"c{number}", "visit", f"sku{number % 9}", "view"]
    fields = [(at << 3 | 2, text.encode()) for at, text in enumerate(texts, 1)]
    seconds = SECONDS + number % 1_000
    moment = b"\x08" + bytes([seconds >> 7 * i & 0x7F | (0x80 if i < 4 else 0) for i in range(5)])
    return b"".join(bytes([tag, len(value)]) + value for tag, value in [*fields, (5 << 3 | 2, moment)])


def test_a_real_registry_and_a_bus_with_a_format_for_each_input(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    """Apicurio; a third of the messages at a time, and a kill after each."""
    (path := tmp_path / "bus.toml").write_text(BUS.replace("PREFIX", topic_prefix))
    settings = new_group(kafka.bootstrap, topic_prefix, partitions=4)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    made = admin.create_topics([NewTopic(f"{topic_prefix}bus.{name}", 3, 1) for name in ("orders", "clicks", "prices")])
    for each in made.values():
        each.result(30)
    count, schema = 600, fastavro.parse_schema(ORDER)
    lines = [{"sku": f"sku{at}", "pieces": at + 1, "cents": 250} for at in range(2)]
    with Apicurio(tmp_path) as registry, SchemaRegistryClient({"url": registry.url}) as client:
        kinds = {
            "orders": (json.dumps(ORDER), "AVRO"),
            "clicks": (CLICK, "PROTOBUF"),
            "prices": (json.dumps(PRICE), "JSON"),
        }
        frames = {
            name: b"\0" + client.register_schema(f"{topic_prefix}{name}", Schema(*kind)).to_bytes(4, "big")
            for name, kind in kinds.items()
        }
        access = {"schema_registry_url": registry.url}
        with Service({**settings, **access}, tmp_path, command=("ingest", "--mapping", str(path))) as stage:
            for third in range(3):
                stage.start("a")
                records: dict[str, list[tuple[bytes, bytes]]] = {name: [] for name in frames}
                for at in range(third * count // 3, (third + 1) * count // 3):
                    order = {**SOME, "id": f"o{at}", "lines": lines}
                    price = {"id": f"p{at}", "sku": f"sku{at % 9}", "price": 9.5, "at": "2026-03-01T00:00:00Z"}
                    for name, value in (
                        ("orders", framed(0, schema, order)[5:]),
                        ("clicks", b"\0" + click_of(at)),
                        ("prices", json.dumps(price).encode()),
                    ):
                        records[name].append((f"k{at}".encode(), frames[name] + value))
                for name, sent in records.items():
                    send(kafka, f"{topic_prefix}bus.{name}", sent)
                if third < 2:
                    stage.kill("a")
            for name, wanted in (("orders", 2 * count), ("clicks", count), ("price-changes", count)):
                topic = f"{topic_prefix}{name}"
                wait_for(
                    lambda topic=topic, n=wanted: len(values(kafka.bootstrap, topic)) >= n,
                    within_s=60,
                    told=lambda: (stage.get("a", "/readyz"), stage.log("a"), letters_of(kafka, topic_prefix)[:3]),
                )
            stage.stop("a")
    found = {name: values(kafka.bootstrap, f"{topic_prefix}{name}") for name in INPUT_NAMES}
    assert letters_of(kafka, topic_prefix) == []
    assert Counter(each["event_id"] for each in found["orders"]) == Counter(
        f"o{at}/{line}" for at in range(count) for line in (1, 2)
    )
    assert Counter(each["event_id"] for each in found["clicks"]) == Counter(f"c{at}" for at in range(count))
    assert Counter(each["event_id"] for each in found["price-changes"]) == Counter(f"p{at}" for at in range(count))
    last = next(each for each in found["clicks"] if each["event_id"] == "c599")
    assert (last["sku"], last["kind"], last["event_time_ms"]) == ("sku5", "view", (SECONDS + 599) * 1_000)


SOME = {"id": "x", "currency": "EUR", "at": "2026-03-01", "customer_id": "c", "lines": []}
