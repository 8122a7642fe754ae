"""State that another version has written, wherever it lies: it stops whoever meets it, and stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from faust.types import TP

from features.grid import WindowGrid
from features.sku_state import SkuState
from schemas.errors import StateCorrupt, StateMismatch
from streams.commands import state as inspection
from streams.kafka.embedded import EmbeddedBroker
from streams.state import meta as metas
from streams.state import recovery
from streams.state import verifying as comparing
from streams.state.flush_record import Flush
from streams.state.keys import META
from streams.state.recovery import recover
from streams.state.store import Store
from streams.worker.environment import Environment
from streams.worker.opening import Opener
from tests.support.partitions import settings_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from streams.settings import Settings

FOREIGN = pytest.mark.parametrize("number", [0, 99])
Record = tuple[bytes, bytes | None]


def meta(sequence: int) -> metas.Meta:
    sku_state = SkuState(WindowGrid())
    return msgspec.structs.replace(metas.fresh_meta(sku_state, model="none"), sequence=sequence)


def foreign(number: int) -> bytes:
    """Give a meta record of another format, with other fields."""
    return msgspec.msgpack.encode({"format": number, "flushes": 7, "season": "winter"})


@dataclass(frozen=True)
class Entry:
    at: int
    record: Record

    def key(self) -> bytes:
        return self.record[0]

    def value(self) -> bytes | None:
        return self.record[1]

    def offset(self) -> int:
        return self.at


@dataclass
class Scripted:
    """A changelog that holds what the test says, read as `Reader` would; only at this size a batch."""

    records_: list[Record]
    at_once: int = 100
    is_closed: bool = False
    reads: list[tuple[int, int]] = field(default_factory=list)

    def bounds(self) -> tuple[int, int]:
        return 0, len(self.records_)

    def records(self, start: int, end: int) -> Iterator[list[Entry]]:
        self.reads.append((start, end))
        for low in range(start, end, self.at_once):
            some = range(low, min(low + self.at_once, end))
            yield [Entry(at, self.records_[at]) for at in some]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One flush of ours, and the changelog contained up to offset 2."""
    opened = Store(tmp_path / "group" / "partition-0")
    opened.write(Flush(meta(1), skus=[([b"a"], [b"ours"])]))
    opened.set_position(2)
    yield opened
    opened.close()


def contents(store: Store) -> dict[bytes, bytes]:
    return dict(store.scan.records())


def bring_up(store: Store, reader: Any) -> None:  # noqa: ANN401 - stands in for another class
    recover(store, reader, topic="t-changelog", partition=3)


@FOREIGN
@pytest.mark.parametrize("rows_after", [0, 5, 5_000])
def test_a_changelog_of_another_format_is_refused_before_a_row_of_it_is_taken(
    store: Store, number: int, rows_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "SPILL_BYTES", 1_000)
    before = contents(store)
    theirs: list[Record] = [(b"sa", b"theirs"), (META, foreign(number)), *[(b"sb", b"theirs" * 10)] * rows_after]
    reader = Scripted([(b"sa", b"ours"), (META, msgspec.msgpack.encode(meta(1))), *theirs])
    with pytest.raises(StateMismatch, match=rf"the changelog t-changelog\[3\] has format {number}, which") as refusal:
        bring_up(store, reader)
    assert not isinstance(refusal.value, StateCorrupt)
    assert contents(store) == before
    assert store.position() == 2
    assert reader.is_closed


def test_a_changelog_of_another_time_leaves_the_store_as_it_was(store: Store) -> None:
    store.write(Flush(meta(9)))
    before = contents(store)
    reader = Scripted([(b"sa", b"other"), (META, msgspec.msgpack.encode(meta(4))), (b"sa", b"other")] * 2)
    with pytest.raises(StateMismatch, match=r"ends with flush 4, .* with 9: it is of another time"):
        bring_up(store, reader)
    assert contents(store) == before


