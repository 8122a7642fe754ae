"""What confluent-kafka's own serializers write, read back through a registry; and a registry that is not well."""

from __future__ import annotations

import datetime
import decimal
import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol
from unittest.mock import Mock

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadSetting, LoginRefused, Unavailable
from streams.ingest.envelopes import NotReadable
from streams.ingest.registry import Registry
from streams.ingest.stage import NOT_JSON, UNMAPPED, Made, Stage
from streams.intake.convert import Local
from streams.intake.mapping import parse
from tests.support.schema_registry import SchemaRegistry
from tests.unit.ingest.test_stage import Said

TOPIC = "shop.orders"
CONTEXT = SerializationContext(TOPIC, MessageField.VALUE)
AT = datetime.datetime(2026, 3, 1, 8, 30, tzinfo=datetime.UTC)
AT_MS = int(AT.timestamp() * 1000)
LINE = {"sku": "A-1", "pieces": 3, "price": decimal.Decimal("2.50")}
ORDER = {"id": "o1", "currency": "EUR", "at": AT, "customer_id": None, "lines": [LINE, {**LINE, "sku": "B"}]}
MAPPING = """
name = "bus"
title = "orders of a bus"
[orders]
format = "FORMAT"
topics = ["shop.orders"]
each = "lines"
[orders.fields]
order_id = "parent.id"
sku = "sku"
quantity = "pieces"
unit_price = "price"
currency = "parent.currency"
event_time_ms = "parent.at"
customer_id = "parent.customer_id"
"""
AVRO_LINE: dict[str, Any] = {
    "type": "record",
    "name": "Line",
    "namespace": "shop",
    "fields": [
        {"name": "sku", "type": "string"},
        {"name": "pieces", "type": "int"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    ],
}
AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "currency", "type": {"type": "enum", "name": "Currency", "symbols": ["EUR", "GBP"]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "customer_id", "type": ["null", "string"], "default": None},
        {"name": "lines", "type": {"type": "array", "items": AVRO_LINE}},
    ],
}


@pytest.fixture
def server() -> Iterator[SchemaRegistry]:
    with SchemaRegistry() as made:
        yield made


class Registered(Protocol):
    """A schema registry that is running, ours or a real one."""

    url: str


def mapped(server: Registered, kind: str, *values: bytes) -> Made:
    stage = Stage(parse(MAPPING.replace("FORMAT", kind), "bus"), Local(), lambda: Registry({"url": server.url}))
    return stage.run([Said(value, at=at) for at, value in enumerate(values)])


def orders(made: Made) -> list[dict[str, Any]]:
    return [json.loads(value) for value in made.records.get("orders", ([], []))[1]]


def as_avro(server: Registered, schema: dict[str, Any], order: dict[str, Any]) -> bytes:
    client = SchemaRegistryClient({"url": server.url})
    value: bytes = AvroSerializer(client, json.dumps(schema))(order, CONTEXT)
    return value


