"""Where a model bundle is: the shipped one, a directory, or an fsspec URL that is copied to this machine."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any, Final

from inference.bundle import MANIFEST, REPLAY, SHIPPED, STEP
from schemas.errors import BundleMismatch

_FILES: Final = (STEP, REPLAY, MANIFEST)  # the manifest last: it says that the others are whole
_KEPT: Final = 2  # copies: the one that serves, and the one that may be served next


class BundleSource:
    """A bundle by its setting: `shipped`, a directory, or a URL. copies: directory for copies of what a URL names."""

    def __init__(self, where: str, *, copies: Path) -> None:
        """Look at nothing yet."""
        self.where = where
        self._copies = copies

    @property
    def is_shipped(self) -> bool:
        """Whether it is the bundle that comes with the package."""
        return self.where == "shipped"

    def stamp(self) -> str:
        """Tell this state of the files from any other one; `BundleMismatch` where they cannot be looked at."""
        return hashlib.sha256(b"".join(hashlib.sha256(self._read(name)).digest() for name in _FILES)).hexdigest()[:16]

    def local(self) -> Path:
        """Give a directory on this machine that has the files, copied there from a URL; `BundleMismatch`."""
        if "://" not in self.where:
            return SHIPPED if self.is_shipped else Path(self.where)
        contents = {name: self._read(name) for name in _FILES}
        digest = hashlib.sha256(contents[MANIFEST]).hexdigest()[:16]
        folder = self._copies / digest
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                (folder / name).write_bytes(content)
            for old in sorted(self._copies.iterdir(), key=lambda each: each.stat().st_mtime)[:-_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            msg = f"bundle {self.where} cannot be copied to {folder}: {error.strerror}; set SKUTREND_STATE_DIR"
            raise BundleMismatch(msg) from error
        return folder

    def put(self, folder: Path) -> None:
        """Put the files of another bundle in its place, the manifest last; `BundleMismatch` where that cannot be."""
        try:
            for name in _FILES:
                content = (folder / name).read_bytes()
                if "://" in self.where:
                    fs, root = self._elsewhere()
                    fs.pipe_file(f"{root}/{name}", content)
                else:
                    new = Path(self.where) / f".{name}.new"
                    new.write_bytes(content)
                    new.replace(Path(self.where) / name)
        except Exception as error:
            msg = f"bundle {self.where} cannot be replaced by {folder}: {_said(error)}"
            raise BundleMismatch(msg) from error

    def _read(self, name: str) -> bytes:
        if "://" not in self.where:
            try:
                return (self.local() / name).read_bytes()
            except OSError as error:
                raise self._unreadable(name, error.strerror or str(error)) from error
        try:
            fs, root = self._elsewhere()
            fs.invalidate_cache()
            content: bytes = fs.cat_file(f"{root}/{name}")
        except Exception as error:
            raise self._unreadable(name, _said(error)) from error
        return content

    def _elsewhere(self) -> tuple[Any, str]:
        """Give the file system of a URL, and the path in it."""
        import fsspec  # noqa: PLC0415 - only for those who keep bundles elsewhere

        fs, root = fsspec.core.url_to_fs(self.where.rstrip("/"))
        return fs, root

    def _unreadable(self, name: str, why: str) -> BundleMismatch:
        return BundleMismatch(
            f"bundle {self.where} cannot be read: {name}: {why}; point SKUTREND_BUNDLE at a directory that "
            "`skutrend train` has written"
        )


def _said(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
