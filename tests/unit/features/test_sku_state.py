"""One partition: what is refused and why, what is late and by how much, and who is closed when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from features.admission import Absorbed, Late
from features.cadence import DAY_MS, HOUR_MS
from features.grid import EARLIEST_MS, WindowGrid
from features.sku_state import SkuState
from features.watermark import NEVER_MS
from schemas.columns import OrderColumns, Refusal
from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support.sku_states import Click, Order, Price, close, close_due, columns, day_ms

NOW = day_ms(100)


def shop(*skus: str, day: int = 0) -> SkuState:
    """A partition that sold one unit of each SKU on a day."""
    sku_state = SkuState(WindowGrid())
    sell(sku_state, *(Order(f"{day}-{sku}", sku, 1, 2.0, day_ms(day, 12)) for sku in skus))
    return sku_state


def sell(sku_state: SkuState, *lines: Order, now_ms: int = NOW) -> object:
    return sku_state.absorb(ORDERS, columns(ORDERS, lines), now_ms=now_ms)


def test_a_live_sku_has_a_row_in_every_window_also_when_it_is_silent() -> None:
    sku_state = shop("a", "b")
    sell(sku_state, Order("x", "c", 1, 2.0, day_ms(2, 1)))
    closed = close_due(sku_state, day_ms(4))
    assert [set(window.facts) for window in closed] == [{"a", "b"}, {"a", "b"}, {"a", "b", "c"}, {"a", "b", "c"}]
    assert [window.facts["a"]["units"] for window in closed] == [1, 0, 0, 0]
    assert sku_state.table["age"][:3].tolist() == [4, 4, 2]


@pytest.mark.parametrize(
    ("source", "event"),
    [
        (CLICKS, Click("1", "a", 2, day_ms(0))),
        (PRICES, Price("1", "a", 9.5, day_ms(0))),
        (ORDERS, Order("1", "a", -3, 2.0, day_ms(0))),
        (ORDERS, Order("1", "a", 0, 2.0, day_ms(0))),
    ],
)
def test_any_event_makes_a_sku_live(source: int, event: Order | Click | Price) -> None:
    sku_state = SkuState(WindowGrid())
    assert sku_state.absorb(source, columns(source, [event]), now_ms=NOW).folded == 1
    assert set(close(sku_state, sku_state.grid.number(day_ms(0))).facts) == {"a"}


def test_windows_become_due_one_by_one_when_the_watermark_reaches_their_end() -> None:
    sku_state = shop("a")
    number = sku_state.grid.number(day_ms(0))
    assert sku_state.due(day_ms(1) - 1) is None
    assert sku_state.due(day_ms(1)) == sku_state.due(day_ms(9)) == number
    assert [window.number for window in close_due(sku_state, day_ms(3))] == [number, number + 1, number + 2]
    assert sku_state.due(day_ms(3)) is None


def test_a_partition_without_events_has_nothing_due_and_no_end() -> None:
    sku_state = SkuState(WindowGrid())
    assert sku_state.due(NOW) is None
    assert sku_state.data_end_ms() == NEVER_MS
    assert sku_state.take_touched() == {}


def test_data_ends_with_the_newest_open_window_that_holds_any() -> None:
    sku_state = shop("a")
    sell(sku_state, Order("x", "a", 1, 2.0, day_ms(5, 3)))
    assert sku_state.data_end_ms() == day_ms(6)
    close_due(sku_state, day_ms(6))
    assert sku_state.data_end_ms() == NEVER_MS


def test_a_late_event_is_reported_by_how_much_and_changes_nothing() -> None:
    sku_state = shop("a")
    close_due(sku_state, day_ms(2))
    outcome = sku_state.absorb(
        ORDERS,
        columns(ORDERS, [Order("n", "a", 1, 2.0, day_ms(2)), Order("l", "b", 7, 2.0, day_ms(1, 23))]),
        now_ms=NOW,
    )
    assert outcome.late == [Late(row=1, sku="b", late_by_ms=HOUR_MS, window_start_ms=day_ms(1))]
    assert outcome.folded == 1
    assert set(close_due(sku_state, day_ms(3))[0].facts) == {"a"}


def test_lines_of_one_order_with_its_number_as_their_id_are_refused_and_not_dropped_as_duplicates() -> None:
    """Two thirds of a shop's demand went without a word so."""
    sku_state = SkuState(WindowGrid())
    lines = [Order("o1", sku, quantity, 2.0, day_ms(0)) for sku, quantity in (("a", 1), ("b", 1), ("a", 2), ("a", 1))]
    outcome = sku_state.absorb(ORDERS, columns(ORDERS, lines), now_ms=NOW)
    assert (outcome.folded, outcome.duplicate, outcome.reused) == (1, 1, 2)
    assert [(refusal.row, refusal.code) for refusal in outcome.refused] == [(1, "id_reused"), (2, "id_reused")]
    assert "event_id 'o1' was there with another SKU" in outcome.refused[0].error
    again = sku_state.absorb(ORDERS, columns(ORDERS, lines[1:]), now_ms=NOW)
    assert (again.folded, again.duplicate, again.reused) == (0, 1, 2)


