from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from schemas.errors import BadInput, BadSetting
from streams.state import directories

if TYPE_CHECKING:
    from pathlib import Path

WHAT = "the state directory (SKUTREND_STATE_DIR)"


def test_a_directory_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    for _ in range(2):
        directories.prepare(path, what=WHAT, error=BadSetting)
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_bytes(b"mine")
    with pytest.raises(BadSetting, match=rf"{WHAT[:19]}.* cannot be made: {tmp_path}/taken is a file"):
        directories.prepare(tmp_path / "taken" / below, what=WHAT, error=BadSetting)
    assert (tmp_path / "taken").read_bytes() == b"mine"


def test_a_name_that_no_disk_takes_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"cannot be made: {tmp_path}: File name too long"):
        directories.prepare(tmp_path / ("a" * 300), what=WHAT, error=BadInput)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_directory_that_takes_no_files_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(BadSetting, match=rf"takes no files: {os.strerror(number)}; give this user the right"):
        directories.prepare(tmp_path, what=WHAT, error=BadSetting)


def test_a_full_disk_may_get_room_again_and_is_only_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    directories.prepare(tmp_path, what=WHAT, error=BadSetting)
    assert "No space left on device" in caplog.text
