"""The stored form of a partition: golden bytes, what is refused, and how the refusal helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features import closing, rows
from features.grid import DAY_MS, WindowGrid
from features.open_windows import FOLDED
from features.sku_state import SkuState
from features.table import Column, SkuTable
from schemas.errors import StateMismatch
from tests.support import golden_state
from tests.support.golden_state import SKU, STATE, TIMEZONE, plain

FORMATS = sorted(STATE.glob("format-*"))
COLUMNS = (Column("units", "<f4"), Column("seen", "<i8"))


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return found


def test_every_format_so_far_has_its_golden_state() -> None:
    assert [folder.name for folder in FORMATS] == [f"format-{n}" for n in range(1, rows.FORMAT + 1)]


def assert_says(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """All that is wanted, in every depth; fields that were added since may say more."""
    for name, value in wanted.items():
        if isinstance(value, dict):
            assert_says(found[name], value)
        else:
            assert found[name] == value, name


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_golden_rows_are_read_as_they_were_meant_and_written_as_they_were(folder: Path) -> None:
    stored = (folder / "sku.row").read_bytes()
    table = SkuTable(closing.COLUMNS)
    rows.unpack(table, [SKU], [stored])
    assert {c.name: plain(table[c.name][0]) for c in table.spec} == expected(folder)["sku"]
    assert rows.pack(table, table.slots([SKU])) == [stored]
    folded = np.frombuffer((folder / "open.row").read_bytes(), FOLDED)
    assert {name: plain(folded[name][0]) for name in folded.dtype.names or ()} == expected(folder)["open"]


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_the_golden_meta_record_is_read_and_fits_this_build(folder: Path) -> None:
    meta = msgspec.msgpack.decode((folder / "meta.msgpack").read_bytes(), type=rows.Meta)
    assert_says(msgspec.to_builtins(meta), expected(folder)["meta"])
    assert meta.counts["orders"].balance == 0
    sku_state = SkuState(WindowGrid(timezone=TIMEZONE))
    rows.check(meta, sku_state, where="here")
    rows.restore_season(sku_state, meta.season)
    assert rows.season_state(sku_state) == meta.season


def test_the_golden_script_writes_files_of_the_golden_layout(tmp_path: Path) -> None:
    golden_state.write(tmp_path / "again")
    for path in FORMATS[-1].iterdir():
        again = (tmp_path / "again" / path.name).read_bytes()
        assert len(again) == len(path.read_bytes()), path.name
    numbers, anew = (expected(folder)["sku"]["ew"] for folder in (FORMATS[-1], tmp_path / "again"))
    assert anew == pytest.approx(numbers, rel=1e-5)


def fresh_meta(**changed: Any) -> rows.Meta:  # noqa: ANN401 - fields of Meta
    return msgspec.structs.replace(rows.fresh_meta(SkuState(WindowGrid()), model="none"), **changed)


@pytest.mark.parametrize(
    ("changed", "name", "have", "want"),
    [
        ({"format": 2}, "format", "2", "1"),
        ({"layout": "0123456789abcdef"}, "row layout", "'0123456789abcdef'", repr(rows.layout(closing.COLUMNS))),
        ({"grid": "window_ms=1"}, "windows", "'window_ms=1'", repr(WindowGrid().signature)),
    ],
)
def test_foreign_state_is_refused_by_name_with_both_values_and_what_to_do(
    changed: dict[str, Any], name: str, have: str, want: str
) -> None:
    with pytest.raises(StateMismatch) as refusal:
        rows.check(fresh_meta(**changed), SkuState(WindowGrid()), where="/data/3")
    said = str(refusal.value)
    assert f"/data/3 has {name} {have}, this worker works with {want}" in said
    assert "start it with the settings and version that wrote it" in said
    assert "delete that directory" in said


def test_state_of_the_same_build_and_settings_is_welcome() -> None:
    rows.check(fresh_meta(sequence=9, model="another"), SkuState(WindowGrid()), where="/data/3")


def test_state_of_other_windows_or_columns_does_not_fit() -> None:
    for sku_state in (
        SkuState(WindowGrid(timezone="Europe/London")),
        SkuState(WindowGrid(window_ms=DAY_MS // 24)),
        SkuState(WindowGrid(), extra_columns=[Column("hidden", "<f4", (8,))]),
    ):
        with pytest.raises(StateMismatch):
            rows.check(fresh_meta(), sku_state, where="here")


@pytest.mark.parametrize("wrong", [b"", b"\0" * 11, b"\0" * 13, b"\0" * 24])
def test_a_row_of_another_length_is_a_state_mismatch_that_names_the_lengths(wrong: bytes) -> None:
    table = SkuTable(COLUMNS)
    with pytest.raises(StateMismatch, match=rf"1 stored SKUs, of \[{len(wrong)}\] bytes, expected 12 each; delete"):
        rows.unpack(table, ["a"], [wrong])
    assert len(table) == 0


def test_rows_whose_wrong_lengths_make_up_for_each_other_are_a_state_mismatch() -> None:
    with pytest.raises(StateMismatch):
        rows.unpack(SkuTable(COLUMNS), ["a", "b"], [b"\0" * 11, b"\0" * 13])


def test_the_layout_is_told_apart_by_name_type_shape_and_order() -> None:
    layouts = [
        (Column("a", "<f4"), Column("b", "<f4")),
        (Column("b", "<f4"), Column("a", "<f4")),
        (Column("a", "<f4"), Column("b", "<i4")),
        (Column("a", "<f4"), Column("b", "<f4", (1,))),
        (Column("a", "<f4"), Column("c", "<f4")),
        (Column("a", "<f4"),),
    ]
    assert len({rows.layout(spec) for spec in layouts}) == len(layouts)
    assert rows.layout([Column("a", "<f4", fill=3)]) == rows.layout([Column("a", "<f4")])


def test_a_row_is_its_columns_without_padding() -> None:
    assert rows.row_dtype([Column("a", "|u1"), Column("b", "<i8"), Column("c", "<f4", (3,))]).itemsize == 1 + 8 + 12
    assert rows.row_dtype(closing.COLUMNS).itemsize == sum(c.nbytes for c in closing.COLUMNS)


def test_a_partition_that_absorbed_nothing_has_balanced_counts() -> None:
    meta = fresh_meta()
    assert set(meta.counts) == {"orders", "clicks", "price-changes"}
    assert [counts.balance for counts in meta.counts.values()] == [0, 0, 0]
    assert rows.Counts(records=9, folded=4, duplicate=3, late=1, rejected=0).balance == 1
