"""What is told of an error of RocksDB: its words as it writes them, and real ones where they can be had."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.grid import WindowGrid
from features.sku_state import SkuState
from schemas.errors import Broken, FlushFailed, StateCorrupt, StateInaccessible, StateMismatch
from streams.state import meta as metas
from streams.state.flush_record import Flush
from streams.state.store import Store
from streams.state.store_errors import DOES_NOT_PASS, MAY_PASS, trouble, trouble_opening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATH = Path("state/partition-0")


def flush() -> Flush:
    return Flush(metas.fresh_meta(SkuState(WindowGrid()), model="none"), skus=[([b"a"], [b"row"])], bulk=True)


def io_error(number: int) -> str:
    return f"IO error: While appending to file: /state/000012.sst: {os.strerror(number)}"


TABLE: list[tuple[str, type[Broken], str]] = [
    (
        "IO error: No space left on device: While appending: x: No space left on device",
        FlushFailed,
        "make room",
    ),
    (io_error(errno.EDQUOT), FlushFailed, "make room"),
    (io_error(errno.EMFILE), FlushFailed, "ulimit -n"),
    (io_error(errno.ENFILE), FlushFailed, "open files of this machine"),
    (io_error(errno.ENOMEM), FlushFailed, "memory"),
    (io_error(errno.ENOENT), FlushFailed, "is gone"),
    (io_error(errno.ESTALE), FlushFailed, "is gone"),
    (io_error(errno.EAGAIN), FlushFailed, "what else uses the disk"),
    (io_error(errno.EBUSY), FlushFailed, "what else uses the disk"),
    (io_error(errno.ETIMEDOUT), FlushFailed, "what else uses the disk"),
    ("Operation timed out: Timeout waiting to lock key", FlushFailed, "Operation timed out"),
    ("Resource busy: x", FlushFailed, "Resource busy"),
    ("Operation failed. Try again.: x", FlushFailed, "Try again"),
    ("Shutdown in progress: x", FlushFailed, "Shutdown"),
    (io_error(errno.EROFS), StateInaccessible, "SKUTREND_STATE_DIR"),
    (io_error(errno.EACCES), StateInaccessible, "the right to write"),
    (io_error(errno.EPERM), StateInaccessible, "the right to write"),
    (io_error(errno.EIO), StateInaccessible, "replace the disk"),
    (io_error(errno.ENODEV), StateInaccessible, "replace the disk"),
    (io_error(errno.ENXIO), StateInaccessible, "replace the disk"),
    (io_error(errno.EFBIG), StateInaccessible, "ulimit -f"),
    ("Corruption: block checksum mismatch", StateCorrupt, "delete that directory to rebuild it"),
    ("Invalid argument: Keys must be added in strict ascending order.", StateInaccessible, "no matter of the disk"),
    ("Not implemented: x", StateInaccessible, "no matter of the disk"),
]


@pytest.mark.parametrize(("what", "kind", "remedy"), TABLE, ids=lambda each: str(each)[-40:])
def test_each_error_means_one_thing(what: str, kind: type[Broken], remedy: str) -> None:
    told = trouble(PATH, what)
    assert type(told) is kind
    assert what in str(told)
    assert str(PATH) in str(told)
    assert remedy in str(told)


def test_all_numbers_that_are_known_are_in_the_table() -> None:
    assert not MAY_PASS.keys() & DOES_NOT_PASS.keys()
    for kind, known in ((FlushFailed, MAY_PASS), (StateInaccessible, DOES_NOT_PASS)):
        for number in known:
            assert {found for what, found, _ in TABLE if os.strerror(number) in what} == {kind}, os.strerror(number)


OPENING: list[tuple[str, type[Broken], str]] = [
    (
        "IO error: lock hold by current process: x/LOCK: No locks available",
        StateMismatch,
        "another worker",
    ),
    ("IO error: While lock file: x/LOCK: Resource temporarily unavailable", StateMismatch, "another worker"),
    ("IO error: while open a file for lock: x/LOCK: Too many open files", FlushFailed, "ulimit -n"),
    ("IO error: No such file or directory: While opening a file for sequentially reading: x", StateCorrupt, "rebuild"),
    ("Corruption: no log_file_number", StateCorrupt, "rebuild"),
    ("Read-only file system (os error 30)", StateInaccessible, "SKUTREND_STATE_DIR"),
    (io_error(errno.ENOSPC), FlushFailed, "make room"),
    ("Invalid argument: x: does not exist (create_if_missing is false)", StateMismatch, "delete that directory"),
]


@pytest.mark.parametrize(("what", "kind", "remedy"), OPENING, ids=lambda each: str(each)[-40:])
def test_so_does_each_error_of_opening(what: str, kind: type[Broken], remedy: str) -> None:
    told = trouble_opening(PATH, what)
    assert type(told) is kind
    assert what in str(told)
    assert remedy in str(told)


# ---------------------------------------------------------------------- real ones
@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    taken: list[int] = []  # numbers that earlier tests have given back are free, too
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_state_that_runs_out_of_open_files_is_no_damage_and_no_other_worker(tmp_path: Path) -> None:
    with no_more_files(), pytest.raises(FlushFailed, match=r"Too many open files.*; raise the limit of open files"):
        Store(tmp_path / "partition-0")
    Store(tmp_path / "partition-0").close()


def test_a_disk_that_may_only_be_read_stops_the_worker(tmp_path: Path) -> None:
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", tmp_path], check=True, capture_output=True)  # noqa: S603, S607  # our own command
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"a disk cannot be mounted ({error}): run the tests as root"
        pytest.skip(reason)
    try:
        (tmp_path / "partition-0").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)  # noqa: S603, S607  # our own command
        with pytest.raises(StateInaccessible, match=r"Read-only file system.*set SKUTREND_STATE_DIR"):
            Store(tmp_path / "partition-0")
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)  # noqa: S603, S607  # our own command


@pytest.mark.parametrize("removed", ["MANIFEST-*", "*.log"])
def test_missing_files_are_damage_or_do_not_matter(tmp_path: Path, removed: str) -> None:
    path = tmp_path / "partition-0"
    store = Store(path)
    store.write(flush())
    store.close()
    for file in path.glob(removed):
        file.unlink()
    if removed == "*.log":
        Store(path).close()
    else:
        with pytest.raises(StateCorrupt, match="delete that directory to rebuild it"):
            Store(path)


def test_a_mistake_in_what_is_written_is_not_told_as_a_full_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "partition-0")
    unordered = Flush(flush().meta, skus=[([b"b", b"a"], [b"row", b"row"])], bulk=True)
    with pytest.raises(StateInaccessible, match=r"strict ascending order.*this is no matter of the disk: report it"):
        store.write(unordered)
    store.close()


def test_a_mistake_of_ours_stays_what_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path / "partition-0")
    store.close()
    with pytest.raises(Exception, match="DB instance already closed") as raised:
        store.set_position(1)
    assert not isinstance(raised.value, Broken)


def test_a_table_file_that_is_no_such_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "partition-0")
    spoilt: Callable[[], None] = store.stage(flush())
    (tmp_path / ".partition-0.sst").write_bytes(b"x" * 5_000)
    with pytest.raises(StateCorrupt, match="Bad table magic number"):
        spoilt()
    store.close()
    shutil.rmtree(tmp_path / "partition-0")
    monkeypatch.undo()
