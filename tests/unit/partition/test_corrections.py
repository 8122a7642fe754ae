"""Late events change closed windows: told again with a higher revision, once, over restarts; and so are forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from features.cadence import DAY_MS, RING
from schemas.inputs import CLICKS, ORDERS, PRICES
from schemas.provenance import read_late_event_headers
from streams.commands.serve import open_session
from streams.observe.metrics import Metrics
from tests.support.partitions import (
    HOUR_MS,
    MINUTE_MS,
    NOW_MS,
    T0,
    click,
    last_of_each_id,
    open_partition,
    order,
    price_change,
    published,
    reach,
    read_topic,
    settings_for,
    take,
    windows_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from streams.partition.partition import Partition
    from streams.settings import Settings


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    return settings_for(broker, tmp_path, correct_within_ms=3 * HOUR_MS)


def told(partition: Partition, sku: str, hour: int) -> list[dict[str, Any]]:
    return [w for w in windows_of(partition, sku) if w["window_start_ms"] == T0 + hour * HOUR_MS]


def test_a_late_order_is_told_as_the_next_revision_of_its_window(settings: Settings) -> None:
    partition = open_partition(settings)
    take(partition, ORDERS, order("1", "a", T0, quantity=2))
    reach(partition, T0 + 2 * HOUR_MS)
    take(partition, ORDERS, order("2", "a", T0 + MINUTE_MS, quantity=3, unit_price=4.0))
    take(partition, CLICKS, click("c", "a", T0 + MINUTE_MS))
    first, second = told(partition, "a", 0)
    assert (first["revision"], first["units"], first["revenue"], first["views"]) == (0, 2, 4, 0)
    assert (second["revision"], second["units"], second["revenue"], second["views"]) == (2, 5, 16, 1)
    assert second["id"] == f"a/{T0}/2"
    assert second["price"] == pytest.approx(16 / 5), "what was paid on average"
    take(partition, ORDERS, order("3", "a", T0 + MINUTE_MS, quantity=-1))
    *_, third = told(partition, "a", 0)
    assert (third["revision"], third["units"], third["returned_units"]) == (3, 5, 1)
    partition.close()


def test_one_batch_corrects_any_number_of_skus(settings: Settings) -> None:
    skus = [f"sku{n}" for n in range(300)]
    partition = open_partition(settings)
    take(partition, ORDERS, *(order(f"1{sku}", sku, T0) for sku in skus))
    reach(partition, T0 + 2 * HOUR_MS)
    take(partition, ORDERS, *(order(f"2{sku}", sku, T0, quantity=1 + n) for n, sku in enumerate(skus)))
    partition.flush(now_ms=NOW_MS)
    last = [told(partition, sku, 0)[-1] for sku in (skus[0], skus[150], skus[299])]
    assert [(w["revision"], w["units"]) for w in last] == [(1, 2), (1, 152), (1, 301)]
    partition.close()


def test_late_events_say_whether_they_have_changed_their_window(settings: Settings) -> None:
    metrics = Metrics()
    partition = open_partition(settings, metrics=metrics)
    take(partition, ORDERS, order("1", "a", T0))
    reach(partition, T0 + 6 * HOUR_MS)
    within, beyond, again = T0 + 2 * HOUR_MS, T0 + HOUR_MS, T0 + 2 * HOUR_MS
    for number, at_ms in (("2", within), ("3", beyond), ("2", again)):
        take(partition, ORDERS, order(number, "a", at_ms))
    partition.flush(now_ms=NOW_MS)
    letters = read_topic(settings.brokers, settings.topic("late-events"))
    said = sorted((each.source, each.corrected) for each in (read_late_event_headers(m.headers()) for m in letters))
    assert [corrected for _, corrected in said] == [1, 0, 0]
    counts = partition.meta.counts["orders"]
    assert (counts.late, counts.balance) == (3, 0), "late is late, whatever it changes"
    corrected = metrics.corrected.labels(settings.topic("orders"), "0")._value.get()  # noqa: SLF001
    assert corrected == 1
    partition.close()


def test_an_event_counts_once_whichever_window_has_its_id(settings: Settings) -> None:
    partition = open_partition(settings)
    take(partition, ORDERS, order("1", "a", T0))
    reach(partition, T0 + 3 * HOUR_MS)
    take(partition, ORDERS, order("open", "a", T0 + 4 * HOUR_MS))
    take(partition, ORDERS, order("1", "a", T0), order("open", "a", T0), order("1", "a", T0 + HOUR_MS))
    take(partition, ORDERS, order("2", "a", T0), order("2", "a", T0 + HOUR_MS), order("2", "a", T0))
    assert [(w["revision"], w["units"]) for w in told(partition, "a", 0)] == [(0, 1), (1, 2)]
    assert [w["revision"] for w in told(partition, "a", 1)] == [0]
    partition.close()


def test_what_comes_again_in_an_open_window_is_told_apart_by_its_place_in_the_batch(settings: Settings) -> None:
    """A batch may be cut anywhere: an id counts from where it stands."""
    for cut in (1, 2):
        partition = open_partition(settings_for(settings.brokers, settings.group_dir / str(cut)))
        take(partition, ORDERS, order("1", "a", T0))
        reach(partition, T0 + 2 * HOUR_MS)
        events = [order("x", "a", T0), order("x", "a", T0 + 3 * HOUR_MS)]
        for start in range(0, 2, cut):
            take(partition, ORDERS, *events[start : start + cut])
        assert [w["units"] for w in told(partition, "a", 0)] == [1, 2], cut
        partition.close()


def test_nothing_is_lost_or_told_twice_over_a_restart(settings: Settings) -> None:
    partition = open_partition(settings)
    take(partition, ORDERS, order("1", "a", T0), price_less := order("2", "b", T0 + HOUR_MS))
    reach(partition, T0 + 2 * HOUR_MS)
    partition.flush(now_ms=NOW_MS)
    take(partition, ORDERS, order("3", "a", T0))
    partition.close()  # before it is flushed: the record is read again
    partition = open_partition(settings)
    take(partition, ORDERS, order("3", "a", T0))
    partition.flush(now_ms=NOW_MS)
    partition.close()
    partition = open_partition(settings)
    take(partition, ORDERS, order("3", "a", T0), order("1", "a", T0), price_less, order("4", "a", T0 + MINUTE_MS))
    assert [(w["revision"], w["units"]) for w in told(partition, "a", 0)] == [(0, 1), (1, 2), (2, 3)]
    slot = partition.sku_state.table.index["a"]
    first = settings.grid.number(T0)
    assert partition.sku_state.table["ring"][slot, first % RING] == 3
    partition.close()
    again = open_partition(settings)
    assert again.sku_state.table["ring"][again.sku_state.table.index["a"], first % RING] == 3, "rows were stored"
    again.close()


def test_skus_nobody_knew_then_or_at_all_are_told_too(settings: Settings) -> None:
    partition = open_partition(settings)
    take(partition, ORDERS, order("1", "a", T0))
    reach(partition, T0 + 2 * HOUR_MS)
    take(partition, ORDERS, order("2", "new", T0 + 2 * HOUR_MS))
    reach(partition, T0 + 3 * HOUR_MS + 10 * MINUTE_MS)
    take(partition, ORDERS, order("3", "new", T0 + HOUR_MS), order("4", "never", T0 + HOUR_MS))
    (window,) = told(partition, "new", 1)
    assert (window["revision"], window["units"], window["price"]) == (1, 1, 2)
    assert [w["revision"] for w in windows_of(partition, "never")] == [1]
    assert "never" not in partition.sku_state.table.index, "a SKU lives from an event that was on time"
    partition.close()


def test_a_late_price_counts_from_its_time_on(settings: Settings) -> None:
    partition = open_partition(settings)
    take(partition, ORDERS, order("1", "a", T0))
    take(partition, PRICES, price_change("p1", "a", T0 + MINUTE_MS, 3.0))
    reach(partition, T0 + 3 * HOUR_MS)
    take(partition, PRICES, price_change("p2", "a", T0 + HOUR_MS, 5.0), price_change("p3", "a", T0, 7.0))
    assert [w["price"] for w in told(partition, "a", 0)] == [3, 3], "the newest of the window stays"
    assert [w["price"] for w in told(partition, "a", 1)] == [3, 5]
    reach(partition, T0 + 5 * HOUR_MS)
    assert [w["price"] for w in told(partition, "a", 3)] == [5], "and is known from then on"
    take(partition, ORDERS, order("2", "a", T0 + 2 * HOUR_MS, unit_price=9.0))
    assert [w["price"] for w in told(partition, "a", 2)] == [5, 5], "not what was paid, where a price is listed"
    partition.close()


def test_with_zero_nothing_is_corrected_and_nothing_kept(broker: str, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path, correct_within_ms=0)
    partition = open_partition(settings)
    take(partition, ORDERS, order("1", "a", T0))
    reach(partition, T0 + 2 * HOUR_MS)
    take(partition, ORDERS, order("2", "a", T0))
    assert [w["revision"] for w in told(partition, "a", 0)] == [0]
    assert not list(partition.store.scan.all_closed_rows())
    assert not list(partition.store.scan.closed_keys(0, settings.grid.number(T0 + HOUR_MS), families=(b"d",)))
    partition.close()


def test_what_is_out_of_reach_is_forgotten(settings: Settings) -> None:
    partition = open_partition(settings)
    for hour in range(8):
        take(partition, ORDERS, order(f"{hour}", "a", T0 + hour * HOUR_MS))
        reach(partition, T0 + hour * HOUR_MS)
        partition.flush(now_ms=NOW_MS)
    first_open = partition.sku_state.windows.first_open
    assert first_open is not None
    kept = {number for number, *_ in partition.store.scan.all_closed_rows()}
    assert kept == set(range(first_open - 3, first_open))
    assert {number for number, *_ in partition.store.scan.ids()} == set(range(first_open - 3, first_open + 2)), (
        "and of open ones"
    )
    partition.close()


def test_the_newest_forecast_is_made_again_and_counts_its_late_events(broker: str, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path, bundle="shipped", window_ms=DAY_MS, correct_within_ms=7 * DAY_MS)
    partition = open_partition(settings, session=open_session(settings))
    table = partition.sku_state.table
    now_ms = T0 + 60 * DAY_MS
    for day in range(40):
        at_ms = T0 + day * DAY_MS
        lines = [order(f"{sku}{day}", sku, at_ms, quantity=4) for sku in "abc"]
        take(partition, ORDERS, *lines, now_ms=now_ms)
    last_ms = T0 + 40 * DAY_MS
    for source, event in ((ORDERS, order), (CLICKS, click)):
        take(partition, source, event("end", "a", last_ms), now_ms=now_ms)
    take(partition, PRICES, price_change("end", "a", last_ms, 1.0), now_ms=now_ms)
    partition.closer.advance_watermark(now_ms=now_ms, monotonic_ms=now_ms)
    partition.watermark.value_ms = last_ms
    while partition.closer.close_due(now_ms=now_ms):
        pass
    states = table["h"][: len(table)].copy()
    late = [order(f"late{n}", "a", T0 + (39 - n) * DAY_MS, quantity=40) for n in range(3)]
    take(partition, ORDERS, *late, now_ms=now_ms)
    partition.flush(now_ms=0)
    take(partition, ORDERS, order("late", "a", T0 + 35 * DAY_MS, quantity=40), now_ms=now_ms)
    partition.flush(now_ms=0)
    made = [f for f in published(settings, "forecasts") if f["window_start_ms"] == T0 + 39 * DAY_MS]
    assert [(f["sku"], f["revision"]) for f in made if f["revision"]] == [("a", 3), ("a", 4)]
    by_id = last_of_each_id(made)
    first, third, fourth = (by_id[f"a/{T0 + 39 * DAY_MS}/{revision}"] for revision in (0, 3, 4))
    assert (first["actual_units"], third["actual_units"]) == (4, 44)
    assert np.sum(first["mean"]) < np.sum(third["mean"]) < np.sum(fourth["mean"])
    assert first["step_starts_ms"] == third["step_starts_ms"]
    assert by_id[f"b/{T0 + 39 * DAY_MS}/0"]["mean"] == pytest.approx(first["mean"], abs=1e-3), "alike before"
    np.testing.assert_array_equal(table["h"][: len(table)], states)
    take(partition, ORDERS, order("next", "a", T0 + 41 * DAY_MS), now_ms=now_ms)
    partition.watermark.value_ms = T0 + 41 * DAY_MS
    while partition.closer.close_due(now_ms=now_ms):
        pass
    partition.flush(now_ms=0)
    newest = [f for f in published(settings, "forecasts") if f["window_start_ms"] == T0 + 40 * DAY_MS]
    assert {f["revision"] for f in newest} == {0}, "a new window starts anew"
    partition.close()


def test_what_a_history_has_told_is_not_counted_again_when_the_bus_tells_it(settings: Settings) -> None:
    """An export and a bus know the same order under different ids."""
    partition = open_partition(settings)
    take(partition, ORDERS, order("exported", "a", T0))
    reach(partition, T0 + 2 * HOUR_MS)
    first_open = partition.sku_state.windows.first_open
    assert first_open is not None
    partition.end_history(first_open)
    partition.flush(now_ms=NOW_MS)
    partition.close()
    partition = open_partition(settings)
    take(partition, ORDERS, order("on the bus", "a", T0))
    take(partition, ORDERS, order("2", "a", T0 + HOUR_MS))
    reach(partition, T0 + 3 * HOUR_MS + 10 * MINUTE_MS)
    take(partition, ORDERS, order("3", "a", T0 + HOUR_MS + MINUTE_MS), order("4", "a", T0 + 2 * HOUR_MS))
    assert [w["revision"] for w in told(partition, "a", 0)] == [0]
    assert [(w["revision"], w["units"]) for w in told(partition, "a", 1)] == [(0, 1), (1, 2)]
    assert [(w["revision"], w["units"]) for w in told(partition, "a", 2)] == [(0, 0), (1, 1)]
    partition.close()
