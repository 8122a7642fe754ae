"""Records that go out again as they came: dead letters and late events.

The original key, bytes and headers are kept, but for personal data (streams/config/personal.py), and headers of ours
are added (schemas/provenance.py). A record that would not fit into its topic any more with those is cut to what fits,
and says so in further headers: a record that cannot be written would otherwise stop the worker at one offset for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from schemas.provenance import LAST_OFFSET, Source, cut_headers, dead_letter_headers, late_event_headers
from streams.config.personal import Masker
from streams.kafka.topics import DEFAULT_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from features.admission import Late
    from schemas.columns import Refusal
    from schemas.provenance import Headers
    from streams.kafka.batch import RecordBatch, Skipped
    from streams.kafka.output_producer import OutputProducer

_SPARE: Final = 128  # one part of so many: compression makes noise a little larger
_BATCH_BYTES: Final = 61  # the header of a record batch
_FIXED_BYTES: Final = 3  # a record's attributes, and its distances from the first time and offset of the batch
_MOST_VARINT_BYTES: Final = 5
_DIGEST_BYTES: Final = 64
_SHARE: Final = 4  # key and headers may take one part of so many from a value that needs the room
_VARINT_BITS: Final = 7


@dataclass(frozen=True, slots=True)
class SideOutputs:
    """Where such records go. limit_bytes: `max.message.bytes` of the topics, the smaller one.

    masker: hides personal data.
    """

    producer: OutputProducer
    dead_letters: str
    late_events: str
    limit_bytes: int = DEFAULT_LIMIT_BYTES
    masker: Masker = field(default_factory=Masker)

    def dead_letter(self, batch: RecordBatch, refusal: Refusal) -> None:
        """Send an unusable record to the dead letters."""
        source = source_of(batch, refusal.row)
        ours = dead_letter_headers(code=refusal.code, error=refusal.error, source=source)
        self._forward(self.dead_letters, batch, refusal.row, ours)

    def dead_letter_unread(self, batch: RecordBatch, skipped: Skipped) -> None:
        """Send one dead letter for records that could not be decoded: without key and value, named by their offsets."""
        source = Source(topic=batch.topic, partition=batch.partition, offset=skipped.first)
        ours = dead_letter_headers(code=skipped.code, error=skipped.error, source=source)
        self.producer.put_one(self.dead_letters, None, None, [*ours, (LAST_OFFSET, b"%d" % skipped.last)])

    def late_event(self, batch: RecordBatch, late: Late, *, corrected: bool = False) -> None:
        """Send an event whose window has closed to the late events. corrected: whether it has changed that window."""
        source = source_of(batch, late.row)
        ours = late_event_headers(
            late_by_ms=late.late_by_ms, window_start_ms=late.window_start_ms, source=source, corrected=corrected
        )
        self._forward(self.late_events, batch, late.row, ours)

    def _forward(self, topic: str, batch: RecordBatch, row: int, ours: Headers) -> None:
        original = Original(batch.keys[row], batch.values[row], batch.headers.get(row, ()))
        letter = letter_of(original, ours, masker=self.masker, limit_bytes=self.limit_bytes)
        self.producer.put_one(topic, letter.key, letter.value, letter.headers)


@dataclass(frozen=True, slots=True)
class Original:
    """What a record consists of."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def letter_of(
    original: Original, ours: Headers, *, masker: Masker, limit_bytes: int, names: Set[str] | None = None
) -> Original:
    """Hide what is personal in a record, add our headers, and cut it to what a topic of this limit takes.

    names: of a record of a bus, see `Masker.mask`.
    """
    record = masker.mask(original.key, original.value, original.headers, names=names)
    ours = [(name, record.hide(said) if name == "error" else said) for name, said in ours] + record.ours
    hidden = Original(record.key, record.value, record.headers)
    return fit(hidden, ours, limit_bytes=usable_bytes(limit_bytes))


def fit(original: Original, ours: Headers, *, limit_bytes: int) -> Original:
    """Add our headers to a record, and cut it where that is larger than a record batch may be.

    Key and headers give way to the value beyond a quarter of the room each; headers are left out all or none. What is
    left of a key goes to the partition of what is left.
    """
    key, value, headers = original.key, original.value, original.headers
    if batch_bytes(key, value, [*headers, *ours]) <= limit_bytes:
        return Original(key, value, [*headers, *ours])
    notes = [
        (name, b"0" * _DIGEST_BYTES) for part in ("key", "value", "headers") for name, _ in cut_headers(part, 0, b"")
    ]
    room = max(0, limit_bytes - batch_bytes(b"", b"", [*ours, *notes]) - 4 * _MOST_VARINT_BYTES)
    sizes = len(key or b""), len(value or b""), sum(map(_header_bytes, headers))
    headers_bytes = sizes[2] if sizes[2] <= room // _SHARE else 0
    value_bytes = min(sizes[1], room - headers_bytes - min(sizes[0], room // _SHARE))
    key_bytes = min(sizes[0], room - headers_bytes - value_bytes)
    said: Headers = []
    if key is not None and key_bytes < sizes[0]:
        said += cut_headers("key", sizes[0], key)
        key = key[:key_bytes]
    if value is not None and value_bytes < sizes[1]:
        said += cut_headers("value", sizes[1], value)
        value = value[:value_bytes]
    if headers_bytes < sizes[2]:
        said += cut_headers("headers", sizes[2], msgspec.msgpack.encode(headers))
        headers = ()
    return Original(key, value, [*headers, *ours, *said])


def usable_bytes(limit_bytes: int) -> int:
    """How large an uncompressed record batch may be so that it fits whatever the producer or broker makes of it."""
    return limit_bytes - limit_bytes // _SPARE


def batch_bytes(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Size of a record batch of this one record, uncompressed, as a broker compares it with `max.message.bytes`."""
    record = _FIXED_BYTES + _sized(key) + _sized(value) + _varint_bytes(len(headers)) + sum(map(_header_bytes, headers))
    return _BATCH_BYTES + _varint_bytes(record) + record


def _header_bytes(header: tuple[str, bytes | None]) -> int:
    name, value = header
    return _sized(name.encode()) + _sized(value)


def _sized(part: bytes | None) -> int:
    return _varint_bytes(-1) if part is None else _varint_bytes(len(part)) + len(part)


def _varint_bytes(number: int) -> int:
    """Size of a number as Protocol Buffers' zigzag varint, of which seven bits go into a byte."""
    zigzag = 2 * number if number >= 0 else -2 * number - 1
    return max(1, -(-zigzag.bit_length() // _VARINT_BITS))


def source_of(batch: RecordBatch, row: int) -> Source:
    """Name the place a record came from."""
    return Source(topic=batch.topic, partition=batch.partition, offset=batch.offsets[row])