def protobuf_class() -> Any:  # noqa: ANN401 - protobuf has no types
    """Two messages of a file; the order is the second, so that its index is in the frame."""
    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    line = file.message_type.add(name="Line")
    order = file.message_type.add(name="Order")
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind) in enumerate(
        (("sku", kinds.TYPE_STRING), ("pieces", kinds.TYPE_INT64), ("price", kinds.TYPE_DOUBLE)), 1
    ):
        line.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    for number, name in enumerate(("id", "currency", "customer_id"), 1):
        order.field.add(name=name, number=number, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    order.field.add(
        name="at", number=4, type=kinds.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=kinds.LABEL_OPTIONAL
    )
    order.field.add(name="lines", number=5, type=kinds.TYPE_MESSAGE, type_name=".shop.Line", label=kinds.LABEL_REPEATED)
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName("order.proto")
    except KeyError:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


def as_protobuf(server: Registered) -> bytes:
    client = SchemaRegistryClient({"url": server.url})
    serializer = ProtobufSerializer(protobuf_class(), client, {"use.deprecated.format": False})
    value: bytes = serializer(order_of_lines(), CONTEXT)
    return value


def order_of_lines() -> Any:  # noqa: ANN401 - likewise
    lines = [{**line, "price": float(line["price"])} for line in ORDER["lines"]]  # type: ignore[attr-defined]
    order = protobuf_class()(id="o1", currency="EUR", lines=lines)
    order.at.FromDatetime(AT)
    return order


LINE_PROTO = """
syntax = "proto3";
package shop;
message Line {
  string sku = 1;
  int64 pieces = 2;
  double price = 3;
}
"""
ORDER_PROTO = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "shop/line.proto";
message Note {}
message Order {
  string id = 1;
  string currency = 2;
  string customer_id = 3;
  google.protobuf.Timestamp at = 4;
  repeated Line lines = 5;
}
"""


def order_message(client: SchemaRegistryClient, *, text: str = ORDER_PROTO, imported: str = "shop/line.proto") -> bytes:
    """Register schemas as Java's producers do, and frame an order with them."""
    client.register_schema("line-proto", Schema(LINE_PROTO, "PROTOBUF"))
    number = client.register_schema(
        "order-proto", Schema(text, "PROTOBUF", [SchemaReference(imported, "line-proto", 1)])
    )
    return b"\0" + number.to_bytes(4, "big") + b"\x02\x02" + order_of_lines().SerializeToString()


def as_json(server: Registered) -> bytes:
    lines = [{**line, "price": float(line["price"])} for line in ORDER["lines"]]  # type: ignore[attr-defined]
    client = SchemaRegistryClient({"url": server.url})
    schema = {"title": "Order", "type": "object", "properties": {"id": {"type": "string"}}}
    value: bytes = JSONSerializer(json.dumps(schema), client)({**ORDER, "at": AT.isoformat(), "lines": lines}, CONTEXT)
    return value


@pytest.mark.parametrize(
    ("kind", "write"),
    [("avro", lambda server: as_avro(server, AVRO, ORDER)), ("protobuf", as_protobuf), ("json_schema", as_json)],
    ids=["avro", "protobuf", "json_schema"],
)
def test_what_confluent_s_serializers_write_becomes_order_lines(
    server: SchemaRegistry, kind: str, write: Callable[[SchemaRegistry], bytes]
) -> None:
    value = write(server)
    assert value[0] == 0
    made = mapped(server, kind, value)
    assert made.letters == []
    first, second = orders(made)
    assert (first["event_id"], first["order_id"], first["sku"]) == ("o1/1", "o1", "A-1")
    assert (first["quantity"], first["unit_price"], first["currency"]) == (3.0, 2.5, "EUR")
    assert (first["event_time_ms"], first["customer_id"]) == (AT_MS, None)
    assert (second["event_id"], second["sku"]) == ("o1/2", "B")


def test_messages_of_two_versions_of_a_schema_are_each_read_with_their_own_which_is_asked_for_once(
    server: SchemaRegistry,
) -> None:
    newer = {**AVRO, "fields": [{"name": "note", "type": "string"}, *AVRO["fields"]]}
    old, new = as_avro(server, AVRO, ORDER), as_avro(server, newer, {**ORDER, "id": "o2", "note": "a gift"})
    server.asked.clear()
    made = mapped(server, "avro", old, new, old, new)
    assert [each["event_id"] for each in orders(made)] == ["o1/1", "o1/2", "o2/1", "o2/2"] * 2
    assert len(server.asked) == 2


def test_a_schema_may_refer_to_others(server: SchemaRegistry) -> None:
    client = SchemaRegistryClient({"url": server.url})
    client.register_schema("line", Schema(json.dumps(AVRO_LINE), "AVRO"))
    lines = {"name": "lines", "type": {"type": "array", "items": "shop.Line"}}
    outer = Schema(
        json.dumps({**AVRO, "fields": [*AVRO["fields"][:4], lines]}), "AVRO", [SchemaReference("shop.Line", "line", 1)]
    )
    value = AvroSerializer(client, outer)(ORDER, CONTEXT)
    assert len(orders(mapped(server, "avro", value))) == 2


def test_protobuf_schemas_as_text_are_compiled_with_what_they_import(server: SchemaRegistry) -> None:
    made = mapped(server, "protobuf", order_message(SchemaRegistryClient({"url": server.url})))
    assert made.letters == []
    assert [(each["event_id"], each["quantity"], each["event_time_ms"]) for each in orders(made)] == [
        ("o1/1", 3.0, AT_MS),
        ("o1/2", 3.0, AT_MS),
    ]


@pytest.mark.parametrize(
    ("text", "imported", "said"),
    [
        ('syntax = "proto3"; message {', "shop/line.proto", "the schema cannot be compiled: skutrend.main.proto:1:28"),
        (ORDER_PROTO, "line.proto", "shop/line.proto: File not found"),
        (ORDER_PROTO, "../line.proto", "has the name '../line.proto', which is no path of imports"),
        (ORDER_PROTO, "/line.proto", "has the name '/line.proto', which is no path of imports"),
    ],
    ids=["broken", "not among the references", "above", "anywhere"],
)
def test_protobuf_schemas_that_cannot_be_compiled_say_why(
    server: SchemaRegistry, text: str, imported: str, said: str
) -> None:
    client = SchemaRegistryClient({"url": server.url})
    (letter,) = mapped(server, "protobuf", order_message(client, text=text, imported=imported)).letters
    assert said in letter.error


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b'{"id": 1}', "no schema registry's frame, which a message in avro begins with"),
        (b"\0\0\0", "no schema registry's frame"),
        (b"\0\0\0\x03\xe7abc", "has no schema 999"),
        (b"\0\0\0\0\x01", "cannot be read with schema 1"),
        (b"\0\0\0\0\x01" + b"\xff" * 40, "cannot be read with schema 1"),
        (b"\0\0\0\0\x02\0", "schema 2 is PROTOBUF, the mapping says format avro"),
        (b"\0\0\0\0\x03x", "schema 3 cannot be used"),
        (b"\0\0\0\0\x04\x02", "the value must be a record"),
    ],
    ids=range(8),
)
def test_what_cannot_be_read_is_a_letter_that_says_why(server: SchemaRegistry, value: bytes, said: str) -> None:
    good = as_avro(server, AVRO, ORDER)
    server.add("other", {"schema": "", "schemaType": "PROTOBUF"})
    server.add("broken", {"schema": '{"type": "record"}'})
    server.add("number", {"schema": '"int"'})
    made = mapped(server, "avro", good, value, good, value)
    assert [(letter.at, letter.code) for letter in made.letters] == [(1, UNMAPPED), (3, UNMAPPED)]
    assert said in made.letters[0].error
    assert len(orders(made)) == 4
    missing = [asked for asked in server.asked if asked.startswith("GET /schemas/ids/999")]
    assert len(missing) <= 1, "not asked for again and again"


