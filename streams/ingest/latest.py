"""What each key of an upsert topic said last, so that a new state is told by its difference, and a removal at all.

One RocksDB per partition of such a topic, each as far as what the group has committed. The topic itself is its log:
what a member lacks, since it is new to a partition or died between a commit and its own write, is read from there.
"""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rocksdict import WriteBatch

from schemas.errors import StateCorrupt, Unavailable
from streams.kafka.partition_reader import Reader
from streams.kafka.topic_ids import TopicIds
from streams.state.rocks import RocksDb

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from confluent_kafka import TopicPartition

    from streams.ingest.stage import Stage

log = logging.getLogger(__name__)
SLICE_S: Final = 10.0
_POSITION: Final = b"\0position"
_TOPIC: Final = b"\0topic"
_KEY: Final = b"\1"
At = tuple[str, int]


class LatestValues:
    """The latest values of the partitions that a member of the group has; `follow` comes before `get`."""

    def __init__(self, config: Mapping[str, Any], stage: Stage, folder: Path) -> None:
        """Open nothing yet. config: librdkafka properties. folder: has a RocksDB for each partition."""
        self._config, self._stage, self._folder = config, stage, folder
        self._open: dict[At, RocksDb] = {}
        self._ids = TopicIds(config, sorted(stage.upserts))

    def follow(self, committed: Sequence[TopicPartition], within_s: float = SLICE_S) -> str:
        """Bring those of these partitions up to what is committed, for about so long; says what is left, "" nothing.

        Partitions that are not among them are closed. Raises what `Reader` and `RocksDb` do; then call it again.
        """
        ends = {(each.topic, each.partition): max(each.offset, 0) for each in committed}
        wanted = {at: end for at, end in ends.items() if at[0] in self._stage.upserts}
        self.keep(wanted)
        until_s = time.monotonic() + within_s
        for at, end in wanted.items():
            with self._discarding_damaged(at):
                reached = self._catch_up(at, end, until_s)
            if reached < end:
                return f"latest values of {at[0]}[{at[1]}] are read: {reached} of {end}"
        return ""

    def get(self, topic: str, partition: int, key: bytes) -> bytes | None:
        """Give what a key said last."""
        at = topic, partition
        with self._discarding_damaged(at):
            return self._open[at].get(_KEY + key)

    def write(self, states: Mapping[At, Mapping[bytes, bytes]], positions: Sequence[TopicPartition]) -> None:
        """Take in what a batch left. positions: where to go on from."""
        for each in positions:
            at = (each.topic, each.partition)
            if at in self._open:
                with self._discarding_damaged(at):
                    self._write(at, states.get(at, {}), each.offset)

    def keep(self, wanted: Collection[At]) -> None:
        """Close all others."""
        for at in [at for at in self._open if at not in wanted]:
            self._open.pop(at).close()

    def _catch_up(self, at: At, end: int, until_s: float) -> int:
        """Read on to `end`, or as far as time allows; gives the offset that was reached."""
        position = self._opened(at)
        if position > end:
            log.warning(
                "%s[%d] is committed up to %d only, and its latest values are of %d: they are read again",
                *(*at, end, position),
            )
            self._discard(at)
            position = self._opened(at)
        if position == end:
            return end
        reader = Reader(self._config, *at, what="the topic")
        try:
            return self._read(reader, at, position, end, until_s)
        finally:
            reader.close()

    def _read(self, reader: Reader, at: At, position: int, end: int, until_s: float) -> int:
        low, high = reader.bounds()
        if 0 < position < low:
            log.warning("what %s[%d] held from %d to %d is gone: changes in it were not seen", *at, position, low)
        position = max(position, low)
        for messages in reader.records(position, min(end, high)):
            taken = [message for message in messages if message.offset() < end]
            if taken:
                position = taken[-1].offset() + 1
                self._write(at, self._stage.states(taken).get(at, {}), position)
            if len(taken) < len(messages):
                break
            if position < end and time.monotonic() > until_s:
                return position
        self._write(at, {}, end)  # compaction, or the end of a transaction, may have taken the last places
        return end

    def _opened(self, at: At) -> int:
        """Open a partition's values, and give where they stand; those of a topic that was made anew are discarded."""
        if at not in self._open:
            self._open[at] = RocksDb(self._path(at))
        db = self._open[at]
        topic_id, known = self._ids.ask(fresh=False).get(at[0], "").encode(), db.get(_TOPIC)
        if known and topic_id and known != topic_id:
            log.warning("topic %s is not the one it was: its latest values are read again", at[0])
            self._discard(at)
            return self._opened(at)
        if topic_id and known != topic_id:
            db.put(_TOPIC, topic_id)
        found = db.get(_POSITION)
        return 0 if found is None else int(found)

    def _write(self, at: At, states: Mapping[bytes, bytes], position: int) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in states.items():
            batch.put(_KEY + key, value)
        batch.put(_POSITION, b"%d" % position)
        self._open[at].write(batch)

    @contextmanager
    def _discarding_damaged(self, at: At) -> Iterator[None]:
        """Make `Unavailable` of damage: the next `follow` reads the topic again."""
        try:
            yield
        except StateCorrupt as error:
            self._discard(at)
            msg = f"the latest values of {at[0]}[{at[1]}] are read again: {error}"
            raise Unavailable(msg) from error

    def _discard(self, at: At) -> None:
        if at in self._open:
            self._open.pop(at).close()
        shutil.rmtree(self._path(at), ignore_errors=True)

    def _path(self, at: At) -> Path:
        return self._folder / f"{at[0]}-{at[1]}"
