"""Messages that are framed by a schema registry: Avro and Protobuf decoded with the schema they were written with.

A frame is a 0, the schema's id in four bytes, and the content. A schema id never changes its meaning, so that each is
fetched once; a new version of a schema is another id, which its messages name. Needs the extra `registry`.

What is decoded is what JSON has: see streams/intake/avro.py; of Protobuf its JSON, with the names of the schema, in
which 64-bit integers are text.
"""

from __future__ import annotations

import time
from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from schemas.errors import BadSetting, LoginRefused, Unavailable
from schemas.refusals import FRAME_BYTES
from streams.ingest.envelopes import NotReadable
from streams.intake import avro

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema

Kind = Literal["avro", "protobuf"]
Decode = Callable[[bytes], Any]
_TYPES: Final[Mapping[Kind, str]] = {"avro": "AVRO", "protobuf": "PROTOBUF"}
_DEFAULTS: Final = {"timeout": 5.0, "max.retries": 0}  # whoever asks asks again, and heeds SIGTERM meanwhile
_NUMBERS: Final = ("timeout", "max.retries", "retries.wait.ms", "retries.max.wait.ms", "cache.capacity")
_KNOWN_MISSING_S: Final = 30.0  # how long an id that the registry does not know is not asked for again
_NOT_FOUND: Final = 404
_UNAUTHORIZED: Final = (401, 403)
_MOST_INDEXES: Final = 32  # depth of a message within a Protobuf file


