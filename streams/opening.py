"""How a partition comes to be open: claimed, its store brought up to the changelog, its state restored."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from schemas.errors import Broken, Fenced, StateCorrupt, StateMismatch
from streams import changelog as changelogs
from streams.changelog import Changelog
from streams.outbox import Outbox
from streams.partition import Geometry, Partition
from streams.reading import Reader
from streams.snapshots import Snapshots
from streams.store import Store

if TYPE_CHECKING:
    from streams.worker import Worker

log = logging.getLogger(__name__)
LOCK_PATIENCE_S: Final = 10.0
LOCK_RETRY_S: Final = 0.25
CLAIM_S: Final = 60.0


class Opener:
    """Opens partitions for a worker; `open` runs in a thread, for different partitions at the same time.

    progress: by partition, of the recoveries that are going on, in words. is_over: set it, and recoveries give up.
    """

    def __init__(self, worker: Worker) -> None:
        """Take settings, model, metrics and partition count from `worker`, as they are when a partition is opened."""
        self._worker = worker
        self.progress: dict[int, object] = {}
        self.is_over = False
        self._snapshots = self.snapshots() if worker.settings.snapshot_dir else None

    def open(self, number: int) -> Partition:
        """Open a partition from this disk, else from a snapshot, else from the changelog alone.

        `Fenced`, `FlushFailed` and `Unavailable` pass with time, `BrokerTrouble` may, `StateMismatch` will not.
        """
        settings = self._worker.settings
        path = Path(settings.state_dir) / settings.group / f"partition-{number}"
        is_fetched, may_fetch = False, True
        try:
            while True:
                is_here = Store.is_at(path)
                if not is_here and may_fetch:
                    may_fetch, is_fetched = False, self._fetch(path, number)
                try:
                    return self._open_at(path, number)
                except StateMismatch as error:
                    is_repairable = is_fetched or (isinstance(error, StateCorrupt) and is_here)
                    if settings.changelog == "off" or not is_repairable:
                        raise
                    without = ", without that snapshot" if is_fetched else ""
                    log.error("%s: rebuilding it from the changelog%s", error, without)
                    is_fetched = False
                    Store.destroy(path)
        finally:
            self.progress.pop(number, None)

    # what touches the world outside, one by one, so that a simulation can put its own in the place
    def store(self, path: Path) -> Store:
        """Open a partition's RocksDB; one that its previous owner is still closing is waited for."""
        deadline = time.monotonic() + LOCK_PATIENCE_S
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
        return Snapshots(self._worker.settings, self._worker.metrics)

    def outbox(self, transactional_id: str | None = None) -> Outbox:
        """Make a way out, whose troubles are logged."""

        def told(what: str) -> None:
            log.warning("%s", what)

        return Outbox(self._worker.settings.client, on_error=told, transactional_id=transactional_id)

    def reader(self, topic: str, partition: int) -> Reader:
        """Make a reader of one partition of the changelog."""
        return Reader(self._worker.settings.client, topic, partition, what="the changelog")

    def _fetch(self, path: Path, number: int) -> bool:
        """Look for a snapshot of a partition that is not on this disk; returns whether it is there now."""

        def told(what: str) -> None:
            self.progress[number] = f"partition {number}: {what}"
            self._go_on(number)

        return self._snapshots is not None and self._snapshots.bring(number, path, told=told)

    def _go_on(self, number: int) -> None:
        if self.is_over:
            msg = f"recovery of partition {number} is given up: the worker is stopping"
            raise Fenced(msg)

    def _open_at(self, path: Path, number: int) -> Partition:
        worker = self._worker
        store = self.store(path)
        outbox, changelog = self._channels(number)
        try:
            is_bare = changelog is not None and self._recover(store, changelog)
            partition = Partition(
                Geometry(number, worker.partition_count, worker.letter_limit_bytes),
                worker.settings,
                store=store,
                outbox=outbox,
                session=worker.session,
                metrics=worker.metrics,
                changelog=changelog,
                keeper=None if self._snapshots is None else self._snapshots.keeper(number),
                money=worker.money,
                masker=worker.masker,
            )
        except Broken:
            outbox.close()
            if changelog is not None and changelog.outbox is not outbox:
                changelog.outbox.close()
            store.close()
            raise
        if is_bare:
            partition.renew()
        return partition

    def _channels(self, number: int) -> tuple[Outbox, Changelog | None]:
        """Make the ways out of a partition: one transaction for all, or one for the changelog alone, or none."""
        settings = self._worker.settings
        if settings.changelog == "off":
            return self.outbox(), None
        journal = self.outbox(f"{settings.topic_prefix}{settings.group}-{number}")
        outbox = journal if settings.guarantee == "exactly_once" else self.outbox()
        return outbox, Changelog(journal, settings.changelog_topic, number)

    def _recover(self, store: Store, changelog: Changelog) -> bool:
        """Claim the transactional id and read the changelog; returns whether the changelog has to be written anew."""
        changelog.outbox.claim(CLAIM_S, meanwhile=lambda: self._go_on(changelog.partition))

        def told(progress: changelogs.Progress) -> None:
            self.progress[progress.partition] = progress
            log.info("%s", progress)
            self._go_on(progress.partition)

        reader = self.reader(changelog.topic, changelog.partition)
        done = changelogs.recover(store, reader, topic=changelog.topic, partition=changelog.partition, told=told)
        if done.rows:
            log.info("%s", done)
        self._worker.metrics.recovered.labels(str(changelog.partition)).inc(done.rows)
        return done.is_bare
