"""How a partition comes to be open, where its disk does not do what it is asked."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, Literal

import msgspec
import pytest
from faust.types import TP

from schemas.errors import BrokerTrouble, StateCorrupt, StateMismatch
from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.output_producer import OutputProducer
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


def test_damage_that_the_changelog_gives_back_is_not_rebuilt_for_ever_and_says_what_helps(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleting the directory, as the sentence about the damage says, would change nothing."""
    Store(settings.partition_dir(0)).close()
    opener = Openings(Environment(settings, None, 1, tp=TP))
    msg = "the state has 3 SKUs, flush 2 left 4"

    def damaged(*_: object) -> None:
        raise StateCorrupt(msg)

    monkeypatch.setattr("streams.partition.partition.restore", damaged)
    monkeypatch.setattr(Opener, "_recover", lambda *_: False)
    with pytest.raises(StateCorrupt, match=r"flush 2 left 4; but the changelog gives it back so: .* SKUTREND_GROUP"):
        opener.open(0)
    assert opener.tries == 2


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_whatever_fails_while_a_partition_opens_its_lock_is_free_afterwards(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, guarantee: Literal["exactly_once", "at_least_once"]
) -> None:
    mine = msgspec.structs.replace(settings, guarantee=guarantee)
    made: list[OutputProducer] = []
    closed: list[OutputProducer] = []

    class Failing(Opener):
        fails_at = 1

        def producer(self, transactional_id: str | None = None) -> OutputProducer:
            if len(made) + 1 == self.fails_at:
                msg = "no such protocol"
                raise BrokerTrouble(msg)
            made.append(super().producer(transactional_id))
            return made[-1]

    close = OutputProducer.close

    def noting(self: OutputProducer) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(OutputProducer, "close", noting)
    opener = Failing(Environment(mine, None, 1, tp=TP))
    for opener.fails_at in (1, 2) if guarantee == "at_least_once" else (1,):
        with pytest.raises(BrokerTrouble):
            opener.open(0)
        Store(mine.partition_dir(0)).close()
    opener.fails_at = -1
    monkeypatch.setattr(opener, "_recover", pytest.fail)  # what nobody translates
    with pytest.raises(BaseException, match="Store"):
        opener.open(0)
    Store(mine.partition_dir(0)).close()
    assert {*map(id, made)} == {*map(id, closed)} != set()
