"""Avro, of messages and of files: what it holds becomes what JSON has, so that mappings read both alike.

Times become ISO 8601 text, in UTC where the schema says an instant; decimals numbers; bytes and UUIDs text. Needs the
extra `registry`.
"""

from __future__ import annotations

import datetime
import decimal
import io
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from schemas.errors import BadInput


def decoder(schema: str, references: Mapping[str, str]) -> Callable[[bytes], Any]:
    """Make what decodes messages of a schema. references: schemas that it names, each after those it names itself."""
    import fastavro  # noqa: PLC0415 - the extra

    named: dict[str, Any] = {}
    for text in references.values():
        fastavro.parse_schema(_json(text), named_schemas=named)
    parsed = fastavro.parse_schema(_json(schema), named_schemas=named)

    def decode(content: bytes) -> Any:  # noqa: ANN401 - whatever the schema says
        stream = io.BytesIO(content)
        found = fastavro.schemaless_reader(stream, parsed, None)
        if stream.tell() != len(content):
            msg = "there is more than the schema says"
            raise ValueError(msg)
        return plain(found)

    return decode


def records(path: Path) -> Iterator[Any]:
    """Read an object container file; `BadInput` where it is none."""
    try:
        import fastavro  # noqa: PLC0415 - the extra
    except ImportError as error:
        msg = f"{path}: reading Avro needs `skutrend[registry]`"
        raise BadInput(msg) from error
    with path.open("rb") as file:
        try:
            for found in fastavro.reader(file):
                yield plain(found)
        except (ValueError, EOFError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
            msg = f"{path} is no Avro file, or broken: {type(error).__name__}: {error}"
            raise BadInput(msg) from error


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever a schema says
    """Make of a decoded value what JSON has.

    >>> plain({"at": datetime.datetime(2026, 3, 1, 8, tzinfo=datetime.UTC), "price": decimal.Decimal("1.50")})
    {'at': '2026-03-01T08:00:00+00:00', 'price': 1.5}
    """
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value) if isinstance(value, uuid.UUID) else value


def _number(value: decimal.Decimal) -> int | float | str:
    """Make a number of a decimal where one holds all of it, else its text: it may be an id.

    >>> _number(decimal.Decimal("1.50")), _number(decimal.Decimal("12345678901234567891"))
    (1.5, 12345678901234567891)
    """
    if value.is_finite() and value == value.to_integral_value():
        return int(value)
    return float(value) if decimal.Decimal(repr(float(value))) == value else str(value)


def _json(text: str) -> Any:  # noqa: ANN401 - a schema is text, a list or an object
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:  # the name of a primitive type may stand without quotes
        return text
