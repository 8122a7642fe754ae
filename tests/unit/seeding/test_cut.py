"""Where history ends: every event is on one side, and what nobody knows is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.grid import WindowGrid
from schemas.errors import BadInput
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.seeding.cut import Spans, cut_at, gaps
from tests.support.examples import examples
from tests.support.partitions import DAY_MS, HOUR_MS, T0

GRID = WindowGrid()
NOW_MS = T0 + 100 * DAY_MS + 15 * HOUR_MS


def spans(history: dict[int, tuple[float, float]], live: dict[int, float]) -> Spans:
    """Take days since T0."""
    return Spans(
        {source: (ms(first), ms(last)) for source, (first, last) in history.items()},
        {source: ms(first) for source, first in live.items()},
        NOW_MS,
    )


def ms(day: float) -> int:
    return T0 + round(day * DAY_MS)


def test_history_ends_with_the_first_window_that_the_topics_hold_whole() -> None:
    found = cut_at(GRID, spans({ORDERS: (0, 100.2), PRICES: (50, 100)}, {ORDERS: 93.4, CLICKS: 98.4}), None)
    assert GRID.start_ms(found.first_open) == ms(99)
    assert found.until_ms == {ORDERS: ms(99), PRICES: NOW_MS + 1}, "nobody else tells those"


def test_a_topic_that_begins_with_a_window_holds_it_whole() -> None:
    found = cut_at(GRID, spans({ORDERS: (0, 100.2)}, {ORDERS: 93}), None)
    assert (GRID.start_ms(found.first_open), found.until_ms) == (ms(93), {ORDERS: ms(93)})


def test_topics_that_have_only_begun_and_history_share_the_windows_that_are_open() -> None:
    found = cut_at(GRID, spans({ORDERS: (0, 100.3), CLICKS: (50, 100.3)}, {ORDERS: 100.25, PRICES: 99.5}), None)
    assert GRID.start_ms(found.first_open) == ms(99)
    assert found.until_ms == {ORDERS: ms(100.25), CLICKS: NOW_MS + 1}


def test_before_the_first_live_record_all_of_history_is_taken_and_its_last_window_stays_open() -> None:
    found = cut_at(GRID, spans({ORDERS: (0, 97.6)}, {}), None)
    assert (GRID.start_ms(found.first_open), found.until_ms) == (ms(97), {ORDERS: NOW_MS + 1})


def test_an_operator_may_say_where_if_that_is_the_start_of_a_window_of_the_past() -> None:
    known = spans({ORDERS: (0, 100.2)}, {ORDERS: 93.4})
    assert cut_at(GRID, known, ms(95)).until_ms == {ORDERS: ms(95)}
    nobody_else = cut_at(GRID, spans({ORDERS: (0, 100.2)}, {}), ms(95))
    assert (GRID.start_ms(nobody_else.first_open), nobody_else.until_ms) == (ms(95), {ORDERS: NOW_MS + 1})
    (said,) = gaps(GRID, known_later := spans({ORDERS: (0, 100.2)}, {ORDERS: 98}), cut_at(GRID, known_later, ms(95)))
    assert "the files are cut at" in said
    for until, said in ((95.5, "in the midst of a window"), (101, "which is still to come")):
        with pytest.raises(BadInput, match=said):
            cut_at(GRID, known, ms(until))


def test_files_that_begin_after_the_topics_are_nothing_to_seed() -> None:
    with pytest.raises(BadInput, match=r"hold nothing from before .* there is nothing to seed"):
        cut_at(GRID, spans({ORDERS: (96, 97)}, {ORDERS: 93}), None)


@pytest.mark.parametrize(
    ("last", "live", "said"),
    [
        (100.1, {ORDERS: 100.2}, []),
        (99.9, {ORDERS: 100.2}, []),
        (90.0, {ORDERS: 100.2}, ["orders: the files end at 2024-02-12 00:00:00 UTC", "the topic begins at 2024-02-22"]),
        (90.0, {}, ["the topic is empty: what comes begins at 2024-02-22 15:00:00"]),
        (100.1, {}, []),
    ],
)
def test_windows_that_nobody_knows_are_told(last: float, live: dict[int, float], said: list[str]) -> None:
    known = spans({ORDERS: (0, last)}, live)
    lines = list(gaps(GRID, known, cut_at(GRID, known, None)))
    assert len(lines) == bool(said)
    assert all(part in lines[0] for part in said)


@examples(300)
@given(
    history_end=st.floats(1, 100),
    live=st.dictionaries(st.sampled_from([ORDERS, CLICKS, PRICES]), st.floats(0.5, 100), max_size=3),
    times=st.lists(st.floats(0, 100.6), max_size=20),
)
def test_every_event_up_to_now_is_told_by_one_side(
    history_end: float, live: dict[int, float], times: list[float]
) -> None:
    """The files hold all up to their end, a topic all from its first record on; where both do, one of them counts."""
    known = spans({ORDERS: (0, history_end)}, live)
    cut = cut_at(GRID, known, None)
    starts_ms = GRID.start_ms(cut.first_open)
    for day in times:
        at_ms = ms(day)
        is_of_files = at_ms <= ms(history_end) and at_ms < cut.until_ms[ORDERS]
        is_of_topic = at_ms >= known.live.get(ORDERS, NOW_MS + 1) and at_ms >= starts_ms
        in_either = at_ms <= ms(history_end) or at_ms >= known.live.get(ORDERS, NOW_MS + 1)
        assert is_of_files + is_of_topic == in_either
