"""One fetch of one input partition, as columns."""

from __future__ import annotations

from dataclasses import dataclass, field

Headers = list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Records that were passed over unread, because the record batch that holds them cannot be decoded.

    first, last: their offsets, both included. code: of their dead letter. error: a sentence with place and remedy.
    """

    first: int
    last: int
    code: str
    error: str

    def __len__(self) -> int:
        """Return how many they are: in a topic that is not compacted, every offset of a batch holds a record."""
        return self.last - self.first + 1


@dataclass(slots=True)
class RecordBatch:
    """What one fetch brought from one partition: a list per column, a row per record.

    The half-open range `[start, next)` says which offsets are spoken for, including those that hold no record
    (transaction markers, aborted or compacted records), so batches of one partition chain: the next one starts at this
    one's `next`. A batch may be empty (`len() == 0`) when a range held nothing but such offsets.

    offsets        ascending, all within `[start, next)`
    keys, values   None where the record has none (a value of None is a tombstone)
    headers        row -> headers, only of rows that have any
    skipped        what was passed over unread, ascending, all within `[start, next)`; not counted by `len()`
    generation     of the consumer group when the batch was fetched; -1 before the transport has stamped it
    seeks          how often the partition had been sought then; see `BatchConsumer.is_current`
    """

    topic: str
    partition: int
    start: int
    next: int
    offsets: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: dict[int, Headers] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    generation: int = -1
    seeks: int = -1

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.offsets)

    def source(self, row: int) -> str:
        """Where a row came from, as written in dead letters: `topic[partition]@offset`."""
        return f"{self.topic}[{self.partition}]@{self.offsets[row]}"
