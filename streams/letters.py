"""Records that go out again as they came: dead letters and late events.

The original key, bytes and headers are kept, but for personal data (streams/personal.py), and headers of ours are added
(schemas/provenance.py). A record that would
not fit into its topic any more with those is cut to what fits, and says so in the header `cut_from_bytes`: a record
that cannot be written would otherwise stop the worker at the same offset for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from schemas.provenance import Source, dead_letter_headers, late_event_headers
from streams.personal import Masker

if TYPE_CHECKING:
    from features.ledger import Late
    from schemas.columns import Refusal
    from schemas.provenance import Headers
    from streams.batch import RecordBatch
    from streams.outbox import Outbox

CUT_FROM: Final = "cut_from_bytes"
DEFAULT_LIMIT_BYTES: Final = 1_048_588  # Kafka's default of max.message.bytes
_FRAME_BYTES: Final = 256  # a batch of one record, and the length of each header


@dataclass(frozen=True, slots=True)
class Letters:
    """Where such records go. limit_bytes: `max.message.bytes` of the topics, the smaller one.

    masker: hides personal data.
    """

    outbox: Outbox
    dead_letters: str
    late_events: str
    limit_bytes: int = DEFAULT_LIMIT_BYTES
    masker: Masker = field(default_factory=Masker)

    def bury(self, batch: RecordBatch, refusal: Refusal) -> None:
        """Send an unusable record to the dead letters."""
        source = source_of(batch, refusal.row)
        ours = dead_letter_headers(code=refusal.code, error=refusal.error, source=source)
        self._forward(self.dead_letters, batch, refusal.row, ours)

    def divert(self, batch: RecordBatch, late: Late) -> None:
        """Send an event whose window has closed to the late events."""
        source = source_of(batch, late.row)
        ours = late_event_headers(late_by_ms=late.late_by_ms, window_start_ms=late.window_start_ms, source=source)
        self._forward(self.late_events, batch, late.row, ours)

    def _forward(self, topic: str, batch: RecordBatch, row: int, ours: Headers) -> None:
        record = self.masker.mask(batch.keys[row], batch.values[row], batch.headers.get(row, ()))
        key, value = record.key, record.value
        ours = [(name, record.hide(said) if name == "error" else said) for name, said in ours] + record.ours
        headers = [*record.headers, *ours]
        room = self.limit_bytes - _FRAME_BYTES - len(key or b"") - sum(_size(each) for each in headers)
        if value is not None and len(value) > room:
            headers = [*ours, (CUT_FROM, b"%d" % len(value))]
            value = value[: max(0, room)]
        self.outbox.put_one(topic, key, value, headers)


def source_of(batch: RecordBatch, row: int) -> Source:
    """Name the place a record came from."""
    return Source(topic=batch.topic, partition=batch.partition, offset=batch.offsets[row])


def _size(header: tuple[str, bytes | None]) -> int:
    name, value = header
    return len(name.encode()) + len(value or b"") + 16
