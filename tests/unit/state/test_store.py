from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from features.grid import WindowGrid
from features.id_table import HASH_BYTES, hashed
from features.sku_state import SkuState
from schemas.errors import FlushFailed, StateCorrupt, StateMismatch
from streams.state import keys
from streams.state import meta as metas
from streams.state.flush_record import Flush
from streams.state.keys import IDS_PART_BYTES
from streams.state.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BULK = pytest.mark.parametrize("bulk", [False, True], ids=["batch", "bulk"])


def meta(sequence: int = 1, **changes: Any) -> metas.Meta:  # noqa: ANN401 - any field
    described = metas.fresh_meta(SkuState(WindowGrid()), model="none")
    return msgspec.structs.replace(described, sequence=sequence, **changes)


def part(*keys: str, mark: bytes = b"") -> tuple[list[bytes], list[bytes]]:
    return [key.encode() for key in keys], [b"row of " + key.encode() + mark for key in keys]


def ids(*texts: str) -> bytes:
    return hashed(texts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "group" / "partition-0"


def contents(store: Store) -> dict[str, Any]:
    return {
        "meta": store.meta(),
        "skus": [pair for names, packed in store.scan.sku_rows() for pair in zip(names, packed, strict=True)],
        "open": {o.number: dict(zip(o.skus, o.rows, strict=True)) for o in store.scan.open_rows()},
        "ids": list(store.scan.ids()),
    }


def test_a_new_store_holds_nothing(path: Path) -> None:
    store = Store(path)
    assert contents(store) == {"meta": None, "skus": [], "open": {}, "ids": []}
    assert store.scan.sku_row("a") is None
    store.close()


@BULK
def test_what_was_flushed_is_there_after_opening_again(path: Path, bulk: bool) -> None:
    store = Store(path)
    flushed = meta(offsets={"orders": 7}, first_open=3, watermark_ms=-5, currency="GBP", prior_nu=0.25)
    flush = Flush(
        flushed,
        skus=iter([part("Größe 7", "a"), part("b", "é/x")]),
        folded={4: part("b", mark=b"4"), 3: part("a", "s", mark=b"3")},
        ids={(3, 0): ids("e1", "e2"), (3, 2): ids("p1"), (300, 1): ids("c1")},
        closed_before=3,
        bulk=bulk,
    )
    store.write(flush)
    store.close()
    again = Store(path)
    assert contents(again) == {
        "meta": flushed,
        "skus": [(sku, b"row of " + sku.encode()) for sku in ("Größe 7", "a", "b", "é/x")],
        "open": {3: {"a": b"row of a3", "s": b"row of s3"}, 4: {"b": b"row of b4"}},
        "ids": [(3, 0, ids("e1", "e2")), (3, 2, ids("p1")), (300, 1, ids("c1"))],
    }
    assert again.scan.sku_row("Größe 7") == "row of Größe 7".encode()
    assert again.scan.sku_row("Größe") is None
    again.close()


@BULK
def test_rows_and_ids_of_closed_windows_vanish_and_those_of_open_ones_stay(path: Path, bulk: bool) -> None:
    store = Store(path)
    for number in (254, 255, 256, 257):
        store.write(Flush(meta(number), folded={number: part("a")}, ids={(number, 0): ids(f"e{number}")}))
    store.write(Flush(meta(300, first_open=256), skus=[part("a")], closed_before=256, bulk=bulk))
    assert list(contents(store)["open"]) == [256, 257]
    assert contents(store)["ids"] == [(256, 0, ids("e256")), (257, 0, ids("e257"))]
    assert contents(store)["skus"] == [("a", b"row of a")]
    store.close()


@BULK
def test_a_later_row_takes_the_place_of_an_earlier_one_and_others_stay(path: Path, bulk: bool) -> None:
    store = Store(path)
    store.write(Flush(meta(1), skus=[part("a", "b")], folded={3: part("a", "b")}, ids={(3, 0): ids("e1")}))
    newer = Flush(meta(2), skus=[part("b", mark=b"!")], folded={3: part("a", mark=b"!")}, ids={(3, 0): ids("e2")})
    newer.bulk = bulk
    store.write(newer)
    found = contents(store)
    assert found["skus"] == [("a", b"row of a"), ("b", b"row of b!")]
    assert found["open"] == {3: {"a": b"row of a!", "b": b"row of b"}}
    assert found["ids"] == [(3, 0, ids("e1")), (3, 0, ids("e2"))], "ids of two flushes add up"
    store.close()


@BULK
def test_batches_and_bulk_flushes_follow_each_other_in_order(path: Path, bulk: bool) -> None:
    store = Store(path)
    for sequence in range(1, 7):
        kind = bulk == bool(sequence % 2)
        store.write(Flush(meta(sequence), skus=[part("a", mark=b"%d" % sequence)], closed_before=sequence, bulk=kind))
    assert contents(store)["skus"] == [("a", b"row of a6")]
    assert store.meta() == meta(6)
    store.close()


@BULK
def test_a_flush_that_dies_half_way_leaves_the_one_before(path: Path, bulk: bool) -> None:
    class Dead(Exception):  # noqa: N818 - stands for the end of the process
        pass

    def dying() -> Iterator[tuple[list[bytes], list[bytes]]]:
        yield part(*(f"sku{n:05d}" for n in range(5_000)), mark=b"new" * 50)
        raise Dead

    store = Store(path)
    store.write(Flush(meta(1, first_open=3), skus=[part("a")], folded={3: part("a")}, ids={(3, 0): ids("e1")}))
    before = contents(store)
    torn = Flush(meta(2), skus=dying(), folded={4: part("a")}, ids={(4, 0): ids("e2")}, closed_before=4, bulk=bulk)
    with pytest.raises(Dead):
        store.write(torn)
    assert contents(store) == before
    store.close()
    again = Store(path)
    assert contents(again) == before
    assert [each.name for each in path.parent.iterdir()] == [path.name], "nothing is left beside the directory"
    again.write(Flush(meta(2), skus=[part("b")], bulk=bulk))
    assert contents(again)["skus"] == [("a", b"row of a"), ("b", b"row of b")]
    again.close()


@pytest.mark.parametrize("bulk", [False, True], ids=["batch", "bulk"])
def test_wherever_finishing_a_flush_dies_skus_are_those_its_meta_record_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch, bulk: bool
) -> None:
    """The rows of retired SKUs went after the table file: what was left was taken for damage at every start."""
    store = Store(path)
    described = meta(1, first_open=3, model="net")
    store.write(Flush(described, skus=[part("a", "b", "c", "d")], models={"net": [part("a", "b", "c", "d")]}))
    after = Flush(
        meta(2, first_open=4, model="net"),
        skus=[part("b")],
        models={"net": [part("b")]},
        retired=[b"d", b"a"],
        closed_before=4,
        bulk=bulk,
    )
    finish, write = store.stage(after), store.db.write
    monkeypatch.setattr(store.db, "write", lambda batch: None if bulk else write(batch))  # it died before
    finish()
    store.close()
    again = Store(path)
    left = contents(again)
    assert left["meta"].sequence == 2
    assert [sku for sku, _ in left["skus"]] == ["b", "c"]
    assert [sku for skus, _ in again.scan.model_rows("net") for sku in skus] == ["b", "c"]
    again.close()


