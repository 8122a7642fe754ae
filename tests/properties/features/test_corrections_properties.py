"""Late events within reach leave what they would have left had they been on time, and batches change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.cadence import DAY_MS
from features.corrections import CLOSED, Corrections
from features.grid import WindowGrid
from features.sku_state import SkuState
from inference.pipeline import WindowPipeline, columns
from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support import sku_states
from tests.support.sku_states import MONDAY_MS, Click, Order, Price

GRID = WindowGrid()
DAYS, REACH = 20, 7
FAR_MS = 1 << 62
SKUS = "abc"


@st.composite
def shops(draw: st.DrawFn) -> list[tuple[int, Any, bool]]:
    """Events of some days, (input, event, whether it is late), in the order of their days."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    share = draw(st.sampled_from([0.0, 0.1, 0.5]))
    events: list[tuple[int, Any, bool]] = []
    for day in range(DAYS):
        # something sells on each day, so that no day is taken for one on which the shop was closed
        events.append((ORDERS, Order(f"o{day}", "a", 1 + day % 3, 2.0, MONDAY_MS + day * DAY_MS), False))
        for n in range(rng.integers(0, 8)):
            at_ms = MONDAY_MS + day * DAY_MS + int(rng.integers(0, DAY_MS))
            sku, source = SKUS[rng.integers(0, 3)], int(rng.integers(0, 4))
            late = day >= DAYS - REACH and rng.random() < share
            name = f"{day}.{n}"
            if source == CLICKS:
                events.append((CLICKS, Click(name, sku, int(rng.integers(0, 3)), at_ms), late))
            elif source == PRICES:
                events.append((PRICES, Price(name, sku, float(rng.integers(1, 9)), at_ms), late))
            else:
                quantity = float(rng.choice([-1, 0.5, 1, 2, 5]))
                events.append((ORDERS, Order(name, sku, quantity, float(rng.choice([0, 2, 3])), at_ms), late))
    return events


def run(events: list[tuple[int, Any, bool]], *, on_time: bool, batches: int = 1) -> SkuState:
    """Close all days; what is late comes after all of them, in so many batches."""
    state = SkuState(GRID, extra_columns=columns(None))
    state.corrections = Corrections(GRID, within_ms=REACH * DAY_MS)
    pipeline = WindowPipeline(state, None)
    first = GRID.number(MONDAY_MS)
    for number in range(first, first + DAYS):
        for source in (ORDERS, CLICKS, PRICES):
            some = [
                event for at, event, late in events
                if at == source and GRID.number(event.time_ms) == number and (on_time or not late)
            ]  # fmt: skip
            if some:
                state.absorb(source, sku_states.columns(source, some), now_ms=FAR_MS)
        list(pipeline.close(number, emitted_ms=0))
    late = [] if on_time else [(source, event) for source, event, is_late in events if is_late]
    for source in (ORDERS, CLICKS, PRICES):
        some = [event for at, event in late if at == source]
        for part in sku_states.cut(some, [i * len(some) // batches for i in range(batches)]):
            if part:
                outcome = state.absorb(source, sku_states.columns(source, part), now_ms=FAR_MS)
                assert len(outcome.corrected) == len(outcome.late) == len(part)
    return state


def closed_rows(state: SkuState) -> dict[tuple[int, bytes], bytes]:
    assert state.corrections is not None
    return {
        (number, key): row
        for number, keys, rows in state.corrections.take_rows()
        for key, row in zip(keys, rows, strict=True)
    }


@settings(deadline=None)
@given(shops(), st.integers(1, 5))
def test_late_events_leave_what_they_would_have_left_on_time(events: list[tuple[int, Any, bool]], batches: int) -> None:
    late, on_time = run(events, on_time=False, batches=batches), run(events, on_time=True)
    rows, wanted = closed_rows(late), closed_rows(on_time)
    assert rows.keys() == wanted.keys()
    for key, row in rows.items():
        found, expected = (np.frombuffer(each, CLOSED) for each in (row, wanted[key]))
        for name in ("order_lines", "units", "revenue", "returned_units", "free_units", "views", "carts", "price"):
            np.testing.assert_allclose(found[name], expected[name], err_msg=f"{key} {name}")
    for sku, slot in on_time.table.index.items():
        if (
            sku not in late.table.index
            or late.table["first_number"][late.table.index[sku]] != (on_time.table["first_number"][slot])
        ):
            continue  # it was not live yet in the window that it came late for
        at = late.table.index[sku]
        same = ("ring", "age", "opens", "last_number", "fractional", "unsold")
        for name in same:
            np.testing.assert_array_equal(late.table[name][at], on_time.table[name][slot], err_msg=f"{sku} {name}")
        for name in ("ew", "ew_square", "ew_sold", "ew_views", "nu"):
            found, expected = late.table[name][at], on_time.table[name][slot]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=f"{sku} {name}")


@settings(deadline=None)
@given(shops(), st.integers(2, 5))
def test_however_late_events_come_in_batches_all_is_the_same_to_the_bit(
    events: list[tuple[int, Any, bool]], batches: int
) -> None:
    one, many = run(events, on_time=False), run(events, on_time=False, batches=batches)
    assert sku_states.statistics(one) == sku_states.statistics(many)
    assert closed_rows(one) == closed_rows(many)


@settings(deadline=None)
@given(shops())
def test_the_same_late_events_again_change_nothing(events: list[tuple[int, Any, bool]]) -> None:
    state = run(events, on_time=False)
    before = sku_states.statistics(state)
    for source in (ORDERS, CLICKS, PRICES):
        some = [event for at, event, late in events if at == source and late]
        if some:
            outcome = state.absorb(source, sku_states.columns(source, some), now_ms=FAR_MS)
            assert not outcome.corrected
            assert len(outcome.late) == len(some)
    assert sku_states.statistics(state) == before
