"""The currency of a shop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from schemas.errors import StateMismatch
from schemas.inputs import CLICKS, ORDERS
from streams.settings import Settings
from tests.support.partitions import (
    HOUR_MS,
    NOW_MS,
    T0,
    click,
    open_partition,
    order,
    reach,
    read_topic,
    take,
    windows_of,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_the_shop_s_currency_is_kept_and_money_in_another_one_never_added(settings: Settings) -> None:
    opened = open_partition(settings)
    take(opened, ORDERS, order("1", "a", T0, unit_price=100, quantity=1))
    take(opened, ORDERS, order("2", "a", T0, unit_price=15_000, quantity=1, currency="JPY"))
    opened.flush(now_ms=NOW_MS)
    opened.close()
    again = open_partition(settings)
    assert again.sku_state.currency == "GBP"
    take(again, ORDERS, order("3", "a", T0, unit_price=15_000, quantity=1, currency="JPY"))
    reach(again, T0 + 2 * HOUR_MS)
    (window, *_) = windows_of(again, "a")
    assert (window["units"], window["revenue"]) == (1.0, 100.0)
    letters = [dict(m.headers()) for m in read_topic(settings.brokers, settings.topic("dead-letters"))]
    assert [letter["code"] for letter in letters] == [b"wrong_currency"] * 2
    assert all(b"JPY" in letter["error"] and b"GBP" in letter["error"] for letter in letters)
    again.close()


def test_money_is_converted_by_the_rates_of_the_settings(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "rates.toml").write_text("[rates]\nJPY = 0.005\n")
    settings = msgspec.structs.replace(settings, currency="GBP", rates=str(tmp_path / "rates.toml"))
    opened = open_partition(settings)
    take(opened, ORDERS, order("1", "a", T0, unit_price=15_000, quantity=2, currency="JPY"))
    reach(opened, T0 + 2 * HOUR_MS)
    assert windows_of(opened, "a")[0]["revenue"] == 150.0
    opened.close()


def test_state_of_another_currency_stops_with_the_remedy(settings: Settings) -> None:
    opened = open_partition(settings)
    take(opened, ORDERS, order("1", "a", T0))
    opened.flush(now_ms=NOW_MS)
    opened.close()
    open_partition(msgspec.structs.replace(settings, currency="GBP")).close()
    with pytest.raises(StateMismatch, match=r"has its money in GBP, SKUTREND_CURRENCY is EUR: .* SKUTREND_GROUP"):
        open_partition(msgspec.structs.replace(settings, currency="EUR"))


def test_a_currency_that_is_not_set_is_reported_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    opened = open_partition(settings)
    take(opened, CLICKS, click("1", "a", T0))
    assert not caplog.messages
    for number in range(3):
        take(opened, ORDERS, order(f"{number}", "a", T0))
    (message,) = caplog.messages
    assert "taken to be in GBP" in message
    assert "set SKUTREND_CURRENCY" in message
    opened.close()
