"""The copy of a partition's state that survives the machine: a compacted topic, partition by partition.

Its records are those of the store (keys.py has their keys); a record without a value says that its key is gone.
All rows of a flush and its meta record are written in one transaction, so that a reader of committed records who has
reached the end has whole flushes only, however much has been compacted away before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.errors import StateMismatch
from streams.state.keys import META

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.kafka.output_producer import OutputProducer

AT_ONCE: Final = 4_096  # rows given to the producer at a time


class Changelog:
    """The write side: rows of a flush on their way into the current transaction of a producer."""

    def __init__(self, producer: OutputProducer, topic: str, partition: int) -> None:
        """Write to `topic`; producer: a transactional one, after `init_transactions`."""
        self.producer, self.topic, self.partition = producer, topic, partition
        self.topic_id = ""  # as it was when the partition was opened; empty: not known
        self._meta = b""
        self._keys: list[bytes] = []
        self._values: list[bytes | None] = []

    def put(self, key: bytes, value: bytes | None) -> None:
        """Add a row; None: it is gone. The meta record is kept for `finish`, whatever its place."""
        if key == META:
            self._meta = value or b""
            return
        self._keys.append(key)
        self._values.append(value)
        if len(self._keys) >= AT_ONCE:
            self._send()

    def finish(self, gone: Iterable[bytes]) -> None:
        """Add what is gone, and the meta record as the last one; then the producer can commit."""
        for key in gone:
            self.put(key, None)
        self._send()
        self.producer.put_marked(self.topic, META, self._meta, self.partition)

    def check_topic(self, ids: Mapping[str, str]) -> None:
        """Refuse to write to another topic than that which the store was brought up to (`StateMismatch`)."""
        now = ids.get(self.topic)
        if now is not None and self.topic_id and now != self.topic_id:
            msg = (
                f"topic {self.topic} was deleted and made again while this worker wrote to it: its id was "
                f"{self.topic_id}, now it is {now}, and it holds a part of the state only; stop all workers, delete "
                "it, and start them: they make it and write it anew from their state directories"
            )
            raise StateMismatch(msg)

    def _send(self) -> None:
        self.producer.put(self.topic, self._keys, self._values, self.partition)
        self._keys, self._values = [], []