def test_json_that_is_none_stays_what_it_was(server: SchemaRegistry) -> None:
    made = mapped(server, "json_schema", b"\0\0\0\0\x07{")
    assert [letter.code for letter in made.letters] == [NOT_JSON]


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[str, Registry]]:
    """A registry in which 1 is Avro and 2 Protobuf, both fetched already."""
    with SchemaRegistry() as server:
        as_avro(server, AVRO, ORDER)
        as_protobuf(server)
        yield {"avro": Registry({"url": server.url}), "protobuf": Registry({"url": server.url})}


@pytest.mark.parametrize(("kind", "number"), [("avro", 1), ("protobuf", 2)])
@given(content=st.binary(max_size=200))
def test_whatever_a_frame_holds_it_is_read_or_said_to_be_unreadable(
    readers: dict[str, Registry], kind: Literal["avro", "protobuf"], number: int, content: bytes
) -> None:
    try:
        found = readers[kind].decode(b"\0\0\0\0%c%b" % (number, content), kind)
    except NotReadable:
        return
    json.dumps(found)


def test_a_registry_that_does_not_answer_is_waited_for(server: SchemaRegistry) -> None:
    value = as_avro(server, AVRO, ORDER)
    registry = Registry({"url": server.url})
    server.answers = False
    with pytest.raises(Unavailable, match=rf"the schema registry at {server.url} cannot give schema 1: no leader"):
        registry.decode(value, "avro")
    server.answers = True
    assert registry.decode(value, "avro")["id"] == "o1"
    server.answers = False
    assert registry.decode(value, "avro")["id"] == "o1", "what is known needs no answer"
    with pytest.raises(Unavailable, match=r"at http://127\.0\.0\.1:9 does not answer: ConnectError"):
        Registry({"url": "http://127.0.0.1:9"}).decode(value, "avro")


