from __future__ import annotations

import io
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from features.cadence import DAY_MS, HORIZON, LEVELS
from features.grid import WindowGrid
from streams.demo.collector import Collector
from streams.demo.report import scores, short, show, sparkline, trending
from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.output_producer import OutputProducer
from tests.support.workers import wait_for

if TYPE_CHECKING:
    pass

GRID = WindowGrid(window_ms=DAY_MS, timezone="Europe/London")
FIRST = GRID.number(datetime(2011, 3, 20, 12, tzinfo=UTC).timestamp() * 1000)
DAYS = 40


def start_ms(day: int) -> int:
    return GRID.start_ms(FIRST + day)


def forecast(sku: str, day: int, **changes: Any) -> bytes:  # noqa: ANN401 - any field
    """A forecast as the worker publishes it, of `day` counted from the first."""
    fields: dict[str, Any] = {
        "id": f"{sku}/{start_ms(day)}/0",
        "sku": sku,
        "window_start_ms": start_ms(day),
        "window_end_ms": start_ms(day + 1),
        "revision": 0,
        "actual_units": float(day % 7),
        "step_ms": DAY_MS,
        "quantile_levels": list(LEVELS),
        "quantiles": [[float((day + step) % 7)] * len(LEVELS) for step in range(1, HORIZON + 1)],
        "mean": [2.0] * HORIZON,
        "sums": {"7": [21.0] * len(LEVELS), "14": [42.0] * len(LEVELS)},
        "trend": {
            "direction": "up",
            "change_pct": 12.0,
            "probability": 0.9,
            "change_units": 2.0,
            "change_money": 5.5,
            "usual_change_units": -5.0,
        },
        "source": "lstm",
        "model": "m",
        "provider": "CPU",
        "emitted_ms": 1,
    }
    return msgspec.json.encode(fields | changes)


def alert(**changes: Any) -> bytes:  # noqa: ANN401 - any field
    fields = {
        "id": "1", "status": "open", "kind": "demand_spike", "severity": "page", "window_start_ms": start_ms(3),
        "impact": 120.0, "summary": "Sales of sku-a jumped.",
    }  # fmt: skip
    return msgspec.json.encode(fields | changes)


