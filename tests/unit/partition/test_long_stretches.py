"""Partitions in which there is nothing to say for years: a stray event, SKUs gone dormant, and the day of today."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from features.cadence import DORMANT_WINDOWS
from features.grid import EARLIEST_MS
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.settings import Settings
from streams.state.store import Store
from tests.support.partitions import (
    HOUR_MS,
    MINUTE_MS,
    NOW_MS,
    T0,
    click,
    open_partition,
    order,
    price_change,
    published,
    reach,
    take,
)
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from streams.partition.partition import Partition


def stray(settings: Settings) -> Partition:
    """Minute windows, one order of the year 2000 (of a SKU that sells today, too), the rest of today."""
    opened = open_partition(msgspec.structs.replace(settings, window_ms=MINUTE_MS))
    take(opened, ORDERS, order("stray", "a", EARLIEST_MS))
    for minute in range(3):
        take(opened, ORDERS, *(order(f"{sku}{minute}", sku, T0 + minute * MINUTE_MS) for sku in ("a", "b", "c")))
    end_ms = T0 + 12 * MINUTE_MS
    take(opened, CLICKS, click("1", "b", end_ms))
    take(opened, PRICES, price_change("1", "b", end_ms, 2.0))
    take(opened, ORDERS, order("last", "b", end_ms))
    return opened


def test_a_stray_event_of_the_year_2000_is_passed_once_its_sku_is_dormant(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DORMANT_WINDOWS == 10_000
    monkeypatch.setattr("features.sku_state.DORMANT_WINDOWS", 50)
    opened = stray(settings)
    turns = 0
    opened.closer.advance_watermark(now_ms=NOW_MS, monotonic_ms=NOW_MS)
    while opened.closer.close_due(now_ms=NOW_MS):
        turns += 1
    assert turns == 51 + 1 + 2, "the dormancy, the rest in one step, today"
    assert opened.meta.windows_closed == (T0 - EARLIEST_MS) // MINUTE_MS + 2
    opened.flush(now_ms=NOW_MS)
    found = [w for w in published(opened.settings, "windows") if w["sku"] == "a"]
    assert [w["units"] for w in found] == [1.0, *[0.0] * 50, 1.0, 1.0]
    assert opened.sku_state.table["age"][:3].tolist() == [2, 2, 2], "what comes back is new"
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("is_new", [False, True], ids=["a SKU of today", "a SKU of that day only"])
@pytest.mark.parametrize("restarts", [False, True], ids=["at once", "after a restart in the stretch"])
def test_crossing_leaves_the_state_and_says_what_closing_window_by_window_would(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_new: bool, restarts: bool
) -> None:
    monkeypatch.setattr("features.sku_state.DORMANT_WINDOWS", 50)
    found = []
    for is_crossing in (True, False):
        mine = msgspec.structs.replace(
            settings,
            dormant_after_ms=30 * HOUR_MS,
            state_dir=str(tmp_path / str(is_crossing)),
            topic_prefix=f"{settings.topic_prefix}{is_crossing}-",
        )
        opened = open_partition(mine)
        take(opened, ORDERS, order("0", "once" if is_new else "a", T0), order("0b", "old", T0 + 2 * HOUR_MS))
        take(opened, ORDERS, *(order(f"{sku}1", sku, T0 + 99 * HOUR_MS) for sku in ("a", "b", "c")))
        if not is_crossing:
            monkeypatch.setattr(opened.sku_state, "nobody_until", lambda number, _: number)
        for hour in (20, 60, 98):  # some closed before, in, and after the stretch
            opened.watermark.value_ms = T0 + hour * HOUR_MS
            while opened.closer.close_due(now_ms=NOW_MS):
                pass
            if restarts:
                opened.flush(now_ms=NOW_MS)
                opened.close()
                opened = open_partition(mine)
                if not is_crossing:
                    monkeypatch.setattr(opened.sku_state, "nobody_until", lambda number, _: number)
        reach(opened, T0 + 99 * HOUR_MS + 20 * MINUTE_MS)
        opened.watermark.value_ms = T0 + 101 * HOUR_MS
        while opened.closer.close_due(now_ms=NOW_MS):
            pass
        opened.flush(now_ms=NOW_MS)
        meta = msgspec.structs.asdict(opened.store.meta())
        stored = {
            sku: row for skus, packed in opened.store.scan.sku_rows() for sku, row in zip(skus, packed, strict=True)
        }
        opened.close()
        said = sorted(map(str, published(mine, "windows")))
        found.append((meta | {"offsets": 0}, stored, said))
    assert found[0] == found[1]
    assert found[0][0]["windows_closed"] == 101
    assert ("once" in found[0][1], "old" in found[0][1]) == (False, False)


def test_state_of_older_workers_counts_no_event_of_an_open_window_as_closed(settings: Settings) -> None:
    opened = open_partition(settings)
    take(opened, ORDERS, order("1", "a", T0), order("2", "a", T0 + 50 * HOUR_MS))
    reach(opened, T0 + HOUR_MS + 11 * MINUTE_MS)
    opened.sku_state.table["last_number"][:] = opened.sku_state.grid.number(T0 + 50 * HOUR_MS)  # as they did
    opened.flush(now_ms=NOW_MS)
    opened.close()
    again = open_partition(settings)
    first = again.sku_state.windows.first_open
    assert first is not None
    assert again.sku_state.table["last_number"][again.sku_state.table.index["a"]] == first - 1
    again.close()


# ---------------------------------------------------------------------- many windows with live SKUs
WINDOWS = 300


@pytest.fixture
def bench(settings: Settings) -> Bench:
    """Two inputs and a half have made 300 windows of a live SKU due: only the price changes hold them."""
    made = Bench(
        msgspec.structs.replace(settings, window_ms=MINUTE_MS, allowed_lateness_ms=0, dormant_after_ms=1 << 50)
    )
    end_ms = T0 + WINDOWS * MINUTE_MS
    made.take(ORDERS, order("1", "a", T0), order("2", "a", end_ms))
    made.take(CLICKS, click("1", "a", end_ms))
    return made


def release(bench: Bench, *, window_takes_ms: int) -> None:
    partition = bench.partition
    bench.monotonic = lambda: window_takes_ms * partition.meta.windows_closed
    bench.take(PRICES, price_change("1", "a", T0 + WINDOWS * MINUTE_MS, 2.0))


def test_a_batch_that_makes_many_windows_due_keeps_its_input_waiting_for_a_moment_only(bench: Bench) -> None:
    release(bench, window_takes_ms=50)
    assert bench.partition.meta.windows_closed == 5, "a quarter of a second, 50 ms each"
    bench.tick()
    assert bench.partition.meta.windows_closed == WINDOWS, "and the partition's own turn does the rest"
    bench.close()


@pytest.mark.parametrize("where", ["in each", "later"])
def test_windows_with_events_are_closed_before_more_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "in each":
        bench.take(ORDERS, *(order(f"{n}", "a", T0 + n * MINUTE_MS) for n in range(WINDOWS)))
    else:
        monkeypatch.setattr("streams.partition.window_closer._MOST_FILLED", 0)
    release(bench, window_takes_ms=50)
    assert bench.partition.meta.windows_closed == WINDOWS, "or memory would fill with open windows"
    bench.close()


def test_who_asks_for_the_end_waits_for_one_window_not_for_all_that_are_due(bench: Bench) -> None:
    release(bench, window_takes_ms=1_000)
    path = Path(bench.partition.store.path)

    async def end() -> None:
        turn = asyncio.ensure_future(bench.worker.tick(bench.consumer))
        for _ in range(50):
            await asyncio.sleep(0)
        await bench.worker.close()
        await turn

    asyncio.run(end())
    store = Store(path)
    meta = store.meta()
    store.close()
    assert meta is not None
    assert 10 < meta.windows_closed < 100


def test_the_number_of_windows_that_wait_is_shown_and_goes_with_its_partition(bench: Bench) -> None:
    release(bench, window_takes_ms=1_000)
    registry, labels = bench.worker.environment.metrics.registry, {"partition": "0"}
    assert registry.get_sample_value("skutrend_windows_due", labels) == WINDOWS - 1
    bench.tick()
    assert registry.get_sample_value("skutrend_windows_due", labels) == 0
    bench.worker.opened.close(0)
    assert registry.get_sample_value("skutrend_windows_due", labels) is None
