"""SKUs that are forgotten while an alert of theirs is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from schemas.alerts import Alert
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.commands.serve import open_session
from streams.observe.metrics import Metrics
from tests.support.partitions import (
    DAY_MS,
    T0,
    click,
    close_all,
    open_partition,
    order,
    price_change,
    read_topic,
    settings_for,
    take,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW_MS = T0 + 99 * DAY_MS


def test_a_sku_that_is_forgotten_twice_between_two_flushes_is_removed_once(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A catch-up of years: the table of a large flush takes each key once."""
    monkeypatch.setattr("streams.partition.capture.BULK_ROWS", 1)
    settings = settings_for(broker, tmp_path, window_ms=DAY_MS, dormant_after_ms=2 * DAY_MS)
    partition = open_partition(settings)
    for day in range(16):
        skus = ("stays", "seasonal") if day in {0, 6} else ("stays",)
        at_ms = T0 + day * DAY_MS + DAY_MS // 2
        take(partition, ORDERS, *(order(f"{sku}{day}", sku, at_ms) for sku in skus), now_ms=NOW_MS)
        take(partition, CLICKS, click(f"{day}", "stays", at_ms), now_ms=NOW_MS)
        take(partition, PRICES, price_change(f"{day}", "stays", at_ms, 2.0), now_ms=NOW_MS)
        close_all(partition, now_ms=NOW_MS)
        if day == 1:
            partition.flush(now_ms=0)
            assert partition.meta.skus == 2
    partition.flush(now_ms=0)
    partition.close()
    again = open_partition(settings)
    assert again.sku_state.table.keys == [b"stays"]
    again.close()


@pytest.mark.parametrize("comes_back", [False, True], ids=["for good", "with an event in an open window"])
def test_what_is_open_of_a_sku_that_is_forgotten_is_resolved_and_says_why(
    broker: str, tmp_path: Path, *, comes_back: bool
) -> None:
    """Nothing could have resolved it afterwards: whoever was called for it would never be told that it is over."""
    settings = settings_for(broker, tmp_path, bundle="shipped", window_ms=DAY_MS, dormant_after_ms=2 * DAY_MS)
    metrics = Metrics()
    partition = open_partition(settings, session=open_session(settings), metrics=metrics)
    for day in range(14):
        at_ms = T0 + day * DAY_MS
        take(partition, ORDERS, order(f"b{day}", "b", at_ms), now_ms=NOW_MS)
        take(partition, CLICKS, click(f"b{day}", "b", at_ms), now_ms=NOW_MS)
        take(partition, PRICES, price_change(f"b{day}", "b", at_ms, 2.0), now_ms=NOW_MS)
        if day == 8:
            huge = order("huge", "gone/7", at_ms, quantity=80_000, unit_price=3.0)
            take(partition, ORDERS, huge, now_ms=NOW_MS)
        if day == 11 and comes_back:
            take(partition, ORDERS, order("again", "gone/7", at_ms), now_ms=NOW_MS)
        close_all(partition, now_ms=NOW_MS)
    partition.flush(now_ms=0)
    shown = metrics.registry.get_sample_value(
        "skutrend_open_alerts", {"partition": "0", "kind": "demand_spike", "severity": "page"}
    )
    ages = partition.sku_state.table["age"][: len(partition.sku_state.table)].tolist()
    partition.close()
    messages = read_topic(broker, settings.output("alerts"))
    assert {message.key() for message in messages} == {b"gone/7"}
    opened, resolved = (msgspec.json.decode(message.value() or b"", type=Alert) for message in messages)
    assert (opened.status, resolved.status, resolved.kind) == ("open", "resolved", "demand_spike")
    assert (resolved.alert_key, resolved.severity, resolved.impact) == (opened.alert_key, "page", opened.impact)
    assert resolved.id == f"{opened.alert_key}/{resolved.window_start_ms}/resolved"
    assert resolved.window_start_ms == opened.window_start_ms + 2 * DAY_MS
    assert (resolved.observed, resolved.p_value) == (0.0, 1.0)
    day_of_order = opened.summary.split(" on ")[1].split(",")[0]
    assert f"SKU gone/7 has had no event since {day_of_order} and is watched no more" in resolved.summary
    assert "the demand spike reported" in resolved.summary
    assert shown == 0
    assert len(ages) == 1 + comes_back
