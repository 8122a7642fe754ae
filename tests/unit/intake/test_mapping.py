"""Mapping files: what they may say, and how they are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from schemas.errors import BadInput
from streams.intake.expressions import compiled, holds
from streams.intake.mapping import Rule, family, load, named, parse, preset_texts, presets

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = """
name = "mine"
title = "my till"
[orders]
format = "csv"
[orders.fields]
sku = "article"
quantity = "pieces"
unit_price = { from = "cents", scale = 0.01 }
currency = { constant = "EUR" }
event_time_ms = "when"
"""


def test_a_mapping_is_read_as_it_stands() -> None:
    found = parse(PLAIN, "mine.toml")
    assert list(found.inputs) == ["orders"]
    assert found.orders is not None
    assert found.orders.fields["unit_price"] == Rule(expression="cents", scale=0.01)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('format = "csv"', 'format = "xls"', "Invalid enum value 'xls', in orders.format"),
        ('format = "csv"', 'format = "csv"\nformt = 1', "unknown field `formt`, in orders"),
        ('sku = "article"\n', "", r"\[orders.fields\] says nothing of sku"),
        ('sku = "article"', 'sku = "article"\ncolour = "c"', r"names colour; orders have event_id, order_id, sku"),
        ("scale = 0.01", 'scale = "0.01"', "Expected `float`, got `str`, in orders.fields.scale"),
        ('format = "csv"', 'format = "csv"\ndecimal = ","\nthousands = ","', "one sign each"),
        ('sku = "article"', 'sku = { from = "article", scale = 2 }', "sku is no amount, and can have no scale"),
        (
            'sku = "article"',
            'sku = { from = "article", minor_units = true }',
            "sku is no amount, and can have no scale",
        ),
        ('sku = "article"', 'sku = { from = "article", time = "ms" }', "sku is no time, and can have no time or zone"),
        ("scale = 0.01", 'values = { a = "1" }', "unit_price is no text, and can have no values"),
        ('format = "csv"', 'format = "csv"\nevents = [{ name = "a" }, { name = "a" }]', "have one name"),
        ("[orders]", "[orders", "mine.toml: "),
        ('title = "my till"', "", "missing required field `title`"),
    ],
)
def test_what_is_wrong_with_a_mapping_is_told_with_its_place(before: str, after: str, why: str) -> None:
    assert before in PLAIN
    with pytest.raises(BadInput, match=why) as raised:
        parse(PLAIN.replace(before, after), "mine.toml")
    assert str(raised.value).startswith("mine.toml")


def test_a_mapping_of_nothing_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="maps nothing"):
        parse('name = "a"\ntitle = "b"', "mine.toml")
    with pytest.raises(BadInput, match="does not exist; `skutrend mapping list`"):
        load(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / "mine.toml")


def test_presets_are_named_as_their_files_and_say_where_their_shape_is_documented() -> None:
    assert {name for name, _ in preset_texts()} == set(presets())
    for name, preset in presets().items():
        assert preset.source.startswith("https://") or name in ("plain", "skutrend")
        for rules in preset.inputs.values():
            assert rules.known_by, f"{name} is recognised by nothing"
    assert named("plain").name == "plain"
    assert set(family("shopify")) == {each for each in presets() if each.startswith("shopify-")}
    with pytest.raises(BadInput, match="no preset 'shop'; there are amazon-orders, "):
        family("shop")


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("id", 7),
        ("parent.id", 9),
        ("parent.customer.id", None),
        ("nothing", None),
        ("id.of", None),
        ("join('/', [to_string(parent.id), to_string(id)])", "9/7"),
        ("join('/', [id])", None),  # a number is no text: what a function does not take is no value
        ("tags[?kind == 'x'].value | [0]", 4),
    ],
)
def test_expressions_find_what_is_there_and_null_where_nothing_is(expression: str, found: object) -> None:
    record = {"id": 7, "parent": {"id": 9, "customer": None}, "tags": [{"kind": "x", "value": 4}]}
    assert compiled(expression)(record) == found


def test_a_column_is_meant_where_there_is_one_of_that_name() -> None:
    columns = ("Lineitem sku", "item-price", "a.b")
    record = {"Lineitem sku": "A", "item-price": "3", "a.b": "4"}
    for name in columns:
        assert compiled(name, columns=columns)(record) == record[name]
    assert compiled('"Lineitem sku" || "item-price"', columns=columns)(record) == "A"
    with pytest.raises(BadInput, match=r"mine: there is no column sku; the file has Lineitem sku, item-price, a\.b"):
        compiled("sku", columns=columns, where="mine")
    with pytest.raises(
        BadInput, match="mine: 'Lineitem price' is no JMESPath, nor a column: the file has Lineitem sku"
    ):
        compiled("Lineitem price", columns=columns, where="mine")
    with pytest.raises(BadInput, match=r"mine: 'a\[' is no JMESPath \("):
        compiled("a[", where="mine")


def test_conditions_hold_as_in_jmespath() -> None:
    assert [holds(each) for each in (0, "x", True, [0], None, False, "", [], {})] == [True] * 4 + [False] * 5
