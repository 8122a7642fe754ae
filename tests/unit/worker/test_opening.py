"""How a partition comes to be open, where its disk does not do what it is asked."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from faust.types import TP

from schemas.errors import StateMismatch
from streams.kafka.embedded import EmbeddedBroker
from streams.state.store import Store
from streams.worker.environment import Environment
from streams.worker.opening import Opener
from tests.support.partitions import settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.partition.partition import Partition
    from streams.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with EmbeddedBroker() as broker:
        yield settings_for(broker.bootstrap, tmp_path / "state", changelog="on", group="g")


class Openings(Opener):
    """Counts its attempts; one too many ends the test."""

    tries = 0

    def _open_at(self, path: Path, number: int) -> Partition:
        self.tries += 1
        assert self.tries < 5, "it would try for ever"
        return super()._open_at(path, number)


def test_damaged_state_that_cannot_be_removed_stops_the_worker(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings.partition_dir(0)
    Store(path).close()
    (path / "CURRENT").write_text("nonsense")
    opener = Openings(Environment(settings, None, 1, tp=TP))

    def refused(*_: object, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(StateMismatch, match=r"partition-0 cannot be removed: .*: Read-only file system \(errno 30\)"):
        opener.open(0)
    assert opener.tries == 1
