"""One partition: what is refused and why, what is late and by how much, and who is closed when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from features.cadence import DAY_MS, HOUR_MS
from features.grid import EARLIEST_MS, WindowGrid
from features.ledger import Late, Ledger
from features.watermark import NEVER_MS
from schemas.columns import OrderColumns
from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support.ledgers import Click, Order, Price, close, close_due, columns, day_ms

NOW = day_ms(100)


def shop(*skus: str, day: int = 0) -> Ledger:
    """A partition that sold one unit of each SKU on a day."""
    ledger = Ledger(WindowGrid())
    sell(ledger, *(Order(f"{day}-{sku}", sku, 1, 2.0, day_ms(day, 12)) for sku in skus))
    return ledger


def sell(ledger: Ledger, *lines: Order, now_ms: int = NOW) -> object:
    return ledger.absorb(ORDERS, columns(ORDERS, lines), now_ms=now_ms)


def test_a_live_sku_has_a_row_in_every_window_also_when_it_is_silent() -> None:
    ledger = shop("a", "b")
    sell(ledger, Order("x", "c", 1, 2.0, day_ms(2, 1)))
    closed = close_due(ledger, day_ms(4))
    assert [set(window.facts) for window in closed] == [{"a", "b"}, {"a", "b"}, {"a", "b", "c"}, {"a", "b", "c"}]
    assert [window.facts["a"]["units"] for window in closed] == [1, 0, 0, 0]
    assert ledger.table["age"][:3].tolist() == [4, 4, 2]


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
    ledger = Ledger(WindowGrid())
    assert ledger.absorb(source, columns(source, [event]), now_ms=NOW).folded == 1
    assert set(close(ledger, ledger.grid.number(day_ms(0))).facts) == {"a"}


def test_windows_become_due_one_by_one_when_the_watermark_reaches_their_end() -> None:
    ledger = shop("a")
    number = ledger.grid.number(day_ms(0))
    assert ledger.due(day_ms(1) - 1) is None
    assert ledger.due(day_ms(1)) == ledger.due(day_ms(9)) == number
    assert [window.number for window in close_due(ledger, day_ms(3))] == [number, number + 1, number + 2]
    assert ledger.due(day_ms(3)) is None


def test_a_partition_without_events_has_nothing_due_and_no_end() -> None:
    ledger = Ledger(WindowGrid())
    assert ledger.due(NOW) is None
    assert ledger.data_end_ms() == NEVER_MS
    assert ledger.take_touched() == {}


def test_data_ends_with_the_newest_open_window_that_holds_any() -> None:
    ledger = shop("a")
    sell(ledger, Order("x", "a", 1, 2.0, day_ms(5, 3)))
    assert ledger.data_end_ms() == day_ms(6)
    close_due(ledger, day_ms(6))
    assert ledger.data_end_ms() == NEVER_MS


def test_a_late_event_is_told_by_how_much_and_changes_nothing() -> None:
    ledger = shop("a")
    close_due(ledger, day_ms(2))
    outcome = ledger.absorb(
        ORDERS,
        columns(ORDERS, [Order("n", "a", 1, 2.0, day_ms(2)), Order("l", "b", 7, 2.0, day_ms(1, 23))]),
        now_ms=NOW,
    )
    assert outcome.late == [Late(row=1, sku="b", late_by_ms=HOUR_MS, window_start_ms=day_ms(1))]
    assert outcome.folded == 1
    assert set(close_due(ledger, day_ms(3))[0].facts) == {"a"}


def test_only_what_is_folded_makes_a_sku_known() -> None:
    ledger = Ledger(WindowGrid(), owns=lambda keys: np.array([not key.startswith(b"foreign") for key in keys]))
    sell(ledger, Order("a", "a", 1, 2.0, day_ms(0)), Order("b", "a", 1, 2.0, day_ms(5)))
    close_due(ledger, day_ms(2))
    late = [Order(f"late {n}", f"late {n}", 1, 2.0, day_ms(1)) for n in range(1_000)]
    others = [
        Order("b", "duplicate", 1, 2.0, day_ms(5)),
        Order("old", "implausible", 1, 2.0, 0),
        Order("new", "from the future", 1, 2.0, NOW + 365 * DAY_MS),
        Order("late and foreign", "foreign", 1, 2.0, day_ms(1)),
    ]
    outcome = ledger.absorb(ORDERS, columns(ORDERS, [*late, *others]), now_ms=NOW)
    assert (len(outcome.late), outcome.duplicate, outcome.folded) == (1_000, 1, 0)
    assert [r.code for r in outcome.refused] == ["implausible_time", "from_the_future", "wrong_partition"]
    assert ledger.table.skus == ["a"]
    assert len(ledger.seen[ORDERS]) == 1, "an id of what is late is not remembered"


def test_the_same_id_may_come_back_once_its_window_is_closed_and_on_another_input_at_once() -> None:
    ledger = Ledger(WindowGrid())
    first = columns(ORDERS, [Order("1", "a", 1, 2.0, day_ms(0)), Order("1", "a", 1, 2.0, day_ms(0))])
    assert ledger.absorb(ORDERS, first, now_ms=NOW).duplicate == 1
    assert ledger.absorb(CLICKS, columns(CLICKS, [Click("1", "a", 0, day_ms(0))]), now_ms=NOW).folded == 1
    assert ledger.absorb(ORDERS, columns(ORDERS, [Order("1", "a", 1, 2.0, day_ms(1))]), now_ms=NOW).duplicate == 1
    close_due(ledger, day_ms(1))
    assert ledger.absorb(ORDERS, columns(ORDERS, [Order("1", "a", 1, 2.0, day_ms(1))]), now_ms=NOW).folded == 1


def test_a_broken_clock_is_refused_with_the_time_and_the_limit() -> None:
    ledger = Ledger(WindowGrid(), max_ahead_ms=HOUR_MS)
    events = [
        Order("1", "a", 1, 2.0, EARLIEST_MS - 1),
        Order("2", "a", 1, 2.0, NOW + HOUR_MS + 1),
        Order("3", "a", 1, 2.0, NOW + HOUR_MS),
        Order("4", "a", 1, 2.0, EARLIEST_MS),
    ]
    outcome = ledger.absorb(ORDERS, columns(ORDERS, events), now_ms=NOW)
    assert [(r.row, r.code) for r in outcome.refused] == [(0, "implausible_time"), (1, "from_the_future")]
    assert str(EARLIEST_MS - 1) in outcome.refused[0].error
    assert "3600001 ms ahead" in outcome.refused[1].error
    assert "3600000 ms are allowed" in outcome.refused[1].error
    assert (outcome.folded, outcome.on_time_ms) == (2, NOW + HOUR_MS)


def test_one_clock_far_ahead_cannot_close_the_world() -> None:
    ledger = shop("a")
    outcome = ledger.absorb(ORDERS, columns(ORDERS, [Order("f", "a", 1, 2.0, NOW + 365 * DAY_MS)]), now_ms=NOW)
    assert (outcome.on_time_ms, outcome.late_ms) == (NEVER_MS, NEVER_MS)
    assert ledger.data_end_ms() == day_ms(1)


def test_a_sku_of_another_partition_is_refused_every_time_and_never_gets_a_slot() -> None:
    def only_b(keys: Sequence[bytes]) -> np.ndarray:
        return np.array([key.startswith(b"b") for key in keys], np.bool_)

    ledger = Ledger(WindowGrid(), owns=only_b)
    for round_ in range(2):
        events = [Order(f"{round_}{sku}", sku, 1, 2.0, day_ms(0)) for sku in ("a", "b", "a", "b2")]
        outcome = ledger.absorb(ORDERS, columns(ORDERS, events), now_ms=NOW)
        assert [(r.row, r.code) for r in outcome.refused] == [(0, "wrong_partition"), (2, "wrong_partition")]
        assert "'a'" in outcome.refused[0].error
        assert "murmur2_random" in outcome.refused[0].error
    assert ledger.table.skus == ["b", "b2"]


def test_refusals_and_lateness_carry_the_row_of_the_fetched_batch() -> None:
    ledger = shop("a")
    close_due(ledger, day_ms(2))
    decoded = columns(ORDERS, [Order("1", "a", 1, 2.0, 0), Order("2", "a", 1, 2.0, day_ms(0))])
    decoded.row[:] = [17, 40]  # what decoding refused is missing in between
    outcome = ledger.absorb(ORDERS, decoded, now_ms=NOW)
    assert ([r.row for r in outcome.refused], [r.row for r in outcome.late]) == ([17], [40])


def test_touched_skus_are_handed_over_once_and_not_when_their_window_has_closed() -> None:
    ledger = shop("a", "b")
    sell(ledger, Order("x", "b", 1, 2.0, day_ms(1)), Order("y", "b", 1, 2.0, day_ms(1)))
    close_due(ledger, day_ms(1))
    touched = ledger.take_touched()
    assert {number: slots.tolist() for number, slots in touched.items()} == {ledger.grid.number(day_ms(1)): [1]}
    assert ledger.take_touched() == {}


def test_an_empty_batch_is_nothing() -> None:
    outcome = Ledger(WindowGrid()).absorb(ORDERS, columns(ORDERS, []), now_ms=NOW)
    assert (outcome.folded, outcome.duplicate, outcome.late, outcome.refused) == (0, 0, [], [])
    assert (outcome.on_time_ms, outcome.late_ms) == (NEVER_MS, NEVER_MS)


def test_grown_up_skus_set_the_prior_of_new_ones() -> None:
    ledger = Ledger(WindowGrid())
    for day in range(28):
        assert ledger.prior_nu == 1.0
        sell(ledger, *(Order(f"{day}{sku}", sku, 10, 2.0, day_ms(day)) for sku in "abc"))
        close_due(ledger, day_ms(day + 1))
    grown = float(ledger.table["nu"][0])
    assert ledger.prior_nu == grown > 5
    sell(ledger, Order("x", "new", 1, 2.0, day_ms(28)))
    (chunk,) = ledger.close(ledger.grid.number(day_ms(28)))
    ledger.advance(chunk)
    assert chunk.rows["nu"][3] == np.float32((1 + 5 * grown) / 6)


def test_a_record_that_came_in_before_an_earlier_window_closed_is_worth_the_same() -> None:
    early, on_time = Ledger(WindowGrid()), Ledger(WindowGrid())
    launch = Order("new", "new", 500, 2.0, day_ms(28))
    for ledger in (early, on_time):
        for day in range(28):
            sell(ledger, *(Order(f"{day}{sku}", sku, 60, 2.0, day_ms(day)) for sku in "abc"))
            close_due(ledger, day_ms(day))
    sell(early, launch)
    for ledger in (early, on_time):
        close_due(ledger, day_ms(28))
    sell(on_time, launch)
    one, other = (close_due(ledger, day_ms(29))[0].vectors["new"] for ledger in (early, on_time))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("refused", [{"time_ms": NOW + 365 * DAY_MS}, {"time_ms": 0}])
def test_a_refused_record_does_not_name_the_currency(refused: dict[str, int]) -> None:
    ledger = shop("a")
    lines = [Order("bad", "a", 1, 2.0, **refused), Order("good", "a", 1, 2.0, day_ms(0))]
    batch = columns(ORDERS, lines)
    assert isinstance(batch, OrderColumns)
    batch.currency[:] = ["XXX", "GBP"]
    assert ledger.absorb(ORDERS, batch, now_ms=NOW).folded == 1
    assert ledger.currency == "GBP"
