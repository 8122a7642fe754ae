"""What a partition says with a model: forecasts, alerts, metrics, and how late."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from features.cadence import DAY_MS, HORIZON, MONTH_MS, WEEK_MS
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.commands.serve import open_session
from streams.observe.metrics import Metrics
from streams.settings import Settings
from tests.support.partitions import (
    HOUR_MS,
    MINUTE_MS,
    NOW_MS,
    T0,
    click,
    close_all,
    open_partition,
    order,
    price_change,
    published,
    reach,
    settings_for,
    take,
)

if TYPE_CHECKING:
    from pathlib import Path

    from streams.partition.partition import Partition


def test_a_model_forecasts_every_live_sku_and_says_who_did_it(broker: str, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path, bundle="shipped")
    session = open_session(settings)
    assert session is not None
    partition = open_partition(settings, session=session)
    take(partition, ORDERS, order("1", "a", T0), order("2", "b", T0 + 2 * HOUR_MS))
    reach(partition, T0 + 4 * HOUR_MS)
    partition.flush(now_ms=NOW_MS)
    made = [f for f in published(settings, "forecasts") if f["sku"] in "ab"]
    closed = [w for w in published(settings, "windows") if w["sku"] in "ab"]
    assert sorted(f["id"] for f in made) == sorted(w["id"] for w in closed)
    for forecast in made:
        assert (forecast["model"], forecast["provider"]) == (session.model, "CPU")
        assert all(step == sorted(step) for step in forecast["quantiles"])
        assert forecast["emitted_ms"] == NOW_MS
    partition.close()


@pytest.mark.parametrize(
    ("window_ms", "timezone", "sold", "steps"),
    [
        (DAY_MS, "Europe/London", "2024-03-28", ["2024-03-29", "2024-03-30", "2024-03-31", "2024-04-01"]),
        (DAY_MS, "Europe/London", "2024-10-25", ["2024-10-26", "2024-10-27", "2024-10-28", "2024-10-29"]),
        (DAY_MS, "America/New_York", "2024-03-08", ["2024-03-09", "2024-03-10", "2024-03-11", "2024-03-12"]),
        (DAY_MS, "Asia/Tokyo", "2024-03-28", ["2024-03-29", "2024-03-30", "2024-03-31", "2024-04-01"]),
        (WEEK_MS, "Europe/London", "2024-03-18", ["2024-03-25", "2024-04-01", "2024-04-08", "2024-04-15"]),
        (MONTH_MS, "America/New_York", "2024-01-01", ["2024-02-01", "2024-03-01", "2024-04-01", "2024-05-01"]),
    ],
)
def test_each_forecast_says_when_the_window_of_each_step_starts(
    broker: str, tmp_path: Path, window_ms: int, timezone: str, sold: str, steps: list[str]
) -> None:
    def midnight_ms(day: str) -> int:
        return int(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(timezone)).timestamp() * 1000)

    settings = settings_for(broker, tmp_path, bundle="shipped", window_ms=window_ms, timezone=timezone)
    now_ms = midnight_ms("2025-01-01")
    partition = open_partition(settings, session=open_session(settings))
    take(partition, ORDERS, order("1", "a", midnight_ms(sold)), now_ms=now_ms)
    for source, event in ((ORDERS, order), (CLICKS, click)):
        take(partition, source, event("2", "b", midnight_ms(steps[0]) + HOUR_MS), now_ms=now_ms)
    take(partition, PRICES, price_change("2", "b", midnight_ms(steps[0]) + HOUR_MS, 1.0), now_ms=now_ms)
    close_all(partition, now_ms=now_ms)
    partition.flush(now_ms=now_ms)
    partition.close()
    (made,) = published(settings, "forecasts")
    assert made["step_ms"] == window_ms
    assert made["step_starts_ms"][:4] == [midnight_ms(day) for day in steps]
    assert len(made["step_starts_ms"]) == len(made["quantiles"]) == HORIZON


@pytest.mark.parametrize(
    ("timezone", "told"),
    [
        ("Asia/Tokyo", "sold 80,000 units on Friday 24 November 2023, the first it is known to sell"),
        ("America/New_York", "sold 80,000 units on Thursday 23 November 2023, the first it is known to sell"),
    ],
)
def test_an_alert_names_the_day_of_the_shop(broker: str, tmp_path: Path, timezone: str, told: str) -> None:
    evening_ms = int(datetime.fromisoformat("2023-11-23T15:30+00:00").timestamp() * 1000)
    settings = settings_for(broker, tmp_path, bundle="shipped", window_ms=DAY_MS, timezone=timezone)
    partition = open_partition(settings, session=open_session(settings))
    take(partition, ORDERS, order("0", "b", evening_ms - DAY_MS), now_ms=evening_ms)
    take(partition, ORDERS, order("1", "a", evening_ms, quantity=80_000, unit_price=5.0), now_ms=evening_ms)
    later_ms = evening_ms + 2 * DAY_MS
    for source, event in (
        (ORDERS, order("2", "b", later_ms)),
        (CLICKS, click("2", "b", later_ms)),
        (PRICES, price_change("2", "b", later_ms, 1.0)),
    ):
        take(partition, source, event, now_ms=later_ms)
    close_all(partition, now_ms=later_ms)
    partition.flush(now_ms=later_ms)
    partition.close()
    summaries = [alert["summary"] for alert in published(settings, "alerts") if alert["sku"] == "a"]
    assert [summary for summary in summaries if told in summary] == summaries[:1] != []


def shown(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Samples of a scrape by name and values of labels but for the partition."""
    return {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "partition")): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_how_good_forecasts_are_and_which_alerts_are_open_is_reported_as_soon_as_a_partition_is_restored(
    broker: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, tmp_path, bundle="shipped", window_ms=DAY_MS)
    session, metrics = open_session(settings), Metrics()
    assert session is not None
    partition = open_partition(settings, session=session, metrics=metrics)
    for day in range(6):
        for sku, units in (("a", 3), ("b", 5)):
            take(
                partition, ORDERS, order(f"{sku}{day}", sku, T0 + day * DAY_MS, quantity=units), now_ms=T0 + 9 * DAY_MS
            )
    take(partition, ORDERS, order("huge", "c", T0 + 5 * DAY_MS, quantity=80_000), now_ms=T0 + 9 * DAY_MS)
    reach_ms = T0 + 7 * DAY_MS
    for source, event in (
        (ORDERS, order("r", "clock", reach_ms)),
        (CLICKS, click("r", "clock", reach_ms)),
        (PRICES, price_change("r", "clock", reach_ms, 1.0)),
    ):
        take(partition, source, event, now_ms=T0 + 9 * DAY_MS)
    close_all(partition, now_ms=T0 + 9 * DAY_MS)
    partition.flush(now_ms=NOW_MS)
    live = partition.pipeline.live
    partition.close()
    before = shown(metrics)

    again_metrics = Metrics()
    again = open_partition(settings, session=session, metrics=again_metrics)
    after = shown(again_metrics)
    assert again.pipeline.live == live
    names = ("skutrend_live_wql", "skutrend_live_coverage", "skutrend_open_alerts")
    assert {key: value for key, value in after.items() if key[0] in names} == {
        key: value for key, value in before.items() if key[0] in names
    }
    assert after["skutrend_live_wql", "served"] > 0
    assert 0 < after["skutrend_live_coverage",] <= 1
    assert after["skutrend_open_alerts", "demand_spike", "page"] == 1
    assert after["skutrend_open_alerts", "silence", "ticket"] == 0
    again.close()

    session.model = "another"
    fresh_metrics = Metrics()
    open_partition(settings, session=session, metrics=fresh_metrics).close()
    assert np.isnan(shown(fresh_metrics)["skutrend_live_wql", "lstm"]), "that was the loss of another model"


