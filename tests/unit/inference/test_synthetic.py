"""Synthetic shops and remixes: seeded, of many kinds, and replayed like real ones."""

from __future__ import annotations

import numpy as np
import pytest

from features.cadence import DAY_MS
from features.currency import ShopCurrency
from features.encoding import CALENDAR, FEATURES, YEAR
from features.grid import WindowGrid
from features.sku_state import SkuState
from inference.training import any_shop, synthetic
from inference.training.history import collect
from inference.training.network import SEES_ALL
from inference.training.unheeded import unheeded
from schemas.columns import OrderColumns, PriceColumns

pytestmark = pytest.mark.slow


def orders_of(shop: synthetic.SyntheticShop) -> OrderColumns:
    orders = shop.events[synthetic.ORDERS]
    assert isinstance(orders, OrderColumns)
    return orders


def test_a_seed_decides_a_shop() -> None:
    one, again, other = (orders_of(synthetic.shop(seed, kind="regular", skus=20, days=90)) for seed in (1, 1, 2))
    assert one.sku == again.sku
    assert np.array_equal(one.quantity, again.quantity)
    assert one.sku != other.sku


def test_shops_differ_in_speed_regularity_units_and_opening() -> None:
    speeds, fractional, closed, countries = [], [], [], set()
    for seed in range(30):
        shop = synthetic.shop(seed, kind=synthetic.KINDS[seed % 3], skus=30, days=120)
        orders = orders_of(shop)
        speeds.append(orders.quantity.sum() / 30 / 120)
        fractional.append(bool((orders.quantity % 1 > 0).any()))
        days = np.unique(shop.grid.numbers(orders.event_time_ms))
        closed.append(120 - len(days))
        countries.add(shop.grid.country)
        assert (orders.quantity > 0).all()
        assert (orders.unit_price > 0).all()
        assert (np.diff(orders.event_time_ms) >= 0).all()
    assert min(speeds) < 0.5
    assert max(speeds) > 20
    assert fractional == [synthetic.KINDS[seed % 3] == "weighed" for seed in range(30)]
    assert min(closed) < 5
    assert max(closed) > 25
    assert len(countries) > 3


def test_a_price_change_tells_of_every_promotion_before_its_sales() -> None:
    shop = synthetic.shop(3, kind="restless", skus=60, days=200)
    prices, orders = shop.events[synthetic.PRICES], orders_of(shop)
    assert isinstance(prices, PriceColumns)
    assert len(prices.sku) > 20
    known: dict[str, float] = {}
    rows = [(t, 0, s, p) for t, s, p in zip(prices.event_time_ms, prices.sku, prices.price, strict=True)]
    rows += [(t, 1, s, p) for t, s, p in zip(orders.event_time_ms, orders.sku, orders.unit_price, strict=True)]
    for _, is_order, sku, price in sorted(rows):
        if is_order and sku in known:
            assert price == known[sku]
        elif not is_order:
            known[sku] = price


def test_they_go_through_the_serving_code() -> None:
    shop = synthetic.shop(5, kind="weighed", skus=25, days=120)
    arrays = collect(SkuState(shop.grid, money=ShopCurrency(synthetic.CURRENCY)), shop.events).arrays
    assert arrays.n_features == len(FEATURES)
    assert arrays.n_calendar == len(CALENDAR)
    assert np.isfinite(arrays.x).all()
    assert arrays.windows == pytest.approx(120, abs=8)


def test_remixes_are_made_of_real_lines() -> None:
    orders = orders_of(synthetic.shop(7, kind="regular", skus=40, days=100))
    made = synthetic.remixed(orders, 1, skus=50)
    assert len(set(made.sku)) <= 50
    assert set(made.event_time_ms.tolist()) <= set(orders.event_time_ms.tolist())
    assert len(set(made.event_id)) == len(made.event_id)
    assert (np.diff(made.event_time_ms) >= 0).all()
    assert len(synthetic.remixed(orders, 1, skus=50, most_lines=100).sku) < len(made.sku)


def test_others_share_the_batches_with_the_shop_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_shop, "REMIXES", 1)
    monkeypatch.setattr(any_shop, "SYNTHETIC_SHOPS", 2)
    orders = orders_of(synthetic.shop(7, kind="regular", skus=40, days=100))
    made: list[int] = []
    end_ms = int(orders.event_time_ms[len(orders.sku) // 2])
    others = any_shop.others({synthetic.ORDERS: orders}, WindowGrid(), seed=1, until_ms=end_ms, progress=made.append)
    assert made == [1, 2, 3]
    assert sum(other.share for other in others) == pytest.approx(0.75)
    assert others[0].arrays.windows < 60


def test_a_shop_of_less_than_a_year_does_not_learn_of_its_year() -> None:
    assert unheeded(span_ms=400 * DAY_MS, any_shop=False) == SEES_ALL
    little, any_shops = unheeded(span_ms=300 * DAY_MS, any_shop=False), unheeded(span_ms=900 * DAY_MS, any_shop=True)
    assert {CALENDAR[at] for at in little.calendar} == {CALENDAR[at] for at in any_shops.calendar} == set(YEAR)
    assert {FEATURES[at] for at in little.features} == {"shop_trend", "shop_slow_trend"}
    assert {FEATURES[at] for at in any_shops.features} == {"shop_trend", "shop_slow_trend", "views", "carts"}