def test_only_what_is_folded_makes_a_sku_known() -> None:
    sku_state = SkuState(WindowGrid(), owns=lambda keys: np.array([not key.startswith(b"foreign") for key in keys]))
    sell(sku_state, Order("a", "a", 1, 2.0, day_ms(0)), Order("b", "a", 1, 2.0, day_ms(5)))
    close_due(sku_state, day_ms(2))
    late = [Order(f"late {n}", f"late {n}", 1, 2.0, day_ms(1)) for n in range(1_000)]
    others = [
        Order("b", "a", 1, 2.0, day_ms(5)),
        Order("b", "reused", 1, 2.0, day_ms(5)),
        Order("old", "implausible", 1, 2.0, 0),
        Order("new", "from the future", 1, 2.0, NOW + 365 * DAY_MS),
        Order("late and foreign", "foreign", 1, 2.0, day_ms(1)),
    ]
    outcome = sku_state.absorb(ORDERS, columns(ORDERS, [*late, *others]), now_ms=NOW)
    assert (len(outcome.late), outcome.duplicate, outcome.folded) == (1_000, 1, 0)
    assert [r.code for r in outcome.refused] == ["implausible_time", "from_the_future", "wrong_partition", "id_reused"]
    assert sku_state.table.skus == ["a"]
    assert len(sku_state.seen[ORDERS]) == 1, "an id of what is late is not remembered"


def test_the_same_id_may_come_back_once_its_window_is_closed_and_on_another_input_at_once() -> None:
    sku_state = SkuState(WindowGrid())
    first = columns(ORDERS, [Order("1", "a", 1, 2.0, day_ms(0)), Order("1", "a", 1, 2.0, day_ms(0))])
    assert sku_state.absorb(ORDERS, first, now_ms=NOW).duplicate == 1
    assert sku_state.absorb(CLICKS, columns(CLICKS, [Click("1", "a", 0, day_ms(0))]), now_ms=NOW).folded == 1
    assert sku_state.absorb(ORDERS, columns(ORDERS, [Order("1", "a", 1, 2.0, day_ms(1))]), now_ms=NOW).duplicate == 1
    close_due(sku_state, day_ms(1))
    assert sku_state.absorb(ORDERS, columns(ORDERS, [Order("1", "a", 1, 2.0, day_ms(1))]), now_ms=NOW).folded == 1


def test_a_broken_clock_is_refused_with_the_time_and_the_limit() -> None:
    sku_state = SkuState(WindowGrid(), max_ahead_ms=HOUR_MS)
    events = [
        Order("1", "a", 1, 2.0, EARLIEST_MS - 1),
        Order("2", "a", 1, 2.0, NOW + HOUR_MS + 1),
        Order("3", "a", 1, 2.0, NOW + HOUR_MS),
        Order("4", "a", 1, 2.0, EARLIEST_MS),
    ]
    outcome = sku_state.absorb(ORDERS, columns(ORDERS, events), now_ms=NOW)
    assert [(r.row, r.code) for r in outcome.refused] == [(0, "implausible_time"), (1, "from_the_future")]
    assert str(EARLIEST_MS - 1) in outcome.refused[0].error
    assert "3600001 ms ahead" in outcome.refused[1].error
    assert "3600000 ms are allowed" in outcome.refused[1].error
    assert (outcome.folded, outcome.on_time_ms) == (2, NOW + HOUR_MS)


def test_one_clock_far_ahead_closes_no_window() -> None:
    sku_state = shop("a")
    outcome = sku_state.absorb(ORDERS, columns(ORDERS, [Order("f", "a", 1, 2.0, NOW + 365 * DAY_MS)]), now_ms=NOW)
    assert (outcome.on_time_ms, outcome.late_ms) == (NEVER_MS, NEVER_MS)
    assert sku_state.data_end_ms() == day_ms(1)