def test_a_damaged_changelog_does_not_cost_the_store(store: Store) -> None:
    reader = Scripted([(b"sa", b"x"), (b"sa", b"x"), (META, b"\xc1")])
    with pytest.raises(StateMismatch, match=r"meta record of the changelog t-changelog\[3\] is unreadable") as refusal:
        bring_up(store, reader)
    assert not isinstance(refusal.value, StateCorrupt), "the store would be deleted"


@FOREIGN
def test_a_store_of_another_format_is_refused_before_the_changelog_is_read(store: Store, number: int) -> None:
    store.apply({META: foreign(number)})
    reader = Scripted([(b"sa", b"x"), (b"sa", b"x"), (META, msgspec.msgpack.encode(meta(5)))])
    with pytest.raises(StateMismatch, match=rf"partition-0 has format {number}, which .* version of skutrend wrote"):
        bring_up(store, reader)
    assert reader.reads == []
    assert reader.is_closed
    assert contents(store)[b"sa"] == b"ours"


def test_a_tail_is_searched_back_to_where_the_store_stands_and_the_last_meta_counts(store: Store) -> None:
    filling: list[Record] = [(b"sb%d" % n, b"x") for n in range(2_500)]
    last = msgspec.msgpack.encode(meta(3))
    reader = Scripted(
        [(b"sa", b"ours"), (META, b""), (META, msgspec.msgpack.encode(meta(2))), *filling, (META, last), *filling]
    )
    bring_up(store, reader)
    found = store.meta()
    assert found is not None
    assert found.sequence == 3
    assert store.position() == 5_004
    assert len(contents(store)) == 2_502


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with EmbeddedBroker() as broker:
        yield settings_for(broker.bootstrap, tmp_path / "state", changelog="on", group="g")


def left_by(settings: Settings, number: int, tmp_path: Path) -> Path:
    """Lay a partition's state down whose meta record is of another format."""
    path = settings.partition_dir(0)
    store = Store(path)
    store.apply({b"sa": b"theirs", META: foreign(number)})
    store.set_position(2)
    store.close()
    return path


class Openings(Opener):
    """Opens over a scripted changelog; there is no broker to claim a transactional id from."""

    made: Scripted

    def reader(self, topic: str, partition: int) -> Any:  # noqa: ANN401 - stands in for another class
        return self.made

    def producer(self, transactional_id: str | None = None) -> Any:  # noqa: ANN401 - likewise
        made = super().producer()
        made.init_transactions = lambda *_, **__: None  # type: ignore[method-assign]
        return made


@FOREIGN
def test_a_worker_stops_at_foreign_state_and_deletes_nothing(settings: Settings, tmp_path: Path, number: int) -> None:
    path = left_by(settings, number, tmp_path)
    opener = Openings(Environment(settings, None, 1, tp=TP))
    opener.made = Scripted([])
    with pytest.raises(StateMismatch, match=f"has format {number}"):
        opener.open(0)
    store = Store(path)  # and its lock is free
    assert contents(store)[b"sa"] == b"theirs"
    store.close()


@FOREIGN
@pytest.mark.parametrize(
    "look",
    [
        lambda settings: inspection.show(settings, "a"),
        inspection.verify,
        lambda settings: inspection.verify(settings, changelog=True),
    ],
    ids=["state show", "state verify", "state verify --changelog"],
)
def test_the_state_commands_say_so_too(
    settings: Settings, tmp_path: Path, number: int, look: Callable[[Settings], object]
) -> None:
    left_by(settings, number, tmp_path)
    with pytest.raises(StateMismatch, match=rf"partition-0 has format {number}, which .* start the version"):
        look(settings)


@FOREIGN
def test_comparing_with_a_foreign_changelog_says_which_of_the_two_it_is(
    settings: Settings, store: Store, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Scripted([(b"sa", b"theirs"), (META, foreign(number))])
    monkeypatch.setattr(comparing, "Reader", lambda *_, **__: reader)
    monkeypatch.setattr(recovery, "Reader", lambda *_, **__: Scripted(reader.records_))
    with pytest.raises(StateMismatch, match=rf"the changelog .*\[0\] has format {number}"):
        comparing.compare(settings, store, 0)
