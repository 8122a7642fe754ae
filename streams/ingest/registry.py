"""Messages that are framed by a schema registry: Avro and Protobuf decoded with the schema they were written with.

A frame is a 0, the schema's id in four bytes, and the content. A schema id never changes its meaning, so that each is
fetched once; a new version of a schema is another id, which its messages name. Needs the extra `registry`.

What is decoded is what JSON has: see streams/intake/avro.py and streams/ingest/protobuf.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from subprocess import SubprocessError
from typing import TYPE_CHECKING, Any, Final, Literal

from schemas.errors import BadSetting, LoginRefused, Unavailable
from schemas.refusals import FRAME_BYTES
from streams.ingest import protobuf
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
_JSON_BEGINS: Final = ("{", "[", '"')
_NO_SUCH: Final = (400, 404, 422)
_LARGEST_ID: Final = (1 << 31) - 1
_NO_JSON: Final = -1  # what the client makes of an answer that is none of a registry: of a proxy, of a wrong path
_UNAUTHORIZED: Final = (401, 403)


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
        self._url = _without_login(self._url)  # for sentences
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
        if number > _LARGEST_ID:
            msg = f"the value begins with a zero byte, and no schema has the id {number} that follows"
            raise NotReadable(msg)
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
        make, how = (protobuf.decoder, "serialized") if kind == "protobuf" else (avro.decoder, None)
        schema = self._ask(partial(self._client.get_schema, number, fmt=how), f"schema {number}")
        found = _type_of(schema)
        if found != _TYPES[kind]:
            msg = f"schema {number} is {found}, the mapping says format {kind}"
            raise NotReadable(msg)
        try:
            return make(schema.schema_str or "", self._references(schema, how))
        except NotReadable:
            raise
        except (OSError, SubprocessError) as error:  # of this machine: it passes with time
            msg = f"schema {number} cannot be compiled just now: {error}"
            raise Unavailable(msg) from error
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
            if error.http_status_code in _NO_SUCH and error.error_code != _NO_JSON:
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


def _without_login(url: str) -> str:
    """Take user and password out of a URL.

    >>> _without_login("https://shop:secret@registry:8081/v7")
    'https://registry:8081/v7'
    """
    scheme, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def _type_of(schema: Schema) -> str:
    """Name the type of a schema; one that is not told is Avro, and Avro is JSON (Apicurio 2 tells it of none)."""
    told = schema.schema_type or "AVRO"
    is_json = (schema.schema_str or "").lstrip()[:1] in _JSON_BEGINS
    return "PROTOBUF" if told == "AVRO" and not is_json else told


def _number(name: str, value: str) -> str | float | int:
    if name not in _NUMBERS:
        return value
    return float(value) if "." in value else int(value)