def test_many_rows_come_back_in_parts_of_the_asked_size(path: Path) -> None:
    store = Store(path)
    names = [f"sku{n:04d}" for n in range(1_000)]
    store.write(Flush(meta(), skus=[part(*names)], bulk=True))
    parts = list(store.scan.sku_rows(at_a_time=300))
    assert [len(found) for found, _ in parts] == [300, 300, 300, 100]
    assert [sku for found, _ in parts for sku in found] == names
    store.close()


def test_an_unreadable_meta_record_says_what_to_do(path: Path) -> None:
    store = Store(path)
    store.db.put(b"m", b"\xc1 no msgpack")
    with pytest.raises(StateMismatch, match=r"meta record of .* is unreadable .* delete that directory"):
        store.meta()
    store.db.put(b"m", msgspec.msgpack.encode({"format": metas.FORMAT}))
    with pytest.raises(StateCorrupt, match=r"delete that directory"):
        store.meta()
    store.close()


def test_bytes_that_are_no_msgpack_of_their_kind_are_damage_and_named(path: Path) -> None:
    store = Store(path)
    store.write(Flush(meta(sequence=7), ids={(5, 1): b"e" * 16}))
    ids = next(key for key, _ in store.scan.records() if key[:1] == b"d")
    store.apply({ids: b"cut", b"p": msgspec.msgpack.encode("seven")})
    with pytest.raises(StateCorrupt, match=r"damaged \(the changelog's offset: .* delete that directory to rebuild"):
        store.position()
    with pytest.raises(StateCorrupt, match=r"damaged \(3 bytes of event ids are no multiple of 16"):
        list(store.scan.ids())
    store.close()


def test_tables_of_a_later_rocksdb_are_not_taken_for_damage(path: Path) -> None:
    store = Store(path)
    store.write(Flush(meta(), skus=[part("a")], bulk=True))
    store.close()
    tables = list(path.glob("*.sst"))
    assert tables
    for table in tables:
        content = bytearray(table.read_bytes())
        content[-12:-8] = struct.pack("<I", 99)  # the footer's format version
        table.write_bytes(content)
    with pytest.raises(StateMismatch, match=r"written by a later RocksDB .*99.* start the version") as refusal:
        Store(path)
    assert not isinstance(refusal.value, StateCorrupt), "it would be deleted"


def test_a_directory_that_another_process_holds_is_refused_until_it_ends(path: Path) -> None:
    holder = (
        "import sys; from pathlib import Path; from streams.state.store import Store\n"
        "store = Store(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(StateMismatch, match=r"cannot open the state in .*another worker using SKUTREND_STATE_DIR"):
            Store(path)
        process.kill()
    Store(path).close()


def test_a_database_that_rocksdb_cannot_read_says_what_to_do(path: Path) -> None:
    store = Store(path)
    store.write(Flush(meta()))
    store.close()
    (path / "CURRENT").write_text("nonsense")
    with pytest.raises(StateCorrupt, match=r"the state in .* is damaged .* delete that directory to rebuild it"):
        Store(path)


def test_a_path_that_can_be_no_directory_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "group").write_text("a file")
    with pytest.raises(StateMismatch, match="SKUTREND_STATE_DIR"):
        Store(tmp_path / "group" / "partition-0")


