"""One currency per shop: which it is, what others are worth in it, and who is refused for want of a rate."""

from __future__ import annotations

import numpy as np
import pytest

from features.admission import Absorbed
from features.currency import ShopCurrency
from features.grid import WindowGrid
from features.sku_state import SkuState
from schemas.errors import BadSetting, StateMismatch
from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support.sku_states import Click, Event, Order, Price, close, columns, day_ms

NOW = day_ms(100)
AT = day_ms(0, 12)


def absorb(sku_state: SkuState, source: int, *events: Event) -> Absorbed:
    return sku_state.absorb(source, columns(source, events), now_ms=NOW)


def line(event_id: str, price: float, currency: str, *, sku: str = "a", quantity: float = 1) -> Order:
    return Order(event_id, sku, quantity, price, AT, currency)


def closed(sku_state: SkuState) -> dict[str, dict[str, float]]:
    return close(sku_state, sku_state.grid.number(AT)).facts


def test_money_in_another_currency_is_a_dead_letter_and_is_not_added_to_the_shop_s() -> None:
    sku_state = SkuState(WindowGrid())
    outcome = absorb(sku_state, ORDERS, line("1", 100, "GBP"), line("2", 15_000, "JPY"), line("3", 7, "GBP"))
    assert (outcome.folded, [(r.row, r.code) for r in outcome.refused]) == (2, [(1, "wrong_currency")])
    assert outcome.refused[0].error == (
        "the money is in JPY, the shop's is GBP (that of the first record seen: SKUTREND_CURRENCY is not set): give "
        "JPY a rate in the file that SKUTREND_RATES names, or let the producer convert it"
    )
    assert closed(sku_state)["a"]["revenue"] == 107
    assert (sku_state.currency, sku_state.money.left_out) == ("GBP", {"JPY": 1})


def test_money_with_a_rate_is_converted_in_orders_and_price_changes() -> None:
    sku_state = SkuState(WindowGrid(), money=ShopCurrency("GBP", {"JPY": 0.0053, "EUR": 0.86}))
    absorb(sku_state, ORDERS, line("1", 100, "GBP"), line("2", 15_000, "JPY", quantity=2), line("3", 0, "EUR"))
    absorb(sku_state, PRICES, Price("p", "a", 10, AT, "EUR"))
    found = closed(sku_state)["a"]
    assert found["revenue"] == pytest.approx(100 + 2 * 15_000 * 0.0053)
    assert (found["units"], found["free_units"], found["price"]) == (3, 1, pytest.approx(8.6))


def test_what_is_refused_leaves_nothing_behind_and_may_come_again_once_it_is_mended() -> None:
    sku_state = SkuState(WindowGrid(), money=ShopCurrency("GBP"))
    assert absorb(sku_state, ORDERS, line("1", 100, "JPY", sku="new")).folded == 0
    assert "new" not in sku_state.table.index
    assert absorb(sku_state, ORDERS, line("1", 0.53, "GBP", sku="new")).folded == 1, "its event id is not taken"


def test_a_setting_wins_over_the_first_record_and_the_sentence_says_no_more_than_is_so() -> None:
    sku_state = SkuState(WindowGrid(), money=ShopCurrency("GBP"))
    (refusal,) = absorb(sku_state, PRICES, Price("p", "a", 10, AT, "EUR")).refused
    assert sku_state.currency == "GBP"
    assert "the money is in EUR, the shop's is GBP: give EUR a rate" in refusal.error


def test_a_currency_with_a_rate_cannot_be_the_shop_s() -> None:
    sku_state = SkuState(WindowGrid(), money=ShopCurrency("", {"JPY": 0.0053}))
    assert absorb(sku_state, ORDERS, line("1", 10_000, "JPY"), line("2", 1, "GBP")).folded == 2
    assert sku_state.currency == "GBP"
    assert closed(sku_state)["a"]["revenue"] == pytest.approx(54)


@pytest.mark.parametrize("text", ["gbp", "GBP"])
def test_codes_may_be_written_in_lower_case(text: str) -> None:
    sku_state = SkuState(WindowGrid())
    assert absorb(sku_state, ORDERS, line("1", 1, text), line("2", 1, "GBP"), line("3", 1, "gbp")).folded == 3
    assert sku_state.currency == "GBP"


