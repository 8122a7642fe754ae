"""The table of inputs: read off the messages, in their order."""

from __future__ import annotations

import pytest

from schemas.inputs import BY_NAME, CLICKS, INPUT_NAMES, INPUTS, ORDERS, PRICES, Field


def test_positions_are_those_of_stored_state() -> None:
    assert (ORDERS, CLICKS, PRICES) == (0, 1, 2)
    assert INPUT_NAMES == ("orders", "clicks", "price-changes")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("orders", Field("quantity", "double")),
        ("orders", Field("event_time_ms", "int64")),
        ("orders", Field("customer_id", nullable=True)),
        ("orders", Field("channel", nullable=True, optional=True)),
        ("clicks", Field("kind", choices=("view", "cart", "purchase"))),
        ("price-changes", Field("previous_price", "double", nullable=True)),
        ("price-changes", Field("kind", choices=("list", "promotion", "markdown"))),
    ],
)
def test_a_field_is_described_as_its_message_has_it(name: str, field: Field) -> None:
    assert field in BY_NAME[name].fields  # type: ignore[index]


def test_every_field_of_a_message_is_there_in_its_order() -> None:
    for each in INPUTS:
        assert tuple(field.name for field in each.fields) == each.message.__struct_fields__


def test_at_equal_event_times_prices_go_before_clicks_before_orders() -> None:
    assert [each.name for each in sorted(INPUTS, key=lambda each: each.rank)] == ["price-changes", "clicks", "orders"]