def test_the_time_that_closing_a_window_takes_is_measured(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(1_000.0, 0.25)
    take(partition, ORDERS, order("1", "a", T0))
    for source, make in ((ORDERS, order), (CLICKS, click)):
        take(partition, source, make("2", "a", T0 + HOUR_MS + 11 * MINUTE_MS))
    take(partition, PRICES, price_change("2", "a", T0 + HOUR_MS + 11 * MINUTE_MS, 1.0))
    monkeypatch.setattr("streams.partition.window_closer.time.perf_counter", lambda: next(clock))
    partition.closer.advance_watermark(now_ms=NOW_MS, monotonic_ms=NOW_MS)
    for _ in partition.closer.close_steps(now_ms=NOW_MS):
        for _ in range(1_000):
            next(clock)  # others work meanwhile
    (found,) = partition.metrics.close.collect()
    told = {sample.name.rpartition("_")[2]: sample.value for sample in found.samples if "le" not in sample.labels}
    assert (told["count"], told["sum"]) == (1, 0.5), "two parts of a quarter each"


def test_the_delay_of_a_close_is_reported_once_its_outputs_are_committed(settings: Settings) -> None:
    metrics = Metrics()
    partition = open_partition(settings, metrics=metrics)
    take(partition, ORDERS, order("1", "a", T0))
    reach(partition, T0 + 3 * HOUR_MS + 10 * MINUTE_MS)
    assert shown(metrics)["skutrend_windows_closed_total",] == 3
    assert shown(metrics)["skutrend_close_delay_seconds_count",] == 0
    partition.flush(now_ms=NOW_MS)
    assert shown(metrics)["skutrend_close_delay_seconds_count",] == 3
    assert 0 < shown(metrics)["skutrend_close_delay_seconds_sum",] < 30
    partition.close()