@pytest.mark.parametrize("text", ["GBp", "£££", "   ", "\x1b[2", "12 ", "GB\n"])
def test_what_is_no_code_is_refused_in_printable_words_and_never_becomes_the_shop_s(text: str) -> None:
    sku_state = SkuState(WindowGrid())
    outcome = absorb(sku_state, ORDERS, line("1", 1, text), line("2", 1, "GBP"))
    assert (outcome.folded, sku_state.currency) == (1, "GBP")
    assert outcome.refused[0].code == "wrong_currency"
    assert outcome.refused[0].error.startswith("`currency` must be a currency code of 3 letters (ISO 4217), found ")
    assert outcome.refused[0].error.isprintable()


def test_clicks_have_no_money_and_name_no_currency() -> None:
    sku_state = SkuState(WindowGrid())
    assert absorb(sku_state, CLICKS, Click("1", "a", 0, AT)).folded == 1
    assert sku_state.currency == ""


def test_a_record_of_no_plausible_time_is_refused_once_and_names_no_currency() -> None:
    sku_state = SkuState(WindowGrid())
    outcome = absorb(sku_state, ORDERS, Order("1", "a", 1, 1, 0, "JPY"), line("2", 1, "GBP"), line("3", 1, "EUR"))
    assert [(r.row, r.code) for r in outcome.refused] == [(0, "implausible_time"), (2, "wrong_currency")]
    assert sku_state.currency == "GBP"


def test_a_price_that_is_next_to_nothing_stays_a_price() -> None:
    sku_state = SkuState(WindowGrid(), money=ShopCurrency("GBP", {"ZWL": 1e-12}))
    absorb(sku_state, ORDERS, line("1", 5e-324, "ZWL"))
    assert (closed(sku_state)["a"]["units"], sku_state.currency) == (1, "GBP")


def test_partitions_of_one_worker_share_what_the_first_of_them_saw() -> None:
    money = ShopCurrency()
    one, other = (SkuState(WindowGrid(), money=money) for _ in range(2))
    absorb(one, ORDERS, line("1", 1, "GBP"))
    assert [r.code for r in absorb(other, ORDERS, line("2", 1, "EUR")).refused] == ["wrong_currency"]
    assert other.currency == "GBP"


def test_stored_money_of_another_currency_is_refused_with_the_remedy() -> None:
    money = ShopCurrency()
    for stored in ("", "GBP", "gbp"):
        money.agree(stored, where="partition-0")
    with pytest.raises(StateMismatch, match=r"partition-1 has its money in EUR, other partitions have theirs in GBP"):
        money.agree("EUR", where="partition-1")
    with pytest.raises(StateMismatch, match=r"EUR, SKUTREND_CURRENCY is USD: .* new SKUTREND_GROUP"):
        ShopCurrency("USD").agree("EUR", where="partition-1")
    assert money.code == "GBP"


def test_a_rate_of_the_shop_s_own_currency_must_be_one() -> None:
    assert ShopCurrency("GBP", {"GBP": 1.0}).code == "GBP"
    with pytest.raises(BadSetting, match=r"SKUTREND_RATES has GBP = 0\.86, but SKUTREND_CURRENCY is GBP itself"):
        ShopCurrency("GBP", {"GBP": 0.86})


def test_what_was_left_out_is_reported_with_its_count() -> None:
    sku_state = SkuState(WindowGrid(), money=ShopCurrency("GBP"))
    absorb(sku_state, ORDERS, *(line(f"{n}", 1, "JPY") for n in range(1_200)), line("x", 1, "EUR"))
    first, second = sku_state.money.told()
    assert first.startswith("1,200 records with money in JPY left out, since the shop's is GBP: ")
    assert second.startswith("1 record with money in EUR ")


def test_a_batch_of_the_shop_s_currency_alone_is_not_looked_through_record_by_record() -> None:
    money = ShopCurrency("GBP", {"EUR": 2.0})
    assert money.worth(["GBP"] * 3, np.ones(3, np.bool_)) is None
    worth = money.worth(["GBP", "EUR", "USD"], np.ones(3, np.bool_))
    np.testing.assert_array_equal(worth, [1.0, 2.0, np.nan])