def test_a_disk_that_takes_no_more_is_a_failed_flush(path: Path) -> None:
    store = Store(path)
    shutil.rmtree(path.parent)
    try:
        with pytest.raises(FlushFailed):
            store.write(Flush(meta(), skus=[part("a")], bulk=True))
    finally:
        store.close()


def test_settling_writes_everything_to_files_and_the_size_is_theirs(path: Path) -> None:
    store = Store(path)
    empty = store.size_bytes()
    noise = [bytes((n * 7 + k * k) % 251 for k in range(200)) for n in range(4_000)]
    keys = [f"sku{n:05d}".encode() for n in range(4_000)]
    for sequence in range(4):
        store.write(Flush(meta(sequence), skus=[(keys, noise)]))
    store.compact()
    tables = sum(each.stat().st_size for each in path.glob("*.sst"))
    assert tables > 0
    assert store.size_bytes() == sum(each.stat().st_size for each in path.iterdir())
    assert empty < tables
    assert len(contents(store)["skus"]) == 4_000
    store.close()


def test_destroying_removes_all_and_nothing_twice(path: Path) -> None:
    store = Store(path)
    store.write(Flush(meta()))
    store.close()
    Store.destroy(path)
    assert not path.exists()
    Store.destroy(path)
    fresh = Store(path)
    assert fresh.meta() is None
    fresh.close()


def test_state_that_cannot_be_removed_says_which_file_and_why(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(path).close()

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path / "CURRENT"))

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(StateMismatch, match=r"/CURRENT: Permission denied \(errno 13\); .* remove that dir") as refusal:
        Store.destroy(path)
    assert str(path) in str(refusal.value)
    assert not isinstance(refusal.value, StateCorrupt), "which would be removed again"


def test_a_table_file_that_cannot_be_removed_is_reported_at_the_start_and_in_a_flush(path: Path) -> None:
    store = Store(path)
    in_the_way = path.parent / f".{path.name}.sst"
    in_the_way.mkdir()
    with pytest.raises(FlushFailed, match=r"partition-0\.sst cannot be removed: .* \(errno "):
        store.write(Flush(meta(), skus=[part("a")], bulk=True))
    store.close()
    with pytest.raises(StateMismatch, match=r"partition-0\.sst cannot be removed: .* \(errno "):
        Store(path)
    in_the_way.rmdir()
    Store(path).close()


@BULK
def test_all_records_but_the_position_come_as_a_flush_gave_them(path: Path, bulk: bool) -> None:
    store = Store(path)
    given: dict[bytes, bytes] = {}
    flush = Flush(
        meta(), skus=[part("a", "é/x")], folded={299: part("s"), 300: part("a")}, ids={(300, 1): ids("c1")}, bulk=bulk
    )
    store.stage(flush, also=given.__setitem__)()
    store.set_position(7)
    found = list(store.scan.records())
    store.close()
    assert found == sorted(given.items())
    assert [(keys.window_of(key), keys.name_of(key)) for key, _ in found] == [
        (300, "event ids 01000000000000000100000000 of window 300"),
        (None, "the meta record"),
        (299, "the row of SKU 's' in open window 299"),
        (300, "the row of SKU 'a' in open window 300"),
        (None, "the row of SKU 'a'"),
        (None, "the row of SKU 'é/x'"),
    ]


@BULK
def test_however_many_ids_a_flush_holds_its_records_stay_small(path: Path, bulk: bool) -> None:
    many = hashed(f"{n:073d}" for n in range(300_000))
    flush = Flush(meta(), ids={(3, 0): many, (3, 1): many[:IDS_PART_BYTES], (4, 0): b"", (4, 1): many[:16]}, bulk=bulk)
    given: list[tuple[bytes, bytes]] = []
    store = Store(path)
    store.stage(flush, also=lambda key, value: given.append((key, value)))()
    found = [(number, source, hashes) for number, source, hashes in store.scan.ids()]
    store.close()
    assert max(len(key) + len(value) for key, value in given) < 100_000
    written = [key for key, _ in given if key[:1] == b"d"]
    assert written == sorted(set(written))
    assert len(written) == 74 + 1 + 0 + 1
    assert b"".join(hashes for number, source, hashes in found if (number, source) == (3, 0)) == many
    assert [(number, source) for number, source, _ in found] == [(3, 0)] * 74 + [(3, 1), (4, 1)]


def test_event_ids_that_are_cut_are_damaged_state(path: Path) -> None:
    store = Store(path)
    store.write(Flush(meta(), ids={(3, 0): hashed(["e1"])[:-1]}))
    with pytest.raises(StateCorrupt, match=f"15 bytes of event ids are no multiple of {HASH_BYTES}.*delete that"):
        list(store.scan.ids())
    store.close()
