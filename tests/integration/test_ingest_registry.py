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

from tests.integration.test_ingest import KILLS, MAPPING, bus, bus_of, letters_of, orders_of, send
from tests.support.schema_registry import SchemaRegistry
from tests.support.service import Service, new_group
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


SOME = {"id": "x", "currency": "EUR", "at": "2026-03-01", "customer_id": "c", "lines": []}