def test_an_answer_that_is_none_of_a_registry_is_waited_for(
    server: SchemaRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a proxy in front of it, say: each message became a dead letter."""
    value = as_avro(server, AVRO, ORDER)
    monkeypatch.setattr("tests.support.schema_registry.json.dumps", lambda _: "no such page")
    monkeypatch.setattr(SchemaRegistry, "answer", lambda *_: (404, {}))
    with pytest.raises(Unavailable, match="cannot give schema 1"):
        Registry({"url": server.url}).decode(value, "avro")


def test_a_compiler_that_does_not_end_or_has_no_room_is_waited_for(
    server: SchemaRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, registry = order_message(SchemaRegistryClient({"url": server.url})), Registry({"url": server.url})
    for trouble in (subprocess.TimeoutExpired("protoc", 30), OSError(28, "No space left on device")):
        monkeypatch.setattr("streams.ingest.protobuf.subprocess.run", Mock(side_effect=trouble))
        with pytest.raises(Unavailable, match="cannot be compiled just now"):
            registry.decode(value, "protobuf")
    monkeypatch.undo()
    assert registry.decode(value, "protobuf")["id"] == "o1"


def test_no_sentence_tells_the_login_of_a_url(server: SchemaRegistry) -> None:
    url = server.url.replace("http://", "http://shop:secret@")
    with pytest.raises(NotReadable) as raised:
        Registry({"url": url}).decode(b"\0\0\0\0\x63abc", "avro")
    assert str(raised.value) == f"the schema registry at {server.url} has no schema 99"


def test_a_registry_that_lets_nobody_in_says_what_to_set() -> None:
    with SchemaRegistry() as server:
        value = as_avro(server, AVRO, ORDER)
        server.user = "shop:secret"
        with pytest.raises(LoginRefused, match=r"refuses schema 1 \(401\): set SKUTREND_SCHEMA_REGISTRY_BASIC_AUTH"):
            Registry({"url": server.url}).decode(value, "avro")
        known = Registry(
            {"url": server.url, "basic.auth.user.info": "shop:secret", "timeout": "2.5", "max.retries": "1"}
        )
        assert known.decode(value, "avro")["id"] == "o1"


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({}, "need SKUTREND_SCHEMA_REGISTRY_URL"),
        ({"url": "registry:8081"}, "cannot be used: Invalid url registry:8081"),
        ({"url": "http://r", "nonsense": "1"}, "cannot be used: Unrecognized properties: nonsense"),
        ({"url": "http://r", "timeout": "soon"}, "cannot be used"),
        ({"url": "https://r", "ssl.ca.location": "/nowhere.pem"}, "cannot be used"),
    ],
)
def test_settings_that_cannot_be_used_are_reported_at_the_start(properties: dict[str, str], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        Stage(parse(MAPPING.replace("FORMAT", "avro"), "bus"), Local(), lambda: Registry(properties))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_format_that_no_message_has_is_reported_at_the_start(kind: str) -> None:
    with pytest.raises(BadSetting, match=rf"\[orders\] reads topics in format '{kind}'; messages are json,"):
        Stage(parse(MAPPING.replace("FORMAT", kind), "bus"), Local())
