"""One partition over real RocksDB, writing to the embedded broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import FlushFailed, StateCorrupt, StateMismatch
from schemas.inputs import CLICKS, ORDERS, PRICES
from schemas.provenance import read_dead_letter_headers
from streams.kafka.batch import Skipped
from streams.kafka.murmur2 import partitions_of
from streams.observe.metrics import Metrics
from streams.settings import Settings
from tests.support.partitions import (
    HOUR_MS,
    MINUTE_MS,
    NOW_MS,
    T0,
    batch,
    click,
    close_all,
    inputs,
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


def test_a_dormant_sku_is_forgotten_with_its_row_and_starts_anew_when_it_returns(settings: Settings) -> None:
    settings = msgspec.structs.replace(settings, dormant_after_ms=3 * HOUR_MS)
    opened = open_partition(settings)
    take(opened, ORDERS, order("1", "old", T0), order("2", "busy", T0))
    reach(opened, T0 + HOUR_MS + 11 * MINUTE_MS)
    opened.flush(now_ms=NOW_MS)
    assert opened.store.scan.sku_row("old") is not None
    for hour in range(2, 7):
        take(opened, ORDERS, order(f"busy{hour}", "busy", T0 + hour * HOUR_MS))
        reach(opened, T0 + hour * HOUR_MS + 11 * MINUTE_MS)
    assert set(opened.sku_state.table.skus) == {"busy", "clock"}
    opened.flush(now_ms=NOW_MS)
    assert opened.store.scan.sku_row("old") is None
    assert opened.store.scan.sku_row("busy") is not None
    opened.close()

    again = open_partition(settings)
    assert set(again.sku_state.table.skus) == {"busy", "clock"}
    take(again, ORDERS, order("3", "old", T0 + 7 * HOUR_MS))
    reach(again, T0 + 8 * HOUR_MS + 11 * MINUTE_MS)
    assert again.sku_state.table["age"][again.sku_state.table.index["old"]] == 1
    again.flush(now_ms=NOW_MS)
    assert again.store.scan.sku_row("old") is not None
    again.close()


@pytest.mark.parametrize("change", [1, -1], ids=["a row too many", "a row too few"])
def test_a_row_that_should_be_gone_or_there_is_noticed_and_never_folded_on(settings: Settings, change: int) -> None:
    opened = open_partition(settings)
    take(opened, ORDERS, order("1", "old", T0), order("2", "busy", T0))
    reach(opened, T0 + HOUR_MS + 11 * MINUTE_MS)
    opened.flush(now_ms=NOW_MS)
    left = opened.meta.skus
    opened.store.apply({b"sgone": opened.store.scan.sku_row("busy")} if change > 0 else {b"sbusy": None})
    opened.close()
    with pytest.raises(StateCorrupt, match=rf"has {left + change} SKUs, flush 1 left {left}; delete that"):
        open_partition(settings)


def test_a_window_says_what_happened_in_it_and_the_next_one_that_nothing_did(partition: Partition) -> None:
    take(
        partition,
        ORDERS,
        order("1", "a", T0, quantity=2, unit_price=2.5),
        order("2", "a", T0 + 1, quantity=3, unit_price=3.0),
        order("3", "a", T0 + 2, quantity=-1),
        order("4", "a", T0 + 3, quantity=4, unit_price=0),
    )
    take(partition, CLICKS, click("1", "a", T0), click("2", "a", T0, "cart"), click("3", "a", T0))
    take(partition, PRICES, price_change("1", "a", T0 + 5, 9.75), price_change("2", "a", T0 + 4, 8.0))
    reach(partition, T0 + 2 * HOUR_MS + 20 * MINUTE_MS)
    first, second = windows_of(partition, "a")
    assert first == {
        "id": f"a/{T0}/0",
        "sku": "a",
        "window_start_ms": T0,
        "window_end_ms": T0 + HOUR_MS,
        "revision": 0,
        "order_lines": 2,
        "units": 5.0,
        "revenue": 14.0,
        "returned_units": 1.0,
        "free_units": 4.0,
        "views": 2,
        "carts": 1,
        "price": 9.75,
        "observed": True,
    }
    assert (second["window_start_ms"], second["units"], second["price"]) == (T0 + HOUR_MS, 0.0, 9.75)


def test_a_window_closes_when_the_slowest_input_and_the_lateness_have_passed_its_end(partition: Partition) -> None:
    end_ms = T0 + HOUR_MS
    take(partition, ORDERS, order("1", "a", T0), order("2", "a", end_ms + 10 * MINUTE_MS))
    take(partition, CLICKS, click("1", "a", end_ms + 10 * MINUTE_MS))
    take(partition, PRICES, price_change("1", "a", end_ms + 10 * MINUTE_MS - 1, 1.0))
    assert partition.closer.advance_watermark(now_ms=NOW_MS, monotonic_ms=NOW_MS) == end_ms - 1
    assert not partition.closer.close_due(now_ms=NOW_MS)
    take(partition, PRICES, price_change("2", "a", end_ms + 10 * MINUTE_MS, 1.0))
    assert partition.closer.advance_watermark(now_ms=NOW_MS, monotonic_ms=NOW_MS) == end_ms
    assert partition.closer.close_due(now_ms=NOW_MS)
    assert not partition.closer.close_due(now_ms=NOW_MS)


def test_windows_without_events_may_be_left_out_of_the_output_but_not_of_the_state(broker: str, tmp_path: Path) -> None:
    partition = open_partition(settings_for(broker, tmp_path, silent_windows="skip"))
    take(partition, ORDERS, order("1", "a", T0))
    take(partition, CLICKS, click("1", "b", T0 + 2 * HOUR_MS, "purchase"), click("2", "c", T0 + 2 * HOUR_MS))
    take(
        partition, PRICES, price_change("1", "a", T0 + 3 * HOUR_MS, 2.0), price_change("2", "a", T0 + 4 * HOUR_MS, 3.0)
    )
    reach(partition, T0 + 6 * HOUR_MS + 10 * MINUTE_MS)
    partition.flush(now_ms=NOW_MS)
    said = {(w["sku"], (w["window_start_ms"] - T0) // HOUR_MS) for w in published(partition.settings, "windows")}
    assert said >= {("a", 0), ("b", 2), ("c", 2), ("a", 3), ("a", 4)}, "whatever the event was"
    assert not said & {("a", 1), ("a", 2), ("a", 5), ("c", 3)}
    table = partition.sku_state.table
    assert table["age"][table.slots(["a", "c"])].tolist() == [6, 4], "silence has aged them all the same"
    partition.close()


def test_a_duplicate_is_one_within_a_batch_across_batches_and_across_a_restart(settings: Settings) -> None:
    partition = open_partition(settings)
    outcome = take(partition, ORDERS, order("1", "a", T0), order("1", "a", T0 + 1), order("2", "a", T0))
    assert (outcome.folded, outcome.duplicate) == (2, 1)
    assert take(partition, ORDERS, order("2", "a", T0 + 5)).duplicate == 1
    assert take(partition, CLICKS, click("1", "a", T0)).folded == 1, "ids of another input are others"
    partition.flush(now_ms=NOW_MS)
    partition.close()
    again = open_partition(settings)
    outcome = take(again, ORDERS, order("1", "a", T0), order("3", "a", T0))
    assert (outcome.folded, outcome.duplicate) == (1, 1)
    reach(again, T0 + 2 * HOUR_MS)
    assert windows_of(again, "a")[0]["units"] == 3.0
    again.close()


def test_a_sku_of_another_partition_is_refused_with_the_remedy(broker: str, tmp_path: Path) -> None:
    names = [f"sku{n}" for n in range(40)]
    numbers = partitions_of([name.encode() for name in names], count=4).tolist()
    partition = open_partition(settings_for(broker, tmp_path), number=2, count=4)
    outcome = take(partition, ORDERS, *(order(f"e{n}", name, T0) for n, name in enumerate(names)))
    assert outcome.folded == numbers.count(2) > 0
    assert {refusal.code for refusal in outcome.refused} == {"wrong_partition"}
    assert {refusal.row for refusal in outcome.refused} == {n for n, number in enumerate(numbers) if number != 2}
    assert "murmur2" in outcome.refused[0].error
    partition.close()


def test_every_record_is_counted_once_in_the_state_and_in_the_metrics(settings: Settings) -> None:
    metrics = Metrics()
    partition = open_partition(settings, metrics=metrics)
    take(partition, ORDERS, order("1", "a", T0), order("1", "a", T0), b"?", order("9", "a", NOW_MS * 2))
    take(partition, CLICKS, click("1", "a", T0), b"?")
    reach(partition, T0 + 3 * HOUR_MS)
    take(partition, ORDERS, order("late", "a", T0), order("2", "a", T0 + 3 * HOUR_MS))
    partition.flush(now_ms=NOW_MS)
    orders = partition.meta.counts["orders"]
    assert (orders.records, orders.folded, orders.duplicate, orders.late, orders.rejected) == (7, 3, 1, 1, 2)
    assert all(counts.balance == 0 for counts in partition.meta.counts.values())
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name in {"skutrend_records_total", "skutrend_outcomes_total"}:
                key = sample.labels["topic"] + sample.labels.get("outcome", "")
                totals[key] = totals.get(key, 0) + sample.value
    for topic in inputs(partition):
        parts = [totals[topic + outcome] for outcome in ("folded", "duplicate", "late", "rejected")]
        assert totals[topic] == sum(parts)
    assert totals[inputs(partition)[ORDERS] + "rejected"] == 2
    partition.close()
    metrics = Metrics()
    again = open_partition(settings, metrics=metrics)
    assert again.meta.counts["orders"] == orders, "the counts go on where they were"
    first = again.sku_state.windows.first_open
    assert first is not None
    shown = {
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    assert shown["skutrend_skus"] == len(again.sku_state.table)
    assert 1000 * shown["skutrend_watermark_timestamp_seconds"] == again.sku_state.grid.start_ms(first), (
        "without waiting for the next close"
    )
    again.close()


def test_offsets_are_flushed_with_the_state_and_a_batch_of_nothing_moves_them(settings: Settings) -> None:
    partition = open_partition(settings)
    topic = inputs(partition)[ORDERS]
    assert partition.next_offset(topic) == 0
    take(partition, ORDERS, order("1", "a", T0), order("2", "a", T0))
    partition.absorb(ORDERS, batch(topic, [], start=2), now_ms=NOW_MS)
    empty = batch(topic, [], start=2)
    empty.next = 9  # a range of transaction markers
    partition.absorb(ORDERS, empty, now_ms=NOW_MS)
    assert partition.next_offset(topic) == 9
    assert partition.flushed_offsets == {}
    partition.flush(now_ms=NOW_MS)
    assert partition.flushed_offsets == {topic: 9}
    take(partition, ORDERS, order("3", "a", T0))
    assert partition.flushed_offsets == {topic: 9}
    partition.close()
    again = open_partition(settings)
    assert again.next_offset(topic) == 9
    again.close()


def test_the_watermark_does_not_go_back_over_a_restart(settings: Settings) -> None:
    partition = open_partition(settings)
    take(partition, ORDERS, order("1", "a", T0))
    for source in range(3):
        partition.watermark.quiet(source, monotonic_ms=NOW_MS, can_deliver=True)
    silent_ms = NOW_MS + settings.idle_timeout_ms
    reached = partition.closer.advance_watermark(now_ms=silent_ms, monotonic_ms=silent_ms)
    assert reached >= T0 + HOUR_MS, "closed by the clock, not by an event"
    close_all(partition, now_ms=silent_ms)
    partition.flush(now_ms=silent_ms)
    partition.close()
    again = open_partition(settings)
    assert again.closer.advance_watermark(now_ms=silent_ms, monotonic_ms=silent_ms) == reached
    again.close()


def test_a_flush_is_due_when_something_changed_and_the_interval_is_over(partition: Partition) -> None:
    assert not partition.flush_due(now_ms=NOW_MS)
    take(partition, ORDERS, order("1", "a", T0))
    assert partition.flush_due(now_ms=NOW_MS)
    partition.flush(now_ms=NOW_MS)
    sequence = partition.meta.sequence
    partition.flush(now_ms=NOW_MS)
    assert partition.meta.sequence == sequence, "nothing changed, nothing is written"
    take(partition, ORDERS, order("2", "a", T0))
    assert not partition.flush_due(now_ms=NOW_MS + 999)
    assert partition.flush_due(now_ms=NOW_MS + 1_000)


def test_outputs_that_do_not_get_out_leave_the_stored_state_as_it_was(broker: str, tmp_path: Path) -> None:
    good = settings_for(broker, tmp_path)
    partition = open_partition(good)
    take(partition, ORDERS, order("1", "a", T0))
    partition.flush(now_ms=NOW_MS)
    partition.close()
    cut_off = msgspec.structs.replace(good, brokers="127.0.0.1:1")
    partition = open_partition(cut_off)
    take(partition, ORDERS, order("2", "a", T0), b"?")
    with pytest.raises(FlushFailed):
        partition.flush(now_ms=NOW_MS, within_s=0.3)
    partition.close()
    again = open_partition(good)
    assert again.next_offset(inputs(again)[ORDERS]) == 1
    assert take(again, ORDERS, order("2", "a", T0)).duplicate == 0
    again.close()


def test_state_of_other_settings_is_refused_with_the_operator_s_action(settings: Settings) -> None:
    partition = open_partition(settings)
    take(partition, ORDERS, order("1", "a", T0))
    partition.flush(now_ms=NOW_MS)
    partition.close()
    other = msgspec.structs.replace(settings, window_ms=2 * HOUR_MS)
    with pytest.raises(StateMismatch, match=r"windows .*start it with the settings .* new SKUTREND_GROUP"):
        open_partition(other)
    open_partition(settings).close()


def test_a_batch_that_breaks_off_half_way_is_never_flushed(partition: Partition) -> None:
    take(partition, ORDERS, order("0", "a", T0))
    partition.flush(now_ms=NOW_MS)
    topic = inputs(partition)[ORDERS]
    torn = batch(topic, [order("1", "a", T0), b"not json"], start=1)
    torn.keys.clear()  # the letter cannot be written, when the order is folded already
    with pytest.raises(IndexError):
        partition.absorb(ORDERS, torn, now_ms=NOW_MS)
    with pytest.raises(FlushFailed, match="in the midst of a change"):
        partition.flush(now_ms=NOW_MS)
    assert partition.flushed_offsets == {topic: 1}


def test_records_that_could_not_be_decoded_are_one_letter_counted_as_rejected_and_flushed_at_once(
    settings: Settings,
) -> None:
    metrics = Metrics()
    partition = open_partition(settings, metrics=metrics)
    topic = inputs(partition)[ORDERS]
    take(partition, ORDERS, order("0", "a", T0))
    partition.flush(now_ms=NOW_MS)
    assert not partition.flush_due(now_ms=NOW_MS)
    fetched = batch(topic, [order("1", "a", T0)], start=1)
    fetched.skipped, fetched.next = [Skipped(2, 500, "too_large", f"{topic}[0]@2 to @500: much")], 501
    outcome = partition.absorb(ORDERS, fetched, now_ms=NOW_MS)
    assert outcome.folded == 1
    assert partition.flush_due(now_ms=NOW_MS), "or they would be tried again after a crash"
    partition.flush(now_ms=NOW_MS)
    assert partition.flushed_offsets[topic] == partition.next_offset(topic) == 501
    take(partition, ORDERS, order("2", "a", T0))
    assert not partition.flush_due(now_ms=NOW_MS), "what comes after is flushed when its time comes"
    counts = partition.meta.counts["orders"]
    assert (counts.records, counts.folded, counts.rejected, counts.balance) == (502, 3, 499, 0)
    assert metrics.registry.get_sample_value("skutrend_refusals_total", {"topic": topic, "code": "too_large"}) == 499
    rejected = {"topic": topic, "partition": "0", "outcome": "rejected"}
    assert metrics.registry.get_sample_value("skutrend_outcomes_total", rejected) == 499
    partition.close()
    (letter,) = read_topic(settings.brokers, settings.topic("dead-letters"))
    assert (letter.key(), letter.value()) == (None, None)
    said = read_dead_letter_headers(letter.headers())
    assert (said.code, said.error, said.source) == ("too_large", f"{topic}[0]@2 to @500: much", f"{topic}[0]@2")
    assert dict(letter.headers())["last_offset"] == b"500"


def test_a_fetch_in_which_nothing_could_be_decoded_moves_the_offset_all_the_same(partition: Partition) -> None:
    topic = inputs(partition)[ORDERS]
    fetched = batch(topic, [])
    fetched.skipped, fetched.next = [Skipped(0, 0, "undecodable_batch", "?")], 1
    assert partition.absorb(ORDERS, fetched, now_ms=NOW_MS).folded == 0
    partition.flush(now_ms=NOW_MS)
    assert partition.flushed_offsets[topic] == 1