def test_a_sku_of_another_partition_is_refused_every_time_and_never_gets_a_slot() -> None:
    def only_b(keys: Sequence[bytes]) -> np.ndarray:
        return np.array([key.startswith(b"b") for key in keys], np.bool_)

    sku_state = SkuState(WindowGrid(), owns=only_b)
    for round_ in range(2):
        events = [Order(f"{round_}{sku}", sku, 1, 2.0, day_ms(0)) for sku in ("a", "b", "a", "b2")]
        outcome = sku_state.absorb(ORDERS, columns(ORDERS, events), now_ms=NOW)
        assert [(r.row, r.code) for r in outcome.refused] == [(0, "wrong_partition"), (2, "wrong_partition")]
        assert "'a'" in outcome.refused[0].error
        assert "murmur2_random" in outcome.refused[0].error
    assert sku_state.table.skus == ["b", "b2"]


def test_refusals_and_lateness_carry_the_row_of_the_fetched_batch() -> None:
    sku_state = shop("a")
    close_due(sku_state, day_ms(2))
    decoded = columns(ORDERS, [Order("1", "a", 1, 2.0, 0), Order("2", "a", 1, 2.0, day_ms(0))])
    decoded.row[:] = [17, 40]  # what decoding refused is missing in between
    outcome = sku_state.absorb(ORDERS, decoded, now_ms=NOW)
    assert ([r.row for r in outcome.refused], [r.row for r in outcome.late]) == ([17], [40])


def test_touched_skus_are_handed_over_once_and_not_when_their_window_has_closed() -> None:
    sku_state = shop("a", "b")
    sell(sku_state, Order("x", "b", 1, 2.0, day_ms(1)), Order("y", "b", 1, 2.0, day_ms(1)))
    close_due(sku_state, day_ms(1))
    touched = sku_state.take_touched()
    assert {number: slots.tolist() for number, slots in touched.items()} == {sku_state.grid.number(day_ms(1)): [1]}
    assert sku_state.take_touched() == {}


def test_an_empty_batch_is_nothing() -> None:
    outcome = SkuState(WindowGrid()).absorb(ORDERS, columns(ORDERS, []), now_ms=NOW)
    assert (outcome.folded, outcome.duplicate, outcome.late, outcome.refused) == (0, 0, [], [])
    assert (outcome.on_time_ms, outcome.late_ms) == (NEVER_MS, NEVER_MS)


def test_grown_up_skus_set_the_prior_of_new_ones() -> None:
    sku_state = SkuState(WindowGrid())
    for day in range(28):
        assert sku_state.prior_nu == 1.0
        sell(sku_state, *(Order(f"{day}{sku}", sku, 10, 2.0, day_ms(day)) for sku in "abc"))
        close_due(sku_state, day_ms(day + 1))
    grown = float(sku_state.table["nu"][0])
    assert sku_state.prior_nu == grown > 5
    sell(sku_state, Order("x", "new", 1, 2.0, day_ms(28)))
    close_due(sku_state, day_ms(29))
    assert sku_state.table["nu"][3] == np.float32((1 + 5 * grown) / 6)


def test_a_record_that_came_in_before_an_earlier_window_closed_is_worth_the_same() -> None:
    early, on_time = SkuState(WindowGrid()), SkuState(WindowGrid())
    launch = Order("new", "new", 500, 2.0, day_ms(28))
    for sku_state in (early, on_time):
        for day in range(28):
            sell(sku_state, *(Order(f"{day}{sku}", sku, 60, 2.0, day_ms(day)) for sku in "abc"))
            close_due(sku_state, day_ms(day))
    sell(early, launch)
    for sku_state in (early, on_time):
        close_due(sku_state, day_ms(28))
    sell(on_time, launch)
    one, other = (close_due(sku_state, day_ms(29))[0].vectors["new"] for sku_state in (early, on_time))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("refused", [{"time_ms": NOW + 365 * DAY_MS}, {"time_ms": 0}])
def test_a_refused_record_does_not_name_the_currency(refused: dict[str, int]) -> None:
    sku_state = shop("a")
    lines = [Order("bad", "a", 1, 2.0, **refused), Order("good", "a", 1, 2.0, day_ms(0))]
    batch = columns(ORDERS, lines)
    assert isinstance(batch, OrderColumns)
    batch.currency[:] = ["XXX", "GBP"]
    assert sku_state.absorb(ORDERS, batch, now_ms=NOW).folded == 1
    assert sku_state.currency == "GBP"


def test_what_is_not_refused_lies_where_it_belongs() -> None:
    late = [Late(row=0, sku="a", late_by_ms=1, window_start_ms=0)] * 5
    refused = [Refusal(1, "wrong_partition", ""), Refusal(2, "implausible_time", ""), Refusal(3, "wrong_partition", "")]
    outcome = Absorbed(folded=2, duplicate=11, late=late, refused=refused)
    assert (outcome.placed, outcome.misplaced) == (2 + 11 + 5, 2)
