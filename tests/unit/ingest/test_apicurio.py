"""Schemas of a real registry, Apicurio: what serializers write in each format, and what Java's producers register."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer

from tests.support.apicurio import Apicurio
from tests.unit.ingest.test_registry import (
    AVRO,
    AVRO_LINE,
    CONTEXT,
    ORDER,
    as_avro,
    as_json,
    as_protobuf,
    mapped,
    order_message,
    orders,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.slow,
    # confluent-kafka's clients leave their connections to the interpreter, which warns of those that are kept alive
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    with Apicurio(tmp_path_factory.mktemp("apicurio")) as running:
        yield running


@pytest.mark.parametrize(
    ("kind", "write"),
    [("avro", lambda server: as_avro(server, AVRO, ORDER)), ("protobuf", as_protobuf), ("json_schema", as_json)],
    ids=["avro", "protobuf", "json_schema"],
)
def test_what_confluent_s_serializers_write_becomes_order_lines(
    server: Apicurio, kind: str, write: Callable[[Any], bytes]
) -> None:
    made = mapped(server, kind, write(server))
    assert made.letters == []
    assert [(each["event_id"], each["sku"], each["unit_price"]) for each in orders(made)] == [
        ("o1/1", "A-1", 2.5),
        ("o1/2", "B", 2.5),
    ]


def test_protobuf_schemas_as_text_with_imports_are_compiled(server: Apicurio) -> None:
    """Apicurio gives them as they were registered, whatever the format that is asked for."""
    client = SchemaRegistryClient({"url": server.url})
    made = mapped(server, "protobuf", order_message(client))
    assert made.letters == []
    assert [each["sku"] for each in orders(made)] == ["A-1", "B"]


def test_a_schema_may_refer_to_others_and_evolve(server: Apicurio) -> None:
    client = SchemaRegistryClient({"url": server.url})
    client.register_schema("line", Schema(json.dumps(AVRO_LINE), "AVRO"))
    lines = {"name": "lines", "type": {"type": "array", "items": "shop.Line"}}
    outer = {**AVRO, "name": "Referring", "fields": [*AVRO["fields"][:4], lines]}
    newer = {**outer, "fields": [*outer["fields"], {"name": "note", "type": ["null", "string"], "default": None}]}
    values = [
        AvroSerializer(client, Schema(json.dumps(each), "AVRO", [SchemaReference("shop.Line", "line", 1)]))(
            {**ORDER, "note": None}, CONTEXT
        )
        for each in (outer, newer)
    ]
    assert values[0][:5] != values[1][:5]
    assert len(orders(mapped(server, "avro", *values))) == 4


def test_a_schema_that_is_not_there_is_a_letter(server: Apicurio) -> None:
    (letter,) = mapped(server, "avro", b"\0\0\x0f\xff\xffabc").letters
    assert "has no schema 1048575" in letter.error
