"""Revenue is the sum of what was converted, whatever the order and the batches; what has no rate adds nothing."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from features.currency import ShopCurrency
from features.grid import WindowGrid
from features.offline import feed
from features.sku_state import ORDERS, SkuState
from tests.support.sku_states import Order, close, columns, cut, day_ms

# sums of these are exact in float64, and have no more than the six decimals that a window keeps
RATES = {"GBP": 1.0, "EUR": 0.75, "JPY": 0.125, "KWD": 2.5}
lines = st.lists(
    st.builds(
        lambda sku, quantity, price, currency: (sku, float(quantity), price / 4, currency),
        st.sampled_from("abc"),
        st.integers(1, 1_000),
        st.integers(1, 100_000),
        st.sampled_from([*RATES, "USD", "gbp", "eur", "GBp"]),
    ),
    max_size=40,
)


def expected(drawn: list[tuple[str, float, float, str]]) -> dict[str, float]:
    """Sums by SKU, one line after the other."""
    revenue: dict[str, float] = defaultdict(float)
    for sku, quantity, price, currency in drawn:
        rate = RATES.get(currency.upper() if currency.islower() else currency)
        if rate is not None:
            revenue[sku] += quantity * price * rate
    return dict(revenue)


def made(drawn: list[tuple[str, float, float, str]]) -> list[Order]:
    return [
        Order(f"e{n}", sku, quantity, price, day_ms(0, 12), currency)
        for n, (sku, quantity, price, currency) in enumerate(drawn)
    ]


def money() -> ShopCurrency:
    return ShopCurrency("GBP", {code: rate for code, rate in RATES.items() if code != "GBP"})


@given(lines, st.lists(st.integers(0, 100), max_size=4), st.randoms(use_true_random=False))
def test_revenue_is_the_converted_sum_in_any_order_and_any_batches(
    drawn: list[tuple[str, float, float, str]], at: list[int], dice: object
) -> None:
    sku_state, events = SkuState(WindowGrid(), money=money()), made(drawn)
    dice.shuffle(events)  # type: ignore[attr-defined]  # random.Random
    refused = 0
    for part in cut(events, at):
        outcome = sku_state.absorb(ORDERS, columns(ORDERS, part), now_ms=day_ms(1))
        assert {refusal.code for refusal in outcome.refused} <= {"wrong_currency"}
        assert outcome.folded + len(outcome.refused) == len(part)
        refused += len(outcome.refused)
    facts = close(sku_state, sku_state.grid.number(day_ms(0))).facts
    assert {sku: each["revenue"] for sku, each in facts.items()} == expected(drawn)
    assert refused == sum(currency in {"USD", "GBp"} for *_, currency in drawn) == sku_state.money.left_out.total()


@given(lines)
def test_event_files_are_converted_as_the_worker_converts(drawn: list[tuple[str, float, float, str]]) -> None:
    sku_state = SkuState(WindowGrid(), money=money())
    found = [close(sku_state, number) for number in feed(sku_state, {ORDERS: columns(ORDERS, made(drawn))})]
    revenue = {sku: each["revenue"] for closed in found for sku, each in closed.facts.items()}
    assert revenue == expected(drawn)
