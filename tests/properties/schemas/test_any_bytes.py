"""No bytes make decoding raise or lose a row, and what it accepts is what a slow reading of the rules accepts."""

import json
import math
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import ClickColumns, OrderColumns, PriceColumns, Refusal
from schemas.decoding import decode_clicks, decode_orders, decode_price_changes

Decode = Callable[[Sequence[bytes | None]], tuple[OrderColumns | ClickColumns | PriceColumns, list[Refusal]]]

CODES = {"empty", "too_large", "not_json", "wrong_type", "out_of_range", "missing_sku", "control_character"}
CONTROLS = {"Cc", "Zl", "Zp", "Cs"}
INVISIBLE = {"Cf", "Zs"}
OVERRIDES = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
DECODERS: list[Decode] = [decode_orders, decode_clicks, decode_price_changes]
VALID = {
    "event_id": "e-1",
    "order_id": "o-1",
    "session_id": "s-1",
    "sku": "85123A",
    "quantity": -2.5,
    "unit_price": 2.55,
    "price": 2.55,
    "previous_price": None,
    "currency": "GBP",
    "kind": "list",
    "event_time_ms": 1291191960000,
    "customer_id": None,
}
FOR_TOPIC = [VALID, {**VALID, "kind": "view"}, VALID]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
numbers = st.sampled_from([0, 1, -1, 0.5, -0.01, 1e12, 1.1e12, 1e18, -1e18, 1.1e18, 10**400, -(10**400)]) | st.floats()
texts = st.sampled_from(
    [
        "",
        "x",
        "EUR",
        "x" * 512,
        "x" * 513,
        "\u83dc" * 170,
        "\u83dc" * 171,
        " ",
        "\u00a0\t",
        "a\x1b",
        "\u200b",
        "\x85",
        "a\u200db",
        "a\u202eb",
        "\u2028",
    ]
)
odd = json_values | numbers | texts | st.sampled_from([2**63, 2**63 - 1, -(2**63) - 1, 2**64])
orders_like = st.fixed_dictionaries(
    {name: st.just(value) | odd for name, value in VALID.items()} | {"note": json_values},
).flatmap(
    lambda d: st.sets(st.sampled_from(sorted(d)), max_size=1).map(lambda gone: {k: d[k] for k in d.keys() - gone})
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    value = bytearray(json.dumps(VALID).encode())
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(value)))
        value[at : at + draw(st.integers(0, 3))] = draw(
            st.binary(max_size=3) | st.sampled_from([b"\\u", b'"', b"1e999"])
        )
    return bytes(value[: draw(st.none() | st.integers(0, len(value)))])


values_of_any_kind = st.none() | st.binary() | mutated() | json_values.map(json.dumps).map(str.encode)


def is_whole(columns: OrderColumns | ClickColumns | PriceColumns, refusals: list[Refusal], count: int) -> None:
    refused = [refusal.row for refusal in refusals]
    assert refused == sorted(refused)
    assert sorted([*columns.row.tolist(), *refused]) == list(range(count))
    assert all(refusal.code in CODES and refusal.error.isprintable() and refusal.error for refusal in refusals)
    assert {len(getattr(columns, name)) for name in type(columns).__slots__} == {len(columns.row)}


@pytest.mark.parametrize("decode", DECODERS)
@given(values=st.lists(values_of_any_kind, max_size=12))
def test_every_value_is_a_row_or_a_refusal_whatever_its_bytes(decode: Decode, values: list[bytes | None]) -> None:
    columns, refusals = decode(values)
    is_whole(columns, refusals, len(values))


@pytest.mark.parametrize(("decode", "valid"), list(zip(DECODERS, FOR_TOPIC, strict=True)))
@given(values=st.lists(values_of_any_kind, max_size=6), data=st.data())
def test_a_batch_says_of_each_value_what_the_value_alone_says(
    decode: Decode, valid: dict[str, object], values: list[bytes | None], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(values)))
    values.insert(at, json.dumps(valid).encode())
    columns, refusals = decode(values)
    is_whole(columns, refusals, len(values))
    assert at in columns.row.tolist()
    alone = [decode([value])[1] for value in values]
    assert refusals == [Refusal(row, one[0].code, one[0].error) for row, one in enumerate(alone) if one]


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def has_nan(value: object) -> bool:
    if isinstance(value, dict):
        return any(has_nan(inner) for inner in value.values())
    if isinstance(value, list):
        return any(has_nan(inner) for inner in value)
    return isinstance(value, float) and not math.isfinite(value)


def is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


RULES: list[tuple[str, Callable[[Any], bool], Callable[[Any], bool]]] = [
    ("event_id", is_text, lambda text: 1 <= len(text) <= 512),
    ("order_id", is_text, lambda _: True),
    ("quantity", is_number, lambda number: -1e18 <= number <= 1e18),
    ("unit_price", is_number, lambda number: 0 <= number <= 1e12),
    ("currency", is_text, lambda text: len(text) == 3),
    ("event_time_ms", is_whole_number, lambda number: -(2**63) <= number < 2**63),
    ("customer_id", lambda value: value is None or is_text(value), lambda _: True),
]


def code_of_sku(sku: object) -> str | None:
    if sku is None:
        return "missing_sku"
    if not isinstance(sku, str):
        return "wrong_type"
    if sku.strip() and any(unicodedata.category(c) in CONTROLS or c in OVERRIDES for c in sku):
        return "control_character"
    is_blank = not sku.strip() or all(unicodedata.category(c) in INVISIBLE for c in sku)
    return "missing_sku" if is_blank or len(sku.encode()) > 512 else None


def code_of_order(fields: dict[str, Any]) -> str | None:
    """What the documented rules say about an order: its code, or None if it is usable."""
    if has_nan(fields):
        return "not_json"
    code = code_of_sku(fields.get("sku", ""))
    if code is not None:
        return code
    for name, right_type, in_range in RULES:
        value = fields.get(name)
        if not right_type(value):
            return "wrong_type"
        if not in_range(value):
            return "out_of_range"
    return None


@given(fields=orders_like)
def test_orders_are_judged_as_the_rules_read(fields: dict[str, Any]) -> None:
    columns, refusals = decode_orders([json.dumps(fields).encode()])
    expected = code_of_order(fields)
    assert [refusal.code for refusal in refusals] == ([] if expected is None else [expected])
    if expected is None:
        assert columns.sku == [fields["sku"]]
        assert columns.event_id == [fields["event_id"]]
        assert columns.quantity[0] == float(fields["quantity"])
        assert columns.event_time_ms[0] == np.int64(fields["event_time_ms"])
