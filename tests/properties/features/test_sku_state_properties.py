"""Whatever a partition is sent, every record ends up in one count, and every live SKU in every window.

The oracle takes records one by one and knows only dicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from features import sku_state as sku_state_module
from features.admission import Absorbed
from features.cadence import DAY_MS, HOUR_MS
from features.grid import EARLIEST_MS, WindowGrid
from features.sku_state import SkuState
from features.watermark import NEVER_MS
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.kafka.murmur2 import partitions_of
from tests.support.examples import examples
from tests.support.sku_states import KINDS, Click, Closed, Event, Order, Price, close, columns, cut, day_ms, statistics

SKUS = tuple(f"sku{i}" for i in range(12))
PARTITION, COUNT = 1, 3
AHEAD_MS = HOUR_MS
GRIDS = (
    WindowGrid(timezone="Europe/London"),
    WindowGrid(window_ms=DAY_MS // 2, offset_ms=HOUR_MS),
)
CLOCK_MS = day_ms(24)  # days 19 to 24 surround a change of the clock in London

sane_ms = st.integers(day_ms(19), day_ms(24))
hostile_ms = st.sampled_from(
    [-(2**63), -1, 0, EARLIEST_MS - 1, CLOCK_MS + AHEAD_MS, CLOCK_MS + AHEAD_MS + 1, 2**63 - 1]
)
times_ms = st.one_of(sane_ms, sane_ms, sane_ms, sane_ms, hostile_ms)
GBP = st.just("GBP")
ids = st.integers(0, 30).map(str)
skus = st.sampled_from(SKUS)
EVENTS = {
    ORDERS: st.builds(
        Order,
        ids,
        skus,
        st.sampled_from([1.0, 2.0, 0.5, -1.0, 0.0, 1e18]),
        st.sampled_from([0.0, 2.5, 4.0]),
        times_ms,
        GBP,
    ),
    CLICKS: st.builds(Click, ids, skus, st.integers(0, 2), times_ms),
    PRICES: st.builds(Price, ids, skus, st.sampled_from([1.0, 2.0, 3.0]), times_ms, GBP),
}


def owns(keys: Sequence[bytes]) -> np.ndarray:
    return partitions_of(keys, count=COUNT) == PARTITION


class Step(NamedTuple):
    """Either a batch of an input, or (source is None) the watermark moving on; `take`: what was touched is taken."""

    source: int | None
    batch: list[Event]
    watermark_ms: int
    take: bool


batches = st.sampled_from([ORDERS, ORDERS, CLICKS, PRICES]).flatmap(
    lambda source: st.builds(Step, st.just(source), st.lists(EVENTS[source], max_size=12), st.just(0), st.just(False))
)
moves = st.builds(Step, st.none(), st.just([]), sane_ms, st.booleans())
stories = st.lists(batches | batches | moves, max_size=14)


class Oracle:
    """One record at a time."""

    def __init__(self, grid: WindowGrid) -> None:
        self.grid = grid
        self.seen: tuple[dict[str, int], ...] = ({}, {}, {})
        self.contents: dict[tuple[int, str], Event] = {}
        self.windows: dict[int, dict[str, list[Event]]] = {}
        self.first_open: int | None = None
        self.live: set[str] = set()
        self.known: set[str] = set()  # SKUs of which anything was folded
        self.touched: dict[int, set[str]] = {}

    def take(self, source: int, record: Event) -> str:
        """Say what becomes of one record."""
        if record.time_ms < EARLIEST_MS:
            return "implausible_time"
        if record.time_ms > CLOCK_MS + AHEAD_MS:
            return "from_the_future"
        if not owns([record.sku.encode()])[0]:
            return "wrong_partition"
        number = self.grid.number(record.time_ms)
        if self.first_open is not None and number < self.first_open:
            return "late"
        content = record._replace(time_ms=0)
        if record.event_id in self.seen[source]:
            return "duplicate" if self.contents[source, record.event_id] == content else "id_reused"
        self.seen[source][record.event_id] = number
        self.contents[source, record.event_id] = content
        self.known.add(record.sku)
        self.windows.setdefault(number, {}).setdefault(record.sku, []).append(record)
        self.touched.setdefault(number, set()).add(record.sku)
        return "folded"

    def due(self, watermark_ms: int) -> int | None:
        number = self.first_open if self.first_open is not None else min(self.windows, default=None)
        return number if number is not None and self.grid.end_ms(number) <= watermark_ms else None

    def close(self, number: int) -> dict[str, dict[str, float]]:
        records = self.windows.pop(number, {})
        self.live |= set(records)
        self.touched.pop(number, None)
        for seen in self.seen:
            for event_id in [i for i, window in seen.items() if window == number]:
                del seen[event_id]
        self.first_open = number + 1
        return {sku: meaning(records.get(sku, [])) for sku in self.live}


def meaning(records: list[Event]) -> dict[str, float]:
    orders = [r for r in records if isinstance(r, Order)]
    sold = [r for r in orders if r.quantity > 0 and r.unit_price > 0]
    return {
        "order_lines": len(sold),
        "units": sum(r.quantity for r in sold),
        "revenue": sum(r.quantity * r.unit_price for r in sold),
        "returned_units": -sum(r.quantity for r in orders if r.quantity < 0),
        "free_units": sum(r.quantity for r in orders if r.quantity > 0 and r.unit_price == 0),
        "views": sum(isinstance(r, Click) and r.kind == 0 for r in records),
        "carts": sum(isinstance(r, Click) and r.kind == 1 for r in records),
    }


def assert_counted(found: Absorbed, batch: list[Event], fates: list[str], sku_state: SkuState) -> None:
    """Every record in exactly one count, under its own row."""
    refused = {r.row: r.code for r in found.refused}
    late = {r.row: r for r in found.late}
    counts = Counter(fates)
    assert found.folded + found.duplicate + len(found.late) + len(found.refused) == len(batch)
    assert (found.folded, found.duplicate) == (counts["folded"], counts["duplicate"])
    assert refused == {row: fate for row, fate in enumerate(fates) if fate not in ("folded", "duplicate", "late")}
    assert set(late) == {row for row, fate in enumerate(fates) if fate == "late"}
    for row, record in late.items():
        first = sku_state.windows.first_open
        assert first is not None
        assert record.sku == batch[row].sku
        assert record.late_by_ms == sku_state.grid.start_ms(first) - batch[row].time_ms > 0
        assert record.window_start_ms == sku_state.grid.start_ms(sku_state.grid.number(batch[row].time_ms))
    is_on_time = ("folded", "duplicate", "id_reused")
    on_time = [r.time_ms for r, fate in zip(batch, fates, strict=True) if fate in is_on_time]
    assert found.on_time_ms == max(on_time, default=NEVER_MS)
    assert found.late_ms == max((batch[row].time_ms for row in late), default=NEVER_MS)


def assert_closed(closed: Closed, expected: dict[str, dict[str, float]]) -> None:
    assert set(closed.facts) == set(expected) == set(closed.vectors)
    for sku, facts in expected.items():
        for name, value in facts.items():
            assert closed.facts[sku][name] == pytest.approx(value, rel=1e-12), (sku, name)


@examples(120)
@given(stories, st.sampled_from(GRIDS))
def test_records_in_are_folded_duplicate_late_or_rejected_and_silence_is_data(
    story: list[Step], grid: WindowGrid
) -> None:
    sku_state, oracle = SkuState(grid, owns=owns, max_ahead_ms=AHEAD_MS), Oracle(grid)
    for step in story:
        if step.source is not None:
            fates = [oracle.take(step.source, record) for record in step.batch]
            for fate in fates:
                event(fate)
            found = sku_state.absorb(step.source, columns(step.source, step.batch), now_ms=CLOCK_MS)
            assert_counted(found, step.batch, fates, sku_state)
        else:
            while (number := sku_state.due(step.watermark_ms)) is not None:
                assert number == oracle.due(step.watermark_ms)
                assert_closed(close(sku_state, number), oracle.close(number))
            assert oracle.due(step.watermark_ms) is None
        if step.take:
            names = sku_state.table.skus
            touched = {n: sorted(names[s] for s in slots.tolist()) for n, slots in sku_state.take_touched().items()}
            assert touched == {n: sorted(names_of) for n, names_of in oracle.touched.items()}
            oracle.touched = {}
        assert sorted(sku_state.table.skus) == sorted(oracle.known)
        assert list(sku_state.windows) == sorted(oracle.windows)
        last = max(oracle.windows, default=None)
        assert sku_state.data_end_ms() == (NEVER_MS if last is None else grid.end_ms(last))
        assert [len(seen) for seen in sku_state.seen] == [len(seen) for seen in oracle.seen]


@examples(60)
@given(
    st.sampled_from([ORDERS, CLICKS, PRICES]).flatmap(lambda s: st.lists(EVENTS[s], min_size=1, max_size=12)), st.data()
)
def test_a_hostile_record_leaves_the_others_of_its_batch_as_they_would_be_without_it(
    batch: list[Event], data: st.DataObject
) -> None:
    source = KINDS.index(type(batch[0]))
    foreign = next(sku for sku in SKUS if not owns([sku.encode()])[0])
    hostile = batch[0]._replace(
        event_id="x",
        **data.draw(st.sampled_from([{"sku": foreign}, {"time_ms": -(2**63)}, {"time_ms": 2**63 - 1}, {"time_ms": 0}])),
    )
    at = data.draw(st.integers(0, len(batch)))
    without, beside = (SkuState(GRIDS[0], owns=owns, max_ahead_ms=AHEAD_MS) for _ in range(2))
    plain = without.absorb(source, columns(source, batch), now_ms=CLOCK_MS)
    mixed = beside.absorb(source, columns(source, [*batch[:at], hostile, *batch[at:]]), now_ms=CLOCK_MS)
    assert (mixed.folded, mixed.duplicate, mixed.on_time_ms) == (plain.folded, plain.duplicate, plain.on_time_ms)
    assert len(mixed.refused) == len(plain.refused) + 1
    assert list(beside.windows) == list(without.windows)
    for number in without.windows:
        assert_same_facts(close(beside, number), close(without, number))
    assert statistics(beside) == statistics(without)


def assert_same_facts(one: Closed, other: Closed) -> None:
    assert set(one.facts) == set(other.facts)
    for sku in one.facts:
        np.testing.assert_equal(one.facts[sku], other.facts[sku])
        np.testing.assert_array_equal(one.vectors[sku], other.vectors[sku])


def distinct(batch: list[Any], prefix: str) -> list[Any]:
    """Give every record an id of its own."""
    return [record._replace(event_id=f"{prefix}{i}") for i, record in enumerate(batch)]


@examples(50)
@given(
    st.tuples(*(st.lists(EVENTS[source], max_size=25) for source in (ORDERS, CLICKS, PRICES))),
    st.lists(st.integers(0, 60), max_size=5),
    st.sampled_from([1, 2, 5]),
)
def test_neither_cuts_nor_the_size_of_a_chunk_change_a_bit(
    events: tuple[list[Event], list[Event], list[Event]], at: list[int], chunk: int
) -> None:
    whole, parts = (SkuState(GRIDS[0], max_ahead_ms=AHEAD_MS) for _ in range(2))
    for source, batch in enumerate(events):
        whole.absorb(source, columns(source, distinct(batch, "e")), now_ms=CLOCK_MS)
        for part in cut(distinct(batch, "e"), at):
            parts.absorb(source, columns(source, part), now_ms=CLOCK_MS)
    assert parts.table.skus == whole.table.skus
    first, last = min(whole.windows, default=0), whole.windows.last
    for number in range(first, first if last is None else last + 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sku_state_module, "CHUNK", chunk)
            chunked = close(parts, number)
        assert_same_facts(chunked, close(whole, number))
    assert statistics(parts) == statistics(whole)
    assert parts.prior_nu == whole.prior_nu
