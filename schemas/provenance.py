"""Where a record came from, and the headers that say so on `late-events` and `dead-letters`.

A header's value is text in UTF-8; numbers are decimal. The record itself keeps its original key and bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from schemas.errors import Malformed

Headers = list[tuple[str, bytes]]

_SOURCE: Final = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)\[(?P<partition>\d+)\]@(?P<offset>\d+)", re.ASCII)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The place of one record in Kafka; written as `topic[partition]@offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Give `topic[partition]@offset`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read `topic[partition]@offset` back; raises Malformed for anything else.

        >>> Source.parse("orders[3]@17")
        Source(topic='orders', partition=3, offset=17)
        """
        found = _SOURCE.fullmatch(text)
        if found is None:
            message = f"a source reads topic[partition]@offset, found {text!r}"
            raise Malformed(message)
        return cls(topic=found["topic"], partition=int(found["partition"]), offset=int(found["offset"]))


class DeadLetterHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The headers of a record of `dead-letters`, whose key and value are those of the unusable record.

    `code` is stable (see schemas/refusals.py), `error` a sentence for a person, `source` the record's place as
    `topic[partition]@offset`.
    """

    code: str
    error: str
    source: str


class LateEventHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The headers of a record of `late-events`, whose key and value are those of the event.

    `late_by_ms` says how far the event lay behind the watermark, `window_start_ms` which closed window it belongs to,
    `source` the record's place as `topic[partition]@offset`.
    """

    late_by_ms: int
    window_start_ms: int
    source: str


_H = TypeVar("_H", DeadLetterHeaders, LateEventHeaders)


def dead_letter_headers(*, code: str, error: str, source: Source) -> Headers:
    """Header list of one dead letter, as Kafka clients take it."""
    return _written(DeadLetterHeaders(code=code, error=error, source=str(source)))


def late_event_headers(*, late_by_ms: int, window_start_ms: int, source: Source) -> Headers:
    """Header list of one late event, as Kafka clients take it."""
    return _written(LateEventHeaders(late_by_ms=late_by_ms, window_start_ms=window_start_ms, source=str(source)))


def read_dead_letter_headers(headers: Iterable[tuple[str, bytes | None]]) -> DeadLetterHeaders:
    """Headers of a dead letter; others are ignored. Raises Malformed where one is missing or unreadable."""
    return _read(headers, DeadLetterHeaders)


def read_late_event_headers(headers: Iterable[tuple[str, bytes | None]]) -> LateEventHeaders:
    """Headers of a late event; others are ignored. Raises Malformed where one is missing or unreadable."""
    return _read(headers, LateEventHeaders)


def _written(headers: DeadLetterHeaders | LateEventHeaders) -> Headers:
    return [
        (name, str(value).encode("utf-8", "backslashreplace"))
        for name, value in msgspec.structs.asdict(headers).items()
    ]


def _read(headers: Iterable[tuple[str, bytes | None]], kind: type[_H]) -> _H:
    texts = {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in headers}
    try:
        return msgspec.convert(texts, kind, strict=False)
    except msgspec.ValidationError as error:
        message = f"the headers do not fit {kind.__name__}: {error}"
        raise Malformed(message) from error
