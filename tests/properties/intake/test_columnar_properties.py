"""Many records mapped at once are mapped as they are one by one, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.intake.columnar import Columnar
from streams.intake.mapper import Event, Mapper
from streams.intake.mapping import InputMapping, parse
from streams.intake.readers import Record

FLAT = """
name = "flat"
title = "lines"
[orders]
format = "json"
TIME
[orders.fields]
event_id = "id"
order_id = "order.number"
sku = "sku"
quantity = { from = "qty", default = 1 }
unit_price = { from = "price", scale = 0.01 }
currency = { constant = "eur" }
event_time_ms = "at"
customer_id = "who"
channel = { from = "how", values = { web = "online" } }
"""
NESTED = """
name = "nested"
title = "orders"
[orders]
format = "json"
each = "lines"
TIME
[orders.fields]
order_id = "parent.id"
sku = "sku"
quantity = "qty"
unit_price = { from = "price", minor_units = true }
currency = "parent.money"
event_time_ms = "parent.at"
customer_id = "parent.who.id"
"""
TEXTS = st.sampled_from(["a", " a ", "", " ", "1", "1.5", "1,5", "EUR", "web", "shop", "1700000000000", "2026-03-01"])
WILD = st.one_of(
    st.none(),
    st.booleans(),
    TEXTS,
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.lists(st.none(), max_size=1),
    st.just({"number": "x", "id": 5}),
)
TAME = {
    "id": st.sampled_from(["e1", "e2", None]),
    "sku": st.sampled_from(["A", "B ", "C"]),
    "qty": st.sampled_from([1, 2.5, -3]),
    "price": st.sampled_from([250, 99.5]),
    "at": st.integers(1_600_000_000_000, 1_800_000_000_000),
    "who": st.sampled_from(["w", None, {"id": 7}]),
    "how": st.sampled_from(["web", None]),
    "order": st.sampled_from([{"number": 7}, {"number": "8"}, None]),
    "money": st.sampled_from(["gbp", "JPY", None]),
}


def some(names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Records with these fields, mostly as they should be, of which some are missing or anything at all."""
    fields = {name: st.one_of(TAME[name], TAME[name], TAME[name], WILD) for name in names.split()}
    return st.fixed_dictionaries({}, optional=fields)


LINES = some("id sku qty price at who how order")
ORDERS = st.builds(
    lambda order, lines: {**order, "lines": lines},
    some("id money at who"),
    st.one_of(WILD, *[st.lists(st.one_of(some("sku qty price"), some("sku qty price"), WILD), max_size=4)] * 3),
)


def rules(text: str, time: str) -> InputMapping:
    found = parse(text.replace("TIME", time), "mine").orders
    assert found is not None
    return found


@pytest.mark.parametrize("time", ['time = "ms"', 'time = "s"', ""])
@pytest.mark.parametrize("currency", ["", "USD"])
@given(data=st.data())
def test_rows_are_those_that_the_mapper_makes_of_each_record(time: str, currency: str, data: st.DataObject) -> None:
    for text, kind in ((FLAT, LINES), (NESTED, ORDERS)):
        records = data.draw(st.lists(kind, max_size=6))
        mapper = Mapper(rules(text, time), "orders", currency=currency)
        columnar = Columnar.of(mapper)
        assert columnar is not None
        for record, rows in zip(records, columnar.run(records), strict=True):
            one_by_one = list(mapper.events(Record("r", record), is_alone=True))
            if rows is not None:
                assert [each.row if isinstance(each, Event) else each for each in one_by_one] == rows
                assert [list(map(type, row)) for row in rows] == [
                    list(map(type, each.row)) for each in one_by_one if isinstance(each, Event)
                ]
            else:
                assert not records or one_by_one != []


def test_a_constant_amount_in_minor_units_is_that_of_the_mapper() -> None:
    text = FLAT.replace(
        'unit_price = { from = "price", scale = 0.01 }', "unit_price = { constant = 499, minor_units = true }"
    )
    assert text != FLAT
    mapper = Mapper(rules(text, 'time = "ms"'), "orders", currency="EUR")
    columnar = Columnar.of(mapper)
    assert columnar is not None
    record = {"id": "e", "sku": "A", "qty": 1, "at": 1_700_000_000_000}
    (rows,) = columnar.run([record])
    (event,) = mapper.events(Record("r", record), is_alone=True)
    assert rows == [event[1]]
    assert 4.99 in event[1]


def test_what_is_plain_is_mapped_at_once() -> None:
    line = {"id": "e", "sku": "A", "qty": 1, "price": 250, "at": 1_700_000_000_000, "order": {"number": 5}}
    order = {"id": 5, "money": "EUR", "at": 1_700_000_000_000, "lines": [line, line], "who": {"id": "w"}}
    for text, record, count in ((FLAT, line, 1), (NESTED, order, 2)):
        columnar = Columnar.of(Mapper(rules(text, 'time = "ms"'), "orders"))
        assert columnar is not None
        (rows,) = columnar.run([record])
        assert rows is not None
        assert len(rows) == count
        assert columnar.run([]) == []


@pytest.mark.parametrize(
    "more",
    [
        '[[orders.leave_out]]\nwhen = "test"\nreason = "test"',
        '[[orders.events]]\nname = "sold"\nwhen = "paid"',
        '[[orders.events]]\nname = "sold"\n[[orders.events]]\nname = "back"\nfields = { quantity = "back" }',
    ],
)
def test_rules_that_ask_for_more_are_left_to_the_mapper(more: str) -> None:
    assert Columnar.of(Mapper(rules(FLAT + more, ""), "orders")) is None
    divided = FLAT.replace('"price", scale = 0.01', '"price", divide_by = "qty"')
    assert Columnar.of(Mapper(rules(divided, ""), "orders")) is None
    assert Columnar.of(Mapper(rules(FLAT.replace('"order.number"', '"row"'), ""), "orders")) is None
    assert Columnar.of(Mapper(rules(FLAT.replace('"order.number"', '''"join('/', [a, b])"'''), ""), "orders")) is None