@pytest.fixture(scope="module")
def seen(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Collector:
    """Perfect forecasts of sku-a over 40 days, some of sku-b without a trend, and three alerts."""
    producer = OutputProducer({"bootstrap.servers": broker, "linger.ms": "0"}, on_error=pytest.fail)
    flat = {"trend": {"direction": "flat", "change_pct": None, "probability": 0.5}}
    producer.put("forecasts", [b"sku-a"] * DAYS, [forecast("sku-a", day) for day in range(DAYS)])
    producer.put(
        "forecasts", [b"sku-b"] * 2, [forecast("sku-b", day, source="seasonal_naive", **flat) for day in (5, 6)]
    )
    alerts = [alert(), alert(id="2", status="resolved"), alert(id="3", kind="silence", severity="ticket", impact=None)]
    producer.put("alerts", [b"sku-a"] * 3, alerts)
    producer.put("dead-letters", [b"k"], [b"?"])
    producer.commit(30)
    collector = Collector(
        broker, GRID, first_ms=start_ms(0), last_ms=start_ms(DAYS - 1), out=tmp_path_factory.mktemp("demo")
    )
    wait_for(lambda: sum(collector.counts.values()) >= DAYS + 6, within_s=60, told=lambda: collector.counts)
    collector.finish()
    producer.close()
    return collector


def collected(out: Path, forecasts: list[bytes], *, last_day: int) -> Collector:
    """Publish forecasts on a broker of their own and return what a collector has of them."""
    with EmbeddedBroker() as embedded:
        producer = OutputProducer({"bootstrap.servers": embedded.bootstrap, "linger.ms": "0"}, on_error=pytest.fail)
        producer.put("forecasts", [b"sku"] * len(forecasts), forecasts)
        producer.commit(30)
        collector = Collector(embedded.bootstrap, GRID, first_ms=start_ms(0), last_ms=start_ms(last_day), out=out)
        wait_for(lambda: collector.counts["forecasts"] == len(forecasts), within_s=60, told=lambda: collector.counts)
        collector.finish()
        producer.close()
    return collector


# ---------------------------------------------------------------------- what is collected
def test_every_topic_is_counted_and_the_latest_forecast_of_each_sku_kept(seen: Collector) -> None:
    assert seen.counts == {"forecasts": DAYS + 2, "alerts": 3, "dead-letters": 1}
    assert seen.sources == Counter({"lstm": DAYS, "seasonal_naive": 2})
    assert seen.latest["sku-a"] == forecast("sku-a", DAYS - 1)
    assert set(seen.skus) == {"sku-a", "sku-b"}


def test_actuals_and_quantiles_lie_at_the_window_they_belong_to_also_where_clocks_change(seen: Collector) -> None:
    row = seen.skus["sku-a"]
    np.testing.assert_array_equal(seen.actual[row, :DAYS], [day % 7 for day in range(DAYS)])
    np.testing.assert_array_equal(seen.next_day[row, :DAYS, 0], [(day + 1) % 7 for day in range(DAYS)])
    other = seen.actual[seen.skus["sku-b"]]
    assert np.flatnonzero(np.isfinite(other)).tolist() == [5, 6]
    assert np.isnan(seen.actual[len(seen.skus) :]).all()


def test_alerts_are_written_as_they_came(seen: Collector) -> None:
    assert [each["id"] for each in seen.alerts] == ["1", "2", "3"]


@pytest.mark.slow
def test_more_skus_than_were_reserved_find_room_and_keep_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.demo.collector._FIRST_SKUS", 2)
    forecasts = [forecast(f"sku{sku}", 2, actual_units=float(sku)) for sku in range(9)]
    collector = collected(tmp_path, forecasts, last_day=3)
    rows = [collector.skus[f"sku{n}"] for n in range(9)]
    assert collector.actual[rows, 2].tolist() == [float(n) for n in range(9)]
    assert (tmp_path / "alerts.jsonl").exists()


# ---------------------------------------------------------------------- what is said of it
def test_perfect_forecasts_have_no_error_and_naive_is_as_good_on_a_perfect_week(seen: Collector) -> None:
    next_day, next_week = scores(seen, from_number=FIRST + 14)
    assert (next_day.wql, next_day.wape, next_day.naive, next_day.covered) == (0.0, 0.0, 0.0, 1.0)
    assert next_day.cells == DAYS - 1 - 14, "one SKU, and every day after the training's end"
    assert (next_week.wql, next_week.wape) == (0.0, 0.0), "a week of 0 to 6 sums up to 21"


def test_errors_are_those_of_the_formula(seen: Collector) -> None:
    row = seen.skus["sku-a"]
    before = seen.next_day.copy()
    seen.next_day[row] += 1.0
    try:
        next_day = scores(seen, from_number=FIRST + 14)[0]
    finally:
        seen.next_day = before
    actual = np.array([day % 7 for day in range(15, DAYS)], float)
    # every quantile one too high: the pinball loss is (1 - tau), doubled, meaned over the levels
    loss = 2 * np.mean([1 - level for level in LEVELS]) * len(actual)
    assert next_day.wql == pytest.approx(loss / actual.sum())
    assert next_day.wape == pytest.approx(len(actual) / actual.sum())
    assert next_day.covered == 0.0


def test_nothing_sold_gives_no_score(seen: Collector) -> None:
    assert scores(seen, from_number=FIRST + DAYS + 100) == []


def test_only_rising_skus_that_sell_enough_are_called_trending(seen: Collector) -> None:
    (only,) = trending(seen)
    found, history = only
    assert found.sku == "sku-a"
    assert history.tolist() == [day % 7 for day in range(DAYS - len(history), DAYS)]
    assert len(history) >= 14


def test_the_summary_is_printed_whole_and_fits_a_terminal(seen: Collector, tmp_path: Path) -> None:
    seen.next_day[seen.skus["sku-a"]] += 1.0
    seen.actual[seen.skus["sku-a"], 20] += 1.0  # a perfect naive forecast has nothing to be compared with
    try:
        console = Console(file=io.StringIO(), width=80)
        show(console, seen, out=tmp_path, trained_until_ms=start_ms(14), throughput="1,000 events in 2 s")
    finally:
        seen.next_day[seen.skus["sku-a"]] -= 1.0
        seen.actual[seen.skus["sku-a"], 20] -= 1.0
    text = console.file.getvalue()
    assert "sku-a" in text
    assert "2 opened, 1 resolved" in text
    assert "Sales of sku-a jumped." in text
    assert "1,000 events in 2 s" in text
    assert "next day" in text
    assert "Only days from Sunday 3 April 2011 on are counted" in " ".join(text.split()), "the shop's day, not UTC's"
    assert str(tmp_path / "forecasts.jsonl") in text.replace("\n", "")


@pytest.mark.slow
def test_every_line_fits_80_columns_whatever_the_skus_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecasts = []
    sums = {"7": [9.0, 99.0, 999.0, 98_765.4, 987_654.0, 8_765_432.0, 9_876_543.0], "14": [1.0] * len(LEVELS)}
    for n, sku in enumerate(["SKU-with-a-very-long-name", "\x1b[31mred", "X" * 500, "short"]):
        for day in range(DAYS):
            trend = {
                "direction": "up", "change_pct": 1.0, "probability": 0.9, "change_money": 98_765_432.1,
                "usual_change_units": -98_765_432.1, "shift": "up",
            }  # fmt: skip
            units = {"actual_units": 12_345.0 * 10**n, "mean": [12_345.0] * HORIZON, "sums": sums, "trend": trend}
            forecasts.append(forecast(sku, day, **units))
    collector = collected(tmp_path, forecasts, last_day=DAYS - 1)
    monkeypatch.chdir(tmp_path)
    console = Console(file=io.StringIO(), width=80)
    show(console, collector, out=Path("skutrend-demo"), trained_until_ms=start_ms(14), throughput="fast")
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "\N{HORIZONTAL ELLIPSIS}" in line], "no cell was cut"
    assert [line for line in lines if "SKU-wit..." in line and line.split()[-3:] == ["98.9M▲", "0.90", "98.8M"]]


