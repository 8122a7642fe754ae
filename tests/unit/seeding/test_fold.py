"""A partition that was seeded goes on as one that has always been there."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from features.watermark import NEVER_MS
from inference.session import Session
from schemas.inputs import CLICKS, INPUTS, ORDERS, PRICES
from streams.commands.serve import open_session
from streams.seeding.cut import Cut
from streams.seeding.fold import Tally, fold
from streams.settings import Settings
from tests.support.examples import examples
from tests.support.partitions import (
    DAY_MS,
    HOUR_MS,
    T0,
    click,
    close_all,
    open_partition,
    order,
    price_change,
    published,
    settings_for,
    take,
)

if TYPE_CHECKING:
    from pathlib import Path

    from streams.partition.partition import Partition

DAYS = 30
NOW_MS = T0 + (DAYS + 1) * DAY_MS


class Event(NamedTuple):
    """An event of a shop, as its topic has it."""

    at_ms: int
    source: int
    value: bytes


@pytest.fixture(scope="module")
def model() -> Session:
    session = open_session(Settings(provider="cpu"))
    assert session is not None
    return session


def shop(seed: int) -> list[Event]:
    """Make a month of a shop: a SKU that comes late, one that goes dormant, a huge day; some repeats."""
    dice = random.Random(seed)  # noqa: S311
    found = []
    for day in range(DAYS):
        for n in range(12):
            sku = dice.choice(["a", "b", "c", *(["late"] if day > 20 else []), *(["gone"] if day < 8 else [])])
            at_ms = T0 + day * DAY_MS + dice.randrange(24) * HOUR_MS + n
            many = 9_000 if (sku, day) == ("b", 26) else dice.randrange(1, 4)
            found.append(Event(at_ms, ORDERS, order(f"o{day}-{n}", sku, at_ms, quantity=many)))
            found.append(Event(at_ms, CLICKS, click(f"c{day}-{n}", sku, at_ms)))
            if dice.random() < 0.1:
                found += [found[-2], Event(at_ms, PRICES, price_change(f"p{day}-{n}", sku, at_ms, dice.random()))]
    return sorted(found, key=lambda event: event.at_ms)


def go_live(partition: Partition, events: list[Event]) -> None:
    """Let events arrive day by day, in order."""
    for day in range(DAYS + 1):
        for source in (ORDERS, CLICKS, PRICES):
            values = [event.value for event in events if event.source == source and (event.at_ms - T0) // DAY_MS == day]
            if values:
                take(partition, source, *values, now_ms=NOW_MS)
        close_all(partition, now_ms=NOW_MS)
    partition.watermark.value_ms = T0 + (DAYS - 1) * DAY_MS
    while partition.closer.close_due(now_ms=NOW_MS):
        pass


def history_of(events: list[Event]) -> dict[int, Any]:
    return {
        source: INPUTS[source].decode([event.value for event in events if event.source == source])[0]
        for source in (ORDERS, CLICKS, PRICES)
    }


_OF_RECORDS = {"offsets", "counts", "sequence", "corrected_from"}


def stands(partition: Partition) -> tuple[dict[str, Any], dict[bytes, bytes], dict[bytes, bytes]]:
    """Flush, and give what is stored but for what tells of records, or of a history."""
    partition.flush(now_ms=NOW_MS)
    meta = partition.store.meta()
    assert meta is not None
    told = {k: v for k, v in msgspec.structs.asdict(meta).items() if k not in _OF_RECORDS}
    scan = partition.store.scan
    rows = [scan.sku_rows(), scan.model_rows(meta.model)]
    skus, models = ({s: r for keys, packed in part for s, r in zip(keys, packed, strict=True)} for part in rows)
    return told, skus, models


def said_after(partition: Partition, topic: str, since_ms: int) -> list[str]:
    """Give what was published of windows from a moment on, but for when."""
    messages = published(partition.settings, topic)
    return sorted(str({**m, "emitted_ms": 0}) for m in messages if m.get("window_start_ms", since_ms) >= since_ms)


@examples(12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99),
    first_open=st.integers(1, DAYS - 2),
    overlap_days=st.integers(0, 6),
    shared_hours=st.sampled_from([0, 0, 5, 23]),
    with_model=st.booleans(),
)
def test_what_was_folded_as_history_and_then_live_is_what_was_always_live(
    broker: str,
    tmp_path_factory: pytest.TempPathFactory,
    model: Session,
    *,
    seed: int,
    first_open: int,
    overlap_days: int,
    shared_hours: int,
    with_model: bool,
) -> None:
    """overlap_days: of which the topics hold records, too. shared_hours: of the first open window, likewise."""
    events, session = shop(seed), model if with_model else None
    found = []
    cut_ms = T0 + first_open * DAY_MS
    for is_seeded in (False, True):
        settings = settings_for(
            broker, tmp_path_factory.mktemp("state"), bundle="shipped", window_ms=DAY_MS, dormant_after_ms=5 * DAY_MS
        )
        partition = open_partition(settings, session=session)
        live = events
        if is_seeded:
            until_ms = cut_ms + shared_hours * HOUR_MS
            number = partition.sku_state.grid.number(cut_ms)
            cut = Cut(number, dict.fromkeys(range(3), until_ms))
            tally = fold(partition, history_of(events), cut, now_ms=NOW_MS)
            assert tally.left + tally.folded + tally.duplicate == len(events)
            partition.flush(now_ms=NOW_MS)
            partition.close()
            partition = open_partition(settings, session=session)
            live = [event for event in events if event.at_ms >= cut_ms - overlap_days * DAY_MS]
        go_live(partition, live)
        stored = stands(partition)
        since_ms = cut_ms - DAY_MS
        outputs = [said_after(partition, topic, since_ms) for topic in ("windows", "forecasts")]
        alerts = said_after(partition, "alerts", cut_ms)
        found.append((stored, outputs, alerts))
        partition.close()
    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    assert found[0][2] == found[1][2]


def test_alerts_that_are_open_at_the_cut_are_told_once_and_call_nobody(
    broker: str, tmp_path: Path, model: Session
) -> None:
    settings = settings_for(broker, tmp_path, bundle="shipped", window_ms=DAY_MS)
    partition = open_partition(settings, session=model)
    cut_ms = T0 + 29 * DAY_MS
    cut = Cut(partition.sku_state.grid.number(cut_ms), dict.fromkeys(range(3), cut_ms))
    fold(partition, history_of(shop(1)), cut, now_ms=NOW_MS)
    partition.flush(now_ms=NOW_MS)
    told = published(settings, "alerts")
    assert [(alert["status"], alert["severity"], alert["kind"]) for alert in told] == [("open", "info", "silence")]
    assert (told[0]["sku"], told[0]["opened_ms"]) == ("gone", T0 + 27 * DAY_MS)
    assert {w["window_start_ms"] for w in published(settings, "windows")} == {cut_ms - DAY_MS}, "the last window alone"
    assert partition.meta.counts["orders"].records == 0, "these count what comes live"
    partition.close()


def test_a_partition_without_history_is_seeded_too_and_events_that_cannot_be_used_are_counted(
    broker: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, tmp_path, window_ms=DAY_MS, currency="GBP")
    partition = open_partition(settings)
    events = [
        Event(T0 + n * DAY_MS, ORDERS, order(f"{n}", "a", T0 + n * DAY_MS, currency=currency))
        for n, currency in enumerate(["GBP", "JPY", "GBP"])
    ]
    cut_ms = T0 + 2 * DAY_MS
    cut = Cut(partition.sku_state.grid.number(cut_ms), {ORDERS: cut_ms, CLICKS: cut_ms})
    tally = fold(partition, {ORDERS: history_of(events)[ORDERS]}, cut, now_ms=NOW_MS)
    assert (tally.folded, tally.left, tally.refused) == (1, 1, {"wrong_currency": 1})
    assert "JPY" in tally.sentences["wrong_currency"]
    partition.close()

    empty = open_partition(msgspec.structs.replace(settings, group="other"))
    assert fold(empty, {}, cut, now_ms=NOW_MS) == Tally()
    assert empty.watermark.value_ms == cut_ms > NEVER_MS
    empty.close()