class Registry:
    """The schemas of one registry. properties: of confluent-kafka's SchemaRegistryClient, as text."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        """Connect to nothing yet; `BadSetting` where a property cannot be used or the extra is not installed."""
        try:
            import fastavro  # noqa: F401, PLC0415 - the extra
            from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415
        except ImportError as error:
            msg = f"reading a schema registry needs `skutrend[registry]`: {error}"
            raise BadSetting(msg) from error
        self._url = properties.get("url", "")
        if not self._url:
            msg = "messages in Avro or Protobuf need SKUTREND_SCHEMA_REGISTRY_URL"
            raise BadSetting(msg)
        try:
            self._client = SchemaRegistryClient(_DEFAULTS | {k: _number(k, v) for k, v in properties.items()})
        except (ValueError, TypeError, OSError) as error:
            msg = f"SKUTREND_SCHEMA_REGISTRY_... cannot be used: {error}"
            raise BadSetting(msg) from error
        self._decoders: dict[tuple[Kind, int], Decode] = {}
        self._missing: dict[tuple[Kind, int], tuple[float, str]] = {}

    def decode(self, value: bytes, kind: Kind) -> Any:  # noqa: ANN401 - whatever the schema says
        """Decode a framed message. `NotReadable` where it is none, or its schema is not there.

        `Unavailable` where the registry cannot say just now, `LoginRefused` where it lets nobody in.
        """
        if len(value) < FRAME_BYTES or value[0] != 0:
            msg = f"the value has no schema registry's frame, which a message in {kind} begins with"
            raise NotReadable(msg)
        number = int.from_bytes(value[1:FRAME_BYTES], "big")
        decoder = self._decoders.get((kind, number)) or self._decoder(kind, number)
        try:
            return decoder(value[FRAME_BYTES:])
        except Exception as error:  # fastavro and protobuf raise what their parts raise for bytes
            msg = f"the value cannot be read with schema {number}: {type(error).__name__}"
            raise NotReadable(msg) from error

    def _decoder(self, kind: Kind, number: int) -> Decode:
        until_s, why = self._missing.get((kind, number), (0.0, ""))
        if time.monotonic() < until_s:
            raise NotReadable(why)
        try:
            made = self._fetch(kind, number)
        except NotReadable as error:
            self._missing[kind, number] = time.monotonic() + _KNOWN_MISSING_S, str(error)
            raise
        self._decoders[kind, number] = made
        return made

    def _fetch(self, kind: Kind, number: int) -> Decode:
        make, how = (_protobuf, "serialized") if kind == "protobuf" else (_avro, None)
        schema = self._ask(partial(self._client.get_schema, number, fmt=how), f"schema {number}")
        if (schema.schema_type or "AVRO") != _TYPES[kind]:
            msg = f"schema {number} is {schema.schema_type}, the mapping says format {kind}"
            raise NotReadable(msg)
        try:
            return make(schema, self._references(schema, how))
        except NotReadable:
            raise
        except Exception as error:  # whatever is wrong with a schema
            msg = f"schema {number} cannot be used: {type(error).__name__}: {error}"
            raise NotReadable(msg) from error

    def _references(self, schema: Schema, how: str | None) -> dict[str, str]:
        """Fetch what a schema refers to: text by name, each after what it refers to itself."""
        found: dict[str, str] = {}
        for each in schema.references or ():
            if each.name in found or each.name.startswith("google/"):
                continue
            what = f"version {each.version} of {each.subject}"
            asked = partial(self._client.get_version, each.subject, each.version, deleted=True, fmt=how)
            inner = self._ask(asked, what).schema
            found |= self._references(inner, how) | {each.name: inner.schema_str or ""}
        return found

    def _ask(self, call: Callable[[], Any], what: str) -> Any:  # noqa: ANN401 - what the call gives
        """Ask the registry, and sort out why it has no answer."""
        from confluent_kafka.schema_registry import SchemaRegistryError  # noqa: PLC0415 - the extra

        try:
            return call()
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                msg = f"the schema registry at {self._url} has no {what}"
                raise NotReadable(msg) from error
            if error.http_status_code in _UNAUTHORIZED:
                msg = (
                    f"the schema registry at {self._url} refuses {what} ({error.http_status_code}): set "
                    "SKUTREND_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO to user:password, of one that may read it"
                )
                raise LoginRefused(msg) from error
            msg = f"the schema registry at {self._url} cannot give {what}: {error}"
            raise Unavailable(msg) from error
        except Exception as error:  # httpx's errors, which the client lets through
            msg = f"the schema registry at {self._url} does not answer: {type(error).__name__}: {error}"
            raise Unavailable(msg) from error


def _number(name: str, value: str) -> str | float | int:
    if name not in _NUMBERS:
        return value
    return float(value) if "." in value else int(value)


def _avro(schema: Schema, references: Mapping[str, str]) -> Decode:
    return avro.decoder(schema.schema_str or "", references)


# ---------------------------------------------------------------------- Protobuf
def _protobuf(schema: Schema, references: Mapping[str, str]) -> Decode:
    from google.protobuf import descriptor_pool, json_format, message_factory  # noqa: PLC0415 - the extra

    pool = descriptor_pool.DescriptorPool()
    _add_well_known(pool)
    for name, text in references.items():
        pool.Add(_file(name, text))
    file = _file("", schema.schema_str or "")
    pool.Add(file)
    described = pool.FindFileByName(file.name)
    order = [each.name for each in file.message_type]
    classes: dict[tuple[int, ...], type[Any]] = {}

    def decode(content: bytes) -> Any:  # noqa: ANN401 - whatever the schema says
        path, start = _message_path(content)
        if path not in classes:
            found = described.message_types_by_name[order[path[0]]]
            for index in path[1:]:
                found = found.nested_types[index]
            classes[path] = message_factory.GetMessageClass(found)
        message = classes[path].FromString(content[start:])
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, descriptor_pool=pool
        )

    return decode


def _file(name: str, text: str) -> Any:  # noqa: ANN401 - protobuf has no types
    """Decode a file as a registry serializes it. name: by which others refer to it, "" as the file itself says."""
    from google.protobuf import descriptor_pb2, message  # noqa: PLC0415 - the extra

    try:
        file = descriptor_pb2.FileDescriptorProto.FromString(b64decode(text, validate=True))
    except (NoBase64, ValueError, message.DecodeError) as error:
        msg = "the schema registry does not serialize Protobuf schemas (GET /schemas/ids/ID?format=serialized)"
        raise NotReadable(msg) from error
    file.name = name or file.name or "message.proto"
    return file


def _add_well_known(pool: Any) -> None:  # noqa: ANN401 - protobuf has no types
    """Let schemas import google/protobuf/*.proto, which registries do not keep."""
    from google.protobuf import (  # noqa: PLC0415 - the extra
        any_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )
    from google.type import date_pb2, datetime_pb2, decimal_pb2, money_pb2  # noqa: PLC0415

    known = (any_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
    for each in (*known, descriptor_pb2, date_pb2, datetime_pb2, decimal_pb2, money_pb2):
        pool.AddSerializedFile(each.DESCRIPTOR.serialized_pb)


def _message_path(content: bytes) -> tuple[tuple[int, ...], int]:
    """Read which message of its file a content is: indexes of nested messages, and where the message begins."""
    count, at = _varint(content, 0)
    if count == 0:
        return (0,), at
    if not 0 < count <= _MOST_INDEXES:
        msg = f"{count} message indexes"
        raise ValueError(msg)
    path = []
    for _ in range(count):
        index, at = _varint(content, at)
        path.append(index)
    if min(path) < 0:
        msg = f"message indexes {path}"
        raise ValueError(msg)
    return tuple(path), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Read a zigzag varint: its value, and where it ends."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return (value >> 1) ^ -(value & 1), at