def test_the_usual_level_is_said_where_it_is_known(seen: Collector) -> None:
    table = io.StringIO()
    show(Console(file=table, width=80), seen, out=Path("x"), trained_until_ms=start_ms(14), throughput="")
    (row,) = [line for line in table.getvalue().splitlines() if line.startswith("sku-a")]
    assert row.split()[-4:] == ["21-21", "19", "0.90", "6"], "14 expected are 5 below the usual week"


@given(st.floats(0, 9.99e8))
def test_a_number_of_units_takes_at_most_five_characters_and_says_how_many(units: float) -> None:
    text = short(units)
    assert len(text) <= 5
    value = float(text.rstrip("kM").replace(",", "")) * {"k": 1e3, "M": 1e6}.get(text[-1], 1)
    assert value == pytest.approx(units, rel=0.05, abs=0.5)


def test_a_shop_that_repeats_itself_every_week_is_summed_up_too(seen: Collector, tmp_path: Path) -> None:
    show(Console(file=io.StringIO()), seen, out=tmp_path, trained_until_ms=start_ms(14), throughput="")


@given(st.lists(st.integers(0, 1_000_000).map(float) | st.just(float("nan")), max_size=40))
def test_a_sparkline_has_a_bar_per_value_that_grows_with_it(values: list[float]) -> None:
    drawn = sparkline(np.array(values, np.float32))
    assert len(drawn) == len(values)
    known = np.nan_to_num(np.array(values, np.float32)).tolist()
    assert [bar for _, bar in sorted(zip(known, drawn, strict=True))] == sorted(drawn)
    if any(known):
        assert drawn[int(np.argmax(known))] == "█"
