"""Opening a partition: take over its transactional id, recover its store from the changelog, restore its state."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from schemas.errors import Fenced, StateCorrupt, StateMismatch
from streams.kafka.output_producer import OutputProducer
from streams.kafka.partition_reader import Reader
from streams.kafka.topic_ids import TopicIds
from streams.observe.shared_dict import SharedDict
from streams.partition.partition import Geometry, Partition
from streams.partition.side_outputs import usable_bytes
from streams.state.changelog import Changelog
from streams.state.meta import ANEW
from streams.state.recovery import RecoveryProgress, recover
from streams.state.snapshots import Snapshots
from streams.state.store import Store

if TYPE_CHECKING:
    from streams.worker.environment import Environment

log = logging.getLogger(__name__)
LOCK_WAIT_S: Final = 10.0
LOCK_RETRY_S: Final = 0.25
INIT_TRANSACTIONS_S: Final = 60.0
USUAL_BATCH_BYTES: Final = 1_000_000  # librdkafka's default of batch.size


class Opener:
    """Opens partitions; `open` runs in a thread, for different partitions at the same time.

    progress: by partition, how far its recovery is, in words; threads change it, and probes read it.
    is_over: set it, and the recoveries that are running end in `Fenced`.
    """

    def __init__(self, environment: Environment) -> None:
        """Connect to nothing yet."""
        self._environment = environment
        self.progress: SharedDict[int, str] = SharedDict()
        self.is_over = False
        settings = environment.settings
        self._snapshots = self.snapshots() if settings.snapshot_dir else None
        changelog = [settings.changelog_topic] if settings.changelog == "on" else []
        self._ids = TopicIds(settings.client, [*environment.topics, *changelog])

    def open(self, number: int) -> Partition:
        """Open a partition from this disk, else from a snapshot, else from the changelog alone.

        `Fenced`, `FlushFailed` and `Unavailable` pass with time, `BrokerTrouble` may; `Refused`, `StateMismatch` and
        `StateInaccessible` will not.
        """
        settings = self._environment.settings
        path = settings.partition_dir(number)
        is_fetched, may_fetch = False, True
        try:
            while True:
                is_here = Store.is_at(path)
                if not is_here and may_fetch:
                    may_fetch, is_fetched = False, self._fetch(path, number)
                try:
                    return self._open_at(path, number)
                except StateMismatch as error:
                    is_damaged = isinstance(error, StateCorrupt)
                    if settings.changelog == "off" or not (is_fetched or (is_damaged and is_here)):
                        if settings.changelog == "off" or not is_damaged:
                            raise
                        msg = f"{error}; but the changelog gives it back so: start the workers with {ANEW}"
                        raise StateCorrupt(msg) from error
                    without = ", without that snapshot" if is_fetched else ""
                    log.error("%s: rebuilding it from the changelog%s", error, without)
                    is_fetched = False
                    Store.destroy(path)
        finally:
            self.progress.pop(number, None)

    # everything with side effects outside this process, one method each, so that a simulation can replace it
    def store(self, path: Path) -> Store:
        """Open a partition's RocksDB; one that its previous owner is still closing is waited for."""
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                return Store(path)
            except StateCorrupt:
                raise
            except StateMismatch:
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOCK_RETRY_S)

    def snapshots(self) -> Snapshots:
        """Find where snapshots are kept."""
        return Snapshots(self._environment.settings, self._environment.metrics)

    def producer(self, transactional_id: str | None = None) -> OutputProducer:
        """Make a producer whose errors are logged."""
        # records that go out together are one record batch, which the topics take or refuse as a whole
        batch_bytes = min(USUAL_BATCH_BYTES, usable_bytes(self._environment.letter_limit_bytes))
        config = {"batch.size": batch_bytes, **self._environment.settings.client}
        return OutputProducer(
            config, on_error=lambda error: log.warning("%s", error), transactional_id=transactional_id
        )

    def reader(self, topic: str, partition: int) -> Reader:
        """Make a reader of one partition of the changelog."""
        return Reader(
            self._environment.settings.client,
            topic,
            partition,
            what="the changelog",
            meanwhile=lambda: self._check_is_wanted(partition),
        )

    def topic_ids(self, *, fresh: bool = True) -> dict[str, str]:
        """Ask for the ids of the inputs and the changelog, as `TopicIds.ask` does."""
        return self._ids.ask(fresh=fresh)

    def _fetch(self, path: Path, number: int) -> bool:
        """Look for a snapshot of a partition that is not on this disk; returns whether it is there now."""

        def report(what: str) -> None:
            self.progress[number] = f"partition {number}: {what}"
            self._check_is_wanted(number)

        return self._snapshots is not None and self._snapshots.fetch_newest(number, path, report=report)

    def _check_is_wanted(self, number: int) -> None:
        """Raise `Fenced` where the worker is stopping meanwhile."""
        if self.is_over:
            msg = f"the recovery of partition {number} is ended: the worker is stopping"
            raise Fenced(msg)

    def _open_at(self, path: Path, number: int) -> Partition:
        environment = self._environment
        with ExitStack() as undo:  # whatever fails: no lock, no connection stays
            store = self.store(path)
            undo.callback(store.close)
            producer, changelog = self._producers(number, undo)
            is_bare = changelog is not None and self._recover(store, changelog)
            ids = self.topic_ids(fresh=False)
            partition = Partition(
                Geometry(number, environment.partition_count, environment.letter_limit_bytes),
                environment.settings,
                store=store,
                producer=producer,
                session=environment.serving.session,
                metrics=environment.metrics,
                changelog=changelog,
                snapshot_writer=None if self._snapshots is None else self._snapshots.snapshot_writer(number),
                money=environment.money,
                masker=environment.masker,
            )
            partition.check_topics(ids)
            undo.pop_all()
        if is_bare:
            partition.renew()
        return partition

    def _producers(self, number: int, undo: ExitStack) -> tuple[OutputProducer, Changelog | None]:
        """Make the producers of a partition: one transaction for all, or one for the changelog alone, or none."""
        settings = self._environment.settings

        def made(transactional_id: str | None = None) -> OutputProducer:
            producer = self.producer(transactional_id)
            undo.callback(producer.close)
            return producer

        if settings.changelog == "off":
            return made(), None
        transactional = made(settings.transactional_id(number))
        producer = transactional if settings.guarantee == "exactly_once" else made()
        return producer, Changelog(transactional, settings.changelog_topic, number)

    def _recover(self, store: Store, changelog: Changelog) -> bool:
        """Take the transactional id over and read the changelog; returns whether that has to be written anew."""
        changelog.producer.init_transactions(
            INIT_TRANSACTIONS_S, meanwhile=lambda: self._check_is_wanted(changelog.partition)
        )

        def report(progress: RecoveryProgress) -> None:
            self.progress[progress.partition] = str(progress)
            log.info("%s", progress)
            self._check_is_wanted(progress.partition)

        topic, number = changelog.topic, changelog.partition
        reader, changelog.topic_id = self.reader(topic, number), self.topic_ids(fresh=False).get(topic, "")
        done = recover(store, reader, topic=topic, partition=number, topic_id=changelog.topic_id, report=report)
        if done.rows:
            log.info("%s", done)
        self._environment.metrics.recovered.labels(str(number)).inc(done.rows)
        return done.is_bare
