"""The stored form of a partition: golden bytes, what is refused, and how the refusal helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features.cadence import DAY_MS
from features.festivals import Festivals
from features.grid import WindowGrid
from features.known_days import Festival
from features.open_windows import FOLDED
from features.sku_state import SkuState
from features.table import Column, SkuTable
from inference import pipeline
from schemas.errors import StateCorrupt, StateMismatch
from streams.state import meta as metas
from streams.state.keys import META
from streams.state.rows import SKU_ROW, RowLayout
from streams.state.store import Store
from tests.support import golden_state
from tests.support.golden_state import SKU, STATE, TIMEZONE, plain

FORMATS = sorted(STATE.glob("format-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
NEWEST = FORMATS[-1]
COLUMNS = (Column("units", "<f4"), Column("seen", "<i8"))


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return found


def test_every_format_so_far_has_its_golden_state() -> None:
    assert [folder.name for folder in FORMATS] == [f"format-{n}" for n in range(1, metas.FORMAT + 1)]


def assert_says(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """All that is wanted, in every depth; fields that were added since may say more."""
    for name, value in wanted.items():
        if isinstance(value, dict):
            assert_says(found[name], value)
        else:
            assert found[name] == value, name


def test_golden_rows_are_read_as_they_were_meant_and_written_as_they_were() -> None:
    folder = NEWEST
    stored = (folder / "sku.row").read_bytes()
    table = SkuTable(pipeline.ROW_COLUMNS)
    SKU_ROW.unpack(table, [SKU], [stored])
    assert {c.name: plain(table[c.name][0]) for c in table.spec} == expected(folder)["sku"]
    assert SKU_ROW.pack(table, table.slots([SKU])) == [stored]
    folded = np.frombuffer((folder / "open.row").read_bytes(), FOLDED)
    assert {name: plain(folded[name][0]) for name in folded.dtype.names or ()} == expected(folder)["open"]


def test_the_golden_meta_record_is_read_and_fits_this_build() -> None:
    meta = msgspec.msgpack.decode((NEWEST / "meta.msgpack").read_bytes(), type=metas.Meta)
    assert_says(msgspec.to_builtins(meta), expected(NEWEST)["meta"])
    assert meta.counts["orders"].balance == 0
    sku_state = SkuState(WindowGrid(timezone=TIMEZONE))
    metas.check(meta, sku_state, where="here")
    metas.restore_season(sku_state, meta.season)
    assert metas.season_state(sku_state) == meta.season


def test_a_season_stored_without_its_slowest_level_goes_on_from_the_slow_one() -> None:
    stored = msgspec.msgpack.decode((NEWEST / "meta.msgpack").read_bytes())
    del stored["season"]["slower"]
    meta = metas.read_meta(msgspec.msgpack.encode(stored), where="here")
    sku_state = SkuState(WindowGrid(timezone=TIMEZONE))
    metas.restore_season(sku_state, meta.season)
    assert sku_state.season.slower == sku_state.season.slow == meta.season.slow > 0


def test_festivals_are_stored_and_one_may_do_without_them() -> None:
    sku_state, again = (SkuState(WindowGrid(timezone=TIMEZONE)) for _ in range(2))
    festivals = sku_state.season.festivals
    for sold, festival in ((3.0, Festival("Diwali", -1)), (1.5, None), (0.1, Festival("Diwali", 2))):
        festivals.observe(festival, sold=sold, expected=1.0)
    meta = msgspec.to_builtins(metas.fresh_meta(sku_state, model="none"))
    metas.restore_season(again, metas.read_meta(msgspec.msgpack.encode(meta), where="here").season)
    assert again.season.festivals == festivals
    del meta["season"]["festivals"]
    earlier = SkuState(WindowGrid(timezone=TIMEZONE))
    metas.restore_season(earlier, metas.read_meta(msgspec.msgpack.encode(meta), where="here").season)
    assert earlier.season.festivals == Festivals()


@pytest.mark.parametrize("folder", FORMATS[:-1], ids=lambda folder: folder.name)
def test_state_of_an_earlier_format_is_refused_and_not_taken_for_damaged(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "partition-0")
    store.db.put(META, (folder / "meta.msgpack").read_bytes())
    sku_state = SkuState(WindowGrid(timezone=TIMEZONE))
    number = folder.name.rpartition("-")[2]
    with pytest.raises(StateMismatch, match=rf"format {number}\b.*start the version that wrote it") as refusal:
        metas.check(store.meta() or fresh_meta(), sku_state, where=str(store.path))
    store.close()
    assert not isinstance(refusal.value, StateCorrupt), "which would be deleted without asking"


def test_the_golden_script_writes_files_of_the_golden_layout(tmp_path: Path) -> None:
    golden_state.write(tmp_path / "again")
    for path in NEWEST.iterdir():
        again = (tmp_path / "again" / path.name).read_bytes()
        assert len(again) == len(path.read_bytes()), path.name
    numbers, anew = (expected(folder)["sku"]["ew"] for folder in (NEWEST, tmp_path / "again"))
    assert anew == pytest.approx(numbers, rel=1e-5)


def fresh_meta(**changed: Any) -> metas.Meta:  # noqa: ANN401 - fields of Meta
    return msgspec.structs.replace(metas.fresh_meta(SkuState(WindowGrid()), model="none"), **changed)


@pytest.mark.parametrize(
    ("changed", "name", "have", "want"),
    [
        ({"layout": "0123456789abcdef"}, "row layout", "'0123456789abcdef'", repr(SKU_ROW.signature)),
        ({"grid": "window_ms=1"}, "windows", "'window_ms=1'", repr(WindowGrid().signature)),
    ],
)
def test_foreign_state_is_refused_by_name_with_both_values_and_what_to_do(
    changed: dict[str, Any], name: str, have: str, want: str
) -> None:
    with pytest.raises(StateMismatch) as refusal:
        metas.check(fresh_meta(**changed), SkuState(WindowGrid()), where="/data/3")
    said = str(refusal.value)
    assert f"/data/3 has {name} {have}, this worker works with {want}" in said
    assert "start it with the settings and version that wrote it" in said
    assert "a new SKUTREND_GROUP" in said


@pytest.mark.parametrize("number", [0, 99, -1, metas.FORMAT - 1, metas.FORMAT + 1])
@pytest.mark.parametrize("others", ["as ours", "more", "fewer", "of other types"])
def test_another_format_is_reported_first_whatever_else_its_record_says(number: int, others: str) -> None:
    fields = msgspec.to_builtins(fresh_meta()) | {"format": number}
    if others == "more":
        fields |= {"shards": [1, {"deep": None}]}
    elif others == "fewer":
        fields = {"format": number}
    elif others == "of other types":
        fields = {name: [value] for name, value in fields.items()} | {"format": number}
    with pytest.raises(StateMismatch) as refusal:
        metas.read_meta(msgspec.msgpack.encode(fields), where="the state in /data/3")
    assert not isinstance(refusal.value, StateCorrupt), "it would be deleted"
    said = str(refusal.value)
    age = "a later" if number > metas.FORMAT else "an earlier"
    assert f"/data/3 has format {number}, which {age} version of skutrend wrote, this one reads" in said
    assert f"format {metas.FORMAT}: start the version that wrote it" in said
    assert "a new SKUTREND_GROUP" in said


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_what_workers_of_earlier_formats_left_is_refused_as_theirs_and_ours_is_read(folder: Path) -> None:
    raw, number = (folder / "meta.msgpack").read_bytes(), int(folder.name.removeprefix("format-"))
    if number == metas.FORMAT:
        assert_says(msgspec.to_builtins(metas.read_meta(raw, where="here")), expected(folder)["meta"])
        return
    with pytest.raises(StateMismatch, match=f"here has format {number}, which an earlier version") as refusal:
        metas.read_meta(raw, where="here")
    assert not isinstance(refusal.value, StateCorrupt)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\x81\xa6format\xa11",
        msgspec.msgpack.encode({"format": metas.FORMAT}),
        b"\x91" * 100_000,
        b"\xa1\xff",
    ],
    ids=["nothing", "no msgpack", "a format that is no number", "our format without its fields", "deep", "no text"],
)
def test_a_record_that_no_version_wrote_is_damage(raw: bytes) -> None:
    with pytest.raises(StateCorrupt, match="the meta record of here is unreadable"):
        metas.read_meta(raw, where="here")


def test_state_of_the_same_build_and_settings_is_welcome() -> None:
    metas.check(fresh_meta(sequence=9, model="another"), SkuState(WindowGrid()), where="/data/3")


def test_state_of_other_windows_does_not_fit() -> None:
    for sku_state in (
        SkuState(WindowGrid(timezone="Europe/London")),
        SkuState(WindowGrid(window_ms=DAY_MS // 24)),
    ):
        with pytest.raises(StateMismatch):
            metas.check(fresh_meta(), sku_state, where="here")


@pytest.mark.parametrize("wrong", [b"", b"\0" * 11, b"\0" * 13, b"\0" * 24])
def test_a_row_of_another_length_is_a_state_mismatch_that_names_the_lengths(wrong: bytes) -> None:
    table = SkuTable(COLUMNS)
    with pytest.raises(StateMismatch, match=rf"1 stored SKUs, of \[{len(wrong)}\] bytes, expected 12 each; delete"):
        RowLayout(COLUMNS).unpack(table, ["a"], [wrong])
    assert len(table) == 0


def test_rows_whose_wrong_lengths_make_up_for_each_other_are_a_state_mismatch() -> None:
    with pytest.raises(StateMismatch):
        RowLayout(COLUMNS).unpack(SkuTable(COLUMNS), ["a", "b"], [b"\0" * 11, b"\0" * 13])


def test_the_layout_is_told_apart_by_name_type_shape_and_order() -> None:
    layouts = [
        (Column("a", "<f4"), Column("b", "<f4")),
        (Column("b", "<f4"), Column("a", "<f4")),
        (Column("a", "<f4"), Column("b", "<i4")),
        (Column("a", "<f4"), Column("b", "<f4", (1,))),
        (Column("a", "<f4"), Column("c", "<f4")),
        (Column("a", "<f4"),),
    ]
    assert len({RowLayout(spec).signature for spec in layouts}) == len(layouts)
    assert RowLayout([Column("a", "<f4", fill=3)]).signature == RowLayout([Column("a", "<f4")]).signature


def test_a_row_is_its_columns_without_padding() -> None:
    assert RowLayout([Column("a", "|u1"), Column("b", "<i8"), Column("c", "<f4", (3,))]).dtype.itemsize == 1 + 8 + 12
    assert SKU_ROW.dtype.itemsize == sum(np.dtype((c.dtype, c.shape)).itemsize for c in pipeline.ROW_COLUMNS)


def test_a_partition_that_absorbed_nothing_has_balanced_counts() -> None:
    meta = fresh_meta()
    assert set(meta.counts) == {"orders", "clicks", "price-changes"}
    assert [counts.balance for counts in meta.counts.values()] == [0, 0, 0]
    assert metas.Counts(records=9, folded=4, duplicate=3, late=1, rejected=0).balance == 1
