"""Copies of a partition's RocksDB away from the machine, so that a new one needs only the tail of the changelog.

Under SKUTREND_SNAPSHOT_DIR, a directory or any fsspec URL:

    <changelog topic>/<partition>/<sequence>-<owner>/   what one owner of the partition wrote, from that flush on
        000042.sst                                      table files, each once: RocksDB never changes one
        <sequence>-CURRENT, <sequence>-MANIFEST-000005  the few small files that belong to one snapshot
        <sequence>.manifest                                 its manifest, written last: without it there is no snapshot

A snapshot only saves time. One that is missing, half-written, damaged or of another time is passed over with a warning.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from schemas.errors import BadSetting, FlushFailed, SkutrendError, SnapshotUnusable, StateInaccessible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.observe.metrics import Metrics
    from streams.settings import Settings
    from streams.state.store import Store

log = logging.getLogger(__name__)
KEPT: Final = 2
FORMAT: Final = 1


class _Stated(msgspec.Struct):
    """What every format has in common: that it says which one it is."""

    format: int


class SnapshotFile(msgspec.Struct, frozen=True):
    """One file of a snapshot: its name for RocksDB, where it lies beside the manifest, its bytes and their digest."""

    name: str
    stored: str
    size: int
    sha256: str


class SnapshotManifest(msgspec.Struct, frozen=True):
    """What makes up one snapshot, and of which flush it is."""

    format: int
    sequence: int
    files: list[SnapshotFile]


# made at import, as in meta.py: snapshots are fetched in threads
_DECODE_STATED = msgspec.json.Decoder(_Stated).decode
_DECODE_MANIFEST = msgspec.json.Decoder(SnapshotManifest).decode


class SnapshotRepository:
    """Where the snapshots of a group lie. All calls may take as long as the network does."""

    def __init__(self, url: str, group: str) -> None:
        """Find the file system for `url` (`BadSetting` where there is none); group: name of the changelog topic."""
        import fsspec  # noqa: PLC0415  # only for those who keep snapshots

        try:
            self.fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            msg = f"SKUTREND_SNAPSHOT_DIR is {url!r}, which cannot be used: {error}"
            raise BadSetting(msg) from error
        self.root = f"{root.rstrip('/')}/{group}"

    def newest(self, partition: int) -> tuple[str, int] | None:
        """Find the newest snapshot of a partition: where its manifest lies, and its sequence."""
        found = [
            (_sequence(path), path)
            for owner in self.owners(partition)
            for path in self.ls(owner)
            if path.endswith(".manifest")
        ]
        if not found:
            return None
        sequence, path = max(found)
        return path, sequence

    def fetch(self, manifest_at: str, folder: Path, *, report: Callable[[str], None] = lambda _: None) -> int:
        """Copy a snapshot into an empty folder; returns its bytes. `SnapshotUnusable` where it is not as written."""
        with _named(f"the snapshot {manifest_at} cannot be read"):
            raw = self.fs.cat_file(manifest_at)
            stated = _DECODE_STATED(raw).format  # first: another format may have other fields
            if stated != FORMAT:
                msg = f"the snapshot {manifest_at} is of format {stated}, this build reads {FORMAT}"
                raise SnapshotUnusable(msg)
            manifest = _DECODE_MANIFEST(raw)
            folder.mkdir(parents=True)
            total = sum(file.size for file in manifest.files)
            done = 0
            for file in manifest.files:
                report(f"snapshot {manifest.sequence}: {done:,} of {total:,} bytes fetched")
                target = folder / Path(file.name).name
                self.fs.get_file(f"{_parent(manifest_at)}/{file.stored}", str(target))
                if _digest(target) != file.sha256:
                    msg = f"the snapshot {manifest_at} is damaged: {file.stored} is not what was written"
                    raise SnapshotUnusable(msg)
                done += file.size
            return total

    def owners(self, partition: int) -> list[str]:
        """List the directories of all that have owned a partition, oldest first."""
        return sorted(self.ls(f"{self.root}/{partition}"))

    def ls(self, path: str) -> list[str]:
        """List what is in a directory as it is now; nothing where there is no directory."""
        self.fs.invalidate_cache()
        try:
            return [str(found) for found in self.fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []


class SnapshotWriter:
    """Takes the snapshots of one open partition: one at a time, none sooner than the interval after the last.

    gate: of the worker, so that one partition uploads at a time. in_background: whether `offer` returns before the
    upload is done.
    """

    def __init__(
        self,
        repository: SnapshotRepository,
        partition: int,
        *,
        interval_ms: int,
        metrics: Metrics,
        gate: threading.Semaphore,
        in_background: bool = True,
    ) -> None:
        """Write nothing yet: the first snapshot is due one interval after the first flush."""
        self._repository, self._partition = repository, partition
        self._interval_ms, self._metrics, self._gate = interval_ms, metrics, gate
        self._in_background = in_background
        self._last_ms: int | None = None
        self._owner: str | None = None
        self._written: dict[str, SnapshotFile] = {}  # table files that are there, by their name for RocksDB
        self._manifests: list[SnapshotManifest] = []
        self._thread: threading.Thread | None = None
        self._is_over = False

    def write_if_due(self, store: Store, sequence: int, *, now_ms: int) -> None:
        """Take a snapshot if one is due: the caller waits for hard links, and a thread copies them away.

        now_ms: of a monotonic clock.
        """
        if self._last_ms is None:
            self._last_ms = now_ms
        if now_ms - self._last_ms < self._interval_ms or (self._thread is not None and self._thread.is_alive()):
            return
        self._last_ms = now_ms
        if self._owner is None:
            self._owner = f"{self._repository.root}/{self._partition}/{sequence:020d}-{uuid.uuid4().hex[:8]}"
        folder = checkpoint_folder(store.path)
        try:
            store.checkpoint(folder)
        except (FlushFailed, StateInaccessible) as error:
            self._failed(error)
            return
        if self._in_background:
            self._thread = threading.Thread(target=self._write, args=(folder, sequence), daemon=True, name="snapshot")
            self._thread.start()
        else:
            self._write(folder, sequence)

    def close(self) -> None:
        """Stop after the present file; what was written of an unfinished snapshot counts for nothing."""
        self._is_over = True

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the snapshot that is being written, if any; returns whether it has come."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def _write(self, folder: Path, sequence: int) -> None:
        started = time.monotonic()
        try:
            with self._gate:
                manifest = self._upload(folder, sequence)
        except SnapshotUnusable as error:
            self._failed(error)
        else:
            if manifest is not None:
                size = sum(file.size for file in manifest.files)
                took_s = time.monotonic() - started
                log.info("partition %d: snapshot %d kept, %d bytes, %.1f s", self._partition, sequence, size, took_s)
                self._metrics.snapshots.labels(str(self._partition), "kept").inc()
                self._metrics.snapshot_sequence.labels(str(self._partition)).set(sequence)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _failed(self, error: Exception) -> None:
        log.warning("partition %d: no snapshot this time: %s", self._partition, error)
        self._metrics.snapshots.labels(str(self._partition), "failed").inc()

    def _upload(self, folder: Path, sequence: int) -> SnapshotManifest | None:
        with _named(f"{self._owner} cannot be written"):
            fs, owner = self._repository.fs, self._owner
            fs.makedirs(owner, exist_ok=True)
            files = []
            for path in sorted(folder.iterdir()):
                if self._is_over:
                    return None
                is_table = path.suffix == ".sst"
                file = self._written.get(path.name) if is_table else None
                if file is None:
                    stored = path.name if is_table else f"{sequence:020d}-{path.name}"
                    file = SnapshotFile(path.name, stored, path.stat().st_size, _digest(path))
                    fs.put_file(str(path), f"{owner}/{stored}")
                    if is_table:
                        self._written[path.name] = file
                files.append(file)
            manifest = SnapshotManifest(FORMAT, sequence, files)
            fs.pipe_file(f"{owner}/{sequence:020d}.manifest", msgspec.json.encode(manifest))
            self._manifests.append(manifest)
            self._prune()
            return manifest

    def _prune(self) -> None:
        """Remove what no kept snapshot needs, and what earlier owners wrote once there is enough of our own."""
        owner = str(self._owner)
        if len(self._manifests) < KEPT:
            return
        self._manifests = self._manifests[-KEPT:]
        needed = {file.stored for each in self._manifests for file in each.files}
        needed |= {f"{each.sequence:020d}.manifest" for each in self._manifests}
        # manifests first: one without its files would be found and fail
        for path in sorted(self._repository.ls(owner), key=lambda path: not path.endswith(".manifest")):
            if _name(path) not in needed:
                self._repository.fs.rm_file(path)
        self._written = {name: file for name, file in self._written.items() if file.stored in needed}
        for other in self._repository.owners(self._partition):
            # a paused owner that wakes up has begun before us, and so cannot take ours away
            if _sequence(other) < _sequence(owner):
                self._repository.fs.rm(other, recursive=True)


class Snapshots:
    """The snapshots of a worker: finds one for a new partition, and keeps those of the open ones, in `repository`."""

    def __init__(self, settings: Settings, metrics: Metrics, *, in_background: bool = True) -> None:
        """`BadSetting` where there is no file system for the URL."""
        self.repository = SnapshotRepository(settings.snapshot_dir, settings.changelog_topic)
        self._interval_ms = settings.snapshot_interval_ms
        self._metrics = metrics
        self._gate = threading.Semaphore(1)
        self._in_background = in_background

    def snapshot_writer(self, partition: int) -> SnapshotWriter:
        """Make what takes the snapshots of a partition that was just opened."""
        return SnapshotWriter(
            self.repository,
            partition,
            interval_ms=self._interval_ms,
            metrics=self._metrics,
            gate=self._gate,
            in_background=self._in_background,
        )

    def fetch_newest(self, partition: int, path: Path, *, report: Callable[[str], None] = lambda _: None) -> bool:
        """Put the newest snapshot where a partition's RocksDB is to be; returns whether there was one."""
        folder = path.parent / f".{path.name}.snapshot"
        started = time.monotonic()
        try:
            with _named(f"{self.repository.root} cannot be read"):
                found = self.repository.newest(partition)
            if found is None:
                return False
            shutil.rmtree(folder, ignore_errors=True)
            size = self.repository.fetch(found[0], folder, report=report)
            with _named(f"it cannot be put in {path}"):
                shutil.rmtree(path, ignore_errors=True)
                folder.rename(path)
        except SnapshotUnusable as error:
            log.warning("partition %d is restored without a snapshot: %s", partition, error)
            return False
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        took_s = time.monotonic() - started
        log.info("partition %d: snapshot %d fetched, %d bytes, %.1f s", partition, found[1], size, took_s)
        return True


def checkpoint_folder(path: Path) -> Path:
    """Where a partition's RocksDB is frozen while it is copied away: beside it, for its files are hard links."""
    return path.parent / f".{path.name}.checkpoint"


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Turn whatever a file system raises into one sentence: each has errors of its own, often of its cloud's client."""
    try:
        yield
    except SkutrendError:
        raise
    except Exception as error:
        msg = f"{what}: {type(error).__name__}: {error}"
        raise SnapshotUnusable(msg) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _sequence(path: str) -> int:
    """Read the sequence that a name begins with; what does not begin with one is none of ours, and older than all."""
    digits: Any = _name(path)[:20]
    return int(digits) if digits.isdecimal() else -1
