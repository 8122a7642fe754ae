"""The struct of arrays: slots in order of arrival, columns that grow without forgetting."""

from __future__ import annotations

import numpy as np
import pytest

from features.table import Column, SkuTable

SPEC = (
    Column("count", "<i8"),
    Column("mean", "<f4", fill=np.nan),
    Column("ring", "<f4", (3,), fill=-1.0),
    Column("first", "<i8", fill=1 << 62),
)


def test_slots_are_given_in_the_order_of_arrival() -> None:
    table = SkuTable(SPEC)
    assert table.add(["b", "a"]).tolist() == [0, 1]
    assert table.add([]).tolist() == []
    assert table.add(["ü"]).tolist() == [2]
    assert (len(table), table.skus, table.keys) == (3, ["b", "a", "ü"], [b"b", b"a", "ü".encode()])


def test_an_unknown_sku_has_slot_minus_one() -> None:
    table = SkuTable(SPEC)
    table.add(["a", "b"])
    found = table.slots(["b", "x", "b", "a"])
    assert found.dtype == np.int32
    assert found.tolist() == [1, -1, 1, 0]
    assert table.slots(["a", "a"]).tolist() == [0, 0]
    assert table.slots([]).tolist() == []


def test_a_new_sku_starts_with_the_fill_of_every_column_also_after_growth() -> None:
    table = SkuTable(SPEC)
    for start in (0, 1000, 5000):
        slots = table.add([f"{start}-{i}" for i in range(4000)])
        assert (table["count"][slots] == 0).all()
        assert np.isnan(table["mean"][slots]).all()
        assert (table["ring"][slots] == -1).all()
        assert (table["first"][slots] == 1 << 62).all()


def test_growth_keeps_every_value() -> None:
    table = SkuTable(SPEC)
    for i in range(40):
        slots = table.add([f"{i}-{j}" for j in range(100)])
        table["count"][slots] = slots
        table["ring"][slots] = slots[:, None] + np.array([0.0, 0.25, 0.5])
    everyone = table.slots([f"{i}-{j}" for i in range(40) for j in range(100)])
    assert everyone.tolist() == list(range(4000))
    assert table["count"][everyone].tolist() == list(range(4000))
    np.testing.assert_array_equal(table["ring"][everyone][:, 1], np.arange(4000) + 0.25)
    assert np.isnan(table["mean"][everyone]).all()


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        SkuTable([Column("a", "<i4"), Column("a", "<f4")])
