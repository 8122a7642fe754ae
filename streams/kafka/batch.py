"""One fetch of one input partition, as columns."""

from __future__ import annotations

from dataclasses import dataclass, field

Headers = list[tuple[str, bytes | None]]


@dataclass(slots=True)
class RecordBatch:
    """What one fetch brought from one partition: a list per column, a row per record.

    The half-open range `[start, next)` says which offsets are spoken for, including those that hold no record
    (transaction markers, aborted or compacted records), so batches of one partition chain: the next one starts at this
    one's `next`. A batch may be empty (`len() == 0`) when a range held nothing but such offsets.

    offsets        ascending, all within `[start, next)`
    timestamps     epoch milliseconds the producer or broker stamped; not the event time
    keys, values   None where the record has none (a value of None is a tombstone)
    headers        row -> headers, only of rows that have any
    generation     of the consumer group when the batch was fetched; -1 before the transport has stamped it
    seeks          how often the partition had been sought then; see `BatchConsumer.is_current`
    """

    topic: str
    partition: int
    start: int
    next: int
    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: dict[int, Headers] = field(default_factory=dict)
    generation: int = -1
    seeks: int = -1

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.offsets)

    def source(self, row: int) -> str:
        """Where a row came from, as written in dead letters: `topic[partition]@offset`."""
        return f"{self.topic}[{self.partition}]@{self.offsets[row]}"
