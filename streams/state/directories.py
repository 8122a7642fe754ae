"""Directories that something is to be written to: made, and proved to take files, before any work depends on them."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.errors import Broken

log = logging.getLogger(__name__)
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_BYTES: Final = b"\0" * 4_096  # a block: less might still find room on a full disk


def prepare(path: Path, *, what: str, error: type[Broken]) -> None:
    """Make a directory with all its parents, and see that files in it can be written.

    what: what it is for, with the setting or option that named it. Raises `error` with a sentence where it cannot be
    made or takes no files. A disk that is full is only logged: it may be made room on while we wait for it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as trouble:
        msg = f"{what} cannot be made: {_reason(path, trouble)}; name another one, or mend that"
        raise error(msg) from trouble
    probe(path, what=what, error=error)


def probe(path: Path, *, what: str, error: type[Broken]) -> None:
    """Write a file to a directory and remove it, as `prepare` does: rights alone do not tell (read-only disks)."""
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".probe-") as file:
            file.write(_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as trouble:
        if trouble.errno in FULL:
            log.warning("%s takes no files just now: %s", what, trouble.strerror)
            return
        msg = f"{what} takes no files: {trouble.strerror}; give this user the right to write there, or name another one"
        raise error(msg) from trouble


def _reason(path: Path, trouble: OSError) -> str:
    """Say what stands in the way: the system names a path below it."""
    for each in (path.absolute(), *path.absolute().parents):
        try:
            if each.is_dir():
                return f"{each}: {trouble.strerror}"
            if each.exists():
                return f"{each} is a file"
        except OSError:  # may not even be looked at, like what lies below a file
            continue
    return str(trouble.strerror)
