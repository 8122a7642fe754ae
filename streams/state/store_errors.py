"""Errors of RocksDB, translated: rocksdict gives nothing but the words of RocksDB.

They begin with the kind of the error; an I/O error also has the words of the operating system.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from schemas.errors import FlushFailed, StateCorrupt, StateInaccessible, StateMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RAISED: Final = (Exception, OSError)
"""What rocksdict raises, as these very classes; what is finer is not of RocksDB."""
_ROOM: Final = "make room on the disk"
_GONE: Final = "see whether the directory or its disk is gone"
_BUSY: Final = "see what else uses the disk"
_RIGHT: Final = "give this user the right to write there"
_BROKEN: Final = "replace the disk; state that is lost with it is rebuilt from the changelog"
MAY_PASS: Final[Mapping[int, str]] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files of this machine",
    errno.ENOMEM: "give this machine more memory",
    errno.ENOENT: _GONE,
    errno.ESTALE: _GONE,
    errno.EAGAIN: _BUSY,
    errno.EBUSY: _BUSY,
    errno.ETIMEDOUT: _BUSY,
}
"""What may pass with time, or once the state is opened anew: by what the operating system says, with the remedy."""
DOES_NOT_PASS: Final[Mapping[int, str]] = {
    errno.EROFS: "let the disk be written to, or set SKUTREND_STATE_DIR to one that can be",
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EIO: _BROKEN,
    errno.ENODEV: _BROKEN,
    errno.ENXIO: _BROKEN,
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
}
_HELD: Final = (errno.ENOLCK, errno.EAGAIN)  # of the lock of a directory that is open elsewhere
_NEWER_ROCKSDB: Final = ("unsupported format_version", "newer version of RocksDB")  # which it calls corruption, too
_LATER: Final = ("Resource busy", "Operation timed out", "Operation failed. Try again", "Shutdown in progress")


def trouble(path: Path, what: str) -> FlushFailed | StateCorrupt | StateInaccessible:
    """Tell why a state that is open cannot be read or written. what: RocksDB's words."""
    if what.startswith("Corruption"):
        return damaged(path, what)
    msg = f"the state in {path} cannot be read or written: {what}"
    if remedy := _remedy(what, DOES_NOT_PASS):
        return StateInaccessible(f"{msg}; {remedy}")
    if remedy := _remedy(what, MAY_PASS):
        return FlushFailed(f"{msg}; {remedy}")
    if what.startswith(_LATER):
        return FlushFailed(msg)
    return StateInaccessible(
        f"{msg}; this is no matter of the disk: report it, and delete that directory to rebuild the state"
    )


def trouble_opening(path: Path, what: str) -> FlushFailed | StateMismatch | StateInaccessible:
    """Tell why a state cannot be opened; one whose files are missing is damaged."""
    if "lock" in what and any(os.strerror(number) in what for number in _HELD):
        msg = f"cannot open the state in {path}: {what}; is another worker using SKUTREND_STATE_DIR? else delete it"
        return StateMismatch(f"{msg} to rebuild")
    if any(words in what for words in _NEWER_ROCKSDB):
        return StateMismatch(
            f"the state in {path} was written by a later RocksDB ({what}); start the version of skutrend that wrote "
            "it, or where none later was ever here, delete that directory to rebuild it"
        )
    if os.strerror(errno.ENOENT) in what:
        return damaged(path, what)
    if what.startswith(("Corruption", *_LATER)) or _remedy(what, {**MAY_PASS, **DOES_NOT_PASS}):
        return trouble(path, what)
    return StateMismatch(f"cannot open the state in {path}: {what}; delete that directory to rebuild it")


def damaged(path: Path, what: str) -> StateCorrupt:
    """Tell of state that must not be used."""
    return StateCorrupt(f"the state in {path} is damaged ({what}); delete that directory to rebuild it")


def _remedy(what: str, remedies: Mapping[int, str]) -> str:
    said = [number for number in remedies if os.strerror(number) in what]
    # "Too many open files in system" is also the beginning of another one
    return remedies[max(said, key=lambda number: len(os.strerror(number)))] if said else ""
