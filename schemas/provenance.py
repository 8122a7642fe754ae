"""Where a record came from, and the headers that say so on `late-events` and `dead-letters`.

A header's value is text in UTF-8; numbers are decimal. The record itself keeps its original key and bytes, unless they
do not fit into its topic: of what was cut, headers tell the original size and SHA-256 (`CUT`). Where a whole range of
offsets could not be read, the letter has neither key nor value, and a header `last_offset` (`LAST_OFFSET`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from schemas.errors import Malformed

Headers = list[tuple[str, bytes]]

CUT: Final[Mapping[str, tuple[str, str]]] = {
    "key": ("cut_key_from_bytes", "cut_key_sha256"),
    "value": ("cut_from_bytes", "cut_sha256"),
    "headers": ("cut_headers_from_bytes", "cut_headers_sha256"),
}
"""By part of a record that was cut: the headers with its original size in bytes, and the SHA-256 of all of it in hex.

Of the original headers all are left out or none; their SHA-256 is that of MessagePack: [[name, value or nil], ...].
"""
LAST_OFFSET: Final = "last_offset"

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
    `source` the record's place as `topic[partition]@offset`. `corrected` is 1 where the event has changed that window,
    else 0; records of earlier versions do not have it.
    """

    late_by_ms: int
    window_start_ms: int
    source: str
    corrected: int | msgspec.UnsetType = msgspec.UNSET


_H = TypeVar("_H", DeadLetterHeaders, LateEventHeaders)


def dead_letter_headers(*, code: str, error: str, source: Source) -> Headers:
    """Header list of one dead letter, as Kafka clients take it."""
    return _written(DeadLetterHeaders(code=code, error=error, source=str(source)))


def late_event_headers(*, late_by_ms: int, window_start_ms: int, source: Source, corrected: bool = False) -> Headers:
    """Header list of one late event, as Kafka clients take it."""
    return _written(
        LateEventHeaders(
            late_by_ms=late_by_ms, window_start_ms=window_start_ms, source=str(source), corrected=int(corrected)
        )
    )


def cut_headers(part: str, size_bytes: int, whole: bytes) -> Headers:
    """Headers that tell of a part that was cut. whole: the original; of headers, as `CUT` says.

    >>> cut_headers("value", 3, b"abc")[0]
    ('cut_from_bytes', b'3')
    """
    size, digest = CUT[part]
    return [(size, b"%d" % size_bytes), (digest, hashlib.sha256(whole).hexdigest().encode())]


def left_out(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """Say what of the original a dead letter or late event lacks; empty where it is whole.

    Only what follows the last `code` or `late_by_ms` counts: what comes before are the original's own headers.
    """
    ours: dict[str, str] = {}
    for name, value in headers:
        if name in {"code", "late_by_ms"}:
            ours.clear()
        ours[name] = (value or b"").decode("utf-8", "backslashreplace")
    if LAST_OFFSET in ours:
        return f"all of its records, up to offset {ours[LAST_OFFSET]}"
    sizes = [(part, ours[size]) for part, (size, _) in CUT.items() if size in ours]
    return ", ".join(f"{part} (of {int(size):,} bytes)" if size.isdecimal() else part for part, size in sizes)


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
