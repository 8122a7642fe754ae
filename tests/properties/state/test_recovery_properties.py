"""A changelog of puts and tombstones against a dict, wherever what was read so far goes to the store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.grid import WindowGrid
from features.sku_state import SkuState
from streams.state import keys, recovery
from streams.state import meta as metas
from streams.state.keys import META
from streams.state.store import Store
from tests.bench.tombstones import Message, Tombstones
from tests.support.examples import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEYS = [keys.sku_key(sku) for sku in (b"a", b"b", b"c")] + [
    keys.open_key(number, sku) for number in (300, 301) for sku in (b"a", b"b")
]
Record = tuple[bytes, bytes | None]
records = st.tuples(st.sampled_from(KEYS), st.none() | st.binary(min_size=1, max_size=40))
logs = st.lists(st.lists(records, max_size=6), max_size=8)


def meta(sequence: int) -> bytes:
    described = metas.fresh_meta(SkuState(WindowGrid()), model="none")
    return msgspec.msgpack.encode(msgspec.structs.replace(described, sequence=sequence))


class Scripted:
    """A changelog: batches of records, each of which ends with its meta record."""

    def __init__(self, batches: list[list[Record]]) -> None:
        self.log: list[Record] = []
        self.ends = []
        for sequence, batch in enumerate(batches, 1):
            self.log += [*batch, (META, meta(sequence))]
            self.ends.append(len(self.log))

    def bounds(self) -> tuple[int, int]:
        return 0, len(self.log)

    def records(self, start: int, _end: int) -> Iterator[list[Any]]:
        low = start
        for end in [end for end in self.ends if end > start]:
            yield [Message(offset, *self.log[offset]) for offset in range(low, end)]
            low = end

    def close(self) -> None:
        pass


def recover(store: Store, reader: Any) -> recovery.RecoveryProgress:  # noqa: ANN401 - stands for a Reader
    return recovery.recover(store, reader, topic="changelog", partition=0)


@examples(60)
@given(logs, logs, st.integers(1, 3_000))
def test_a_store_at_the_changelogs_end_holds_the_last_of_each_key(
    first: list[list[Record]], later: list[list[Record]], spill_bytes: int
) -> None:
    expected: dict[bytes, bytes] = {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "SPILL_BYTES", spill_bytes)
        store = Store(Path(folder) / "partition-0")
        for batches in (first, first + later):  # anew, and from where the store stands
            recover(store, Scripted(batches))
            for key, value in Scripted(batches).log:
                if value is None:
                    expected.pop(key, None)
                else:
                    expected[key] = value
            assert dict(store.scan.records()) == expected
        store.close()


def test_records_without_a_value_do_not_pile_up_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    store = Store(tmp_path / "partition-0")
    apply = store.apply

    def counted(latest: Mapping[bytes, bytes | None]) -> None:
        handed.append(len(latest))
        apply(latest)

    monkeypatch.setattr(store, "apply", counted)
    monkeypatch.setattr(recovery, "SPILL_BYTES", 4 << 20)
    progress = recover(store, Tombstones(100_000))
    assert (progress.rows, [key for key, _ in store.scan.records()]) == (100_001, [META])
    store.close()
    assert max(handed) <= 40_000, "4 MiB at 100 bytes each, and one batch"
    assert sum(handed) == 100_001


def test_a_key_that_is_written_again_and_again_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "partition-0")
    monkeypatch.setattr(recovery, "SPILL_BYTES", 10_000)
    calls: list[int] = []
    apply = store.apply
    monkeypatch.setattr(store, "apply", lambda latest: (calls.append(len(latest)), apply(latest)))
    recover(store, Scripted([[(KEYS[0], b"x" * 100)]] * 500))
    store.close()
    assert calls == [1, 1], "the row, and the meta record that makes it count"


def test_progress_counts_offsets_from_where_the_store_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "partition-0")
    batches: list[list[Record]] = [[(key, b"x")] for key in KEYS]
    recover(store, Scripted(batches[:2]))
    monkeypatch.setattr(recovery, "REPORT_EVERY_S", -1.0)
    told: list[tuple[int, int, int]] = []
    recovery.recover(
        store,
        Scripted(batches),  # type: ignore[arg-type]  # stands for a Reader
        topic="changelog",
        partition=0,
        report=lambda progress: told.append((progress.read, progress.total, progress.rows)),
    )
    store.close()
    rows = 2 * (len(KEYS) - 2)
    assert told[-len(KEYS) + 2 :] == [(read, rows, read) for read in range(2, rows + 1, 2)]
