"""Numbers at the ends of what is accepted: no NaN, infinity or negative count comes of them; beyond is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.grid import WindowGrid
from features.sku_state import SkuState
from schemas.inputs import BY_NAME, CLICKS, INPUT_NAMES, ORDERS, PRICES
from tests.support.examples import examples
from tests.support.partitions import click, order, price_change
from tests.support.sku_states import close, day_ms

TINY, SMALL = 5e-324, 1e-300
quantities = st.sampled_from([0, TINY, SMALL, 1e-6, 1, 3, 1e18]).flatmap(lambda q: st.sampled_from([q, q, -q]))
unit_prices = st.sampled_from([0, TINY, SMALL, 0.4, 2.5, 1e12])
prices = st.sampled_from([TINY, SMALL, 0.01, 2.5, 1e12])
days, skus = st.integers(0, 3), st.sampled_from("ab")
counts = st.sampled_from([0, 1, 2**31 - 2, 2**31, 2**62])
ORDER, CLICK, PRICE = (
    st.tuples(st.just(ORDERS), days, skus, quantities, unit_prices),
    st.tuples(st.just(CLICKS), days, skus, st.sampled_from(["view", "cart", "purchase"]), counts),
    st.tuples(st.just(PRICES), days, skus, prices, st.none()),
)


def value(source: int, number: int, event: tuple[Any, ...]) -> bytes:
    """Write an event as its topic would have it."""
    _, day, sku, first, second = event
    event_id, at_ms = str(number), day_ms(day, number % 24)
    if source == ORDERS:
        return order(event_id, sku, at_ms, quantity=first, unit_price=second)
    return click(event_id, sku, at_ms, first) if source == CLICKS else price_change(event_id, sku, at_ms, first)


@examples(150)
@given(st.lists(ORDER | ORDER | CLICK | PRICE, min_size=1, max_size=30), st.integers(0, 60))
def test_whatever_is_accepted_leaves_folding_closing_and_encoding_as_finite_numbers(
    events: list[tuple[Any, ...]], silent: int
) -> None:
    sku_state = SkuState(WindowGrid())
    for number, event in enumerate(events):
        source = event[0]
        columns, refused = BY_NAME[INPUT_NAMES[source]].decode([value(source, number, event)])
        assert not refused
        assert sku_state.absorb(source, columns, now_ms=day_ms(200)).folded == 1
        if source == CLICKS:  # as if so many had come before
            window = sku_state.windows.get(sku_state.grid.number(day_ms(event[1])))
            window.folded["views"][0] += event[4] // len(events)
    first = min(sku_state.windows)
    for window_number in range(first, first + 4 + silent):
        closed = close(sku_state, window_number)
        for sku, facts in closed.facts.items():
            for name, fact in facts.items():
                assert np.isfinite(fact) or (name.startswith("price") and np.isnan(fact)), (sku, name, fact)
                assert fact >= 0 or np.isnan(fact), (sku, name, fact)
            assert np.isfinite(closed.vectors[sku]).all()
        for column in sku_state.table.spec:
            assert not np.isinf(sku_state.table[column.name][: len(sku_state.table)]).any(), column.name
            if not np.isnan(column.fill):
                assert not np.isnan(sku_state.table[column.name][: len(sku_state.table)]).any(), column.name


def test_the_2_147_483_648th_view_of_a_window_is_one_more() -> None:
    sku_state = SkuState(WindowGrid())
    for number in range(2):
        columns, _ = BY_NAME["clicks"].decode(
            [click(f"v{number}", "a", day_ms(0)), click(f"c{number}", "a", day_ms(0), "cart")]
        )
        sku_state.absorb(CLICKS, columns, now_ms=day_ms(1))
        window = sku_state.windows.get(sku_state.grid.number(day_ms(0)))
        if number == 0:
            window.folded["views"][0] = window.folded["carts"][0] = 2**31 - 1
    closed = close(sku_state, sku_state.grid.number(day_ms(0)))
    assert closed.facts["a"]["views"] == closed.facts["a"]["carts"] == 2**31
    assert np.isfinite(closed.vectors["a"]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": 1e300},
        {"quantity": -1.1e18},
        {"unit_price": 1e300},
        {"unit_price": 1.1e12},
        {"unit_price": -1e-300},
    ],
    ids=str,
)
def test_an_order_beyond_the_bounds_is_refused_by_its_field(changes: dict[str, float]) -> None:
    columns, (refusal,) = BY_NAME["orders"].decode([order("1", "a", day_ms(0), **changes)])
    assert len(columns.row) == 0
    assert refusal.code == "out_of_range"
    assert next(iter(changes)) in refusal.error


@pytest.mark.parametrize("price", [1e300, 1.1e12, 0.0, -1.0])
def test_a_price_beyond_the_bounds_is_refused(price: float) -> None:
    columns, (refusal,) = BY_NAME["price-changes"].decode([price_change("1", "a", day_ms(0), price)])
    assert len(columns.row) == 0
    assert "price" in refusal.error
