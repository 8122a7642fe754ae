"""One partition's clock: who holds it back, who no longer does, and what happens when all fall silent."""

from __future__ import annotations

import pytest

from features.watermark import NEVER_MS, Watermark

ORDERS, CLICKS, PRICES = range(3)
NOW = 1_700_000_000_000  # wall clock, ms
TIMEOUT = 60_000


def started(*newest_ms: int, lateness_ms: int = 0) -> Watermark:
    """A watermark whose inputs have shown these newest events."""
    mark = Watermark(allowed_lateness_ms=lateness_ms, idle_timeout_ms=TIMEOUT)
    for index, at in enumerate(newest_ms):
        mark.observe(index, on_time_ms=at)
    return mark


def advance(mark: Watermark, now_ms: int = NOW, data_end_ms: int = NEVER_MS) -> int:
    return mark.advance(now_ms=now_ms, monotonic_ms=now_ms, data_end_ms=data_end_ms)


def silence(mark: Watermark, *indices: int, now_ms: int = NOW) -> None:
    for index in indices:
        mark.quiet(index, monotonic_ms=now_ms, can_deliver=True)


def test_it_is_the_slowest_input_less_the_lateness() -> None:
    assert advance(started(9_000, 5_000, 7_000, lateness_ms=1_500)) == 3_500


def test_before_every_input_has_spoken_or_fallen_silent_there_is_none() -> None:
    mark = started(9_000, 5_000)
    assert advance(mark) == NEVER_MS
    silence(mark, PRICES)
    assert advance(mark, NOW + TIMEOUT - 1) == NEVER_MS
    assert advance(mark, NOW + TIMEOUT) == 5_000


def test_an_older_event_does_not_turn_it_back() -> None:
    mark = started(9_000, 9_000, 9_000)
    assert advance(mark) == 9_000
    mark.observe(ORDERS, on_time_ms=1_000)
    assert advance(mark) == 9_000
    assert mark.clocks[ORDERS].max_event_ms == 9_000


def test_an_input_that_speaks_again_does_not_turn_it_back_and_holds_it_again() -> None:
    mark = started(5_000, 9_000, 9_000)
    silence(mark, ORDERS)
    assert advance(mark, NOW + TIMEOUT) == 9_000
    mark.observe(ORDERS, on_time_ms=6_000)
    mark.observe(CLICKS, on_time_ms=20_000)
    mark.observe(PRICES, on_time_ms=20_000)
    assert advance(mark, NOW + TIMEOUT) == 9_000
    mark.observe(ORDERS, on_time_ms=12_000)
    assert advance(mark, NOW + TIMEOUT) == 12_000


def test_a_pause_starts_the_idle_timeout_anew() -> None:
    mark = started(5_000, 9_000, 9_000)
    silence(mark, ORDERS)
    mark.quiet(ORDERS, monotonic_ms=NOW + TIMEOUT - 1, can_deliver=False)
    assert advance(mark, NOW + 10 * TIMEOUT) == 5_000
    silence(mark, ORDERS, now_ms=NOW + 10 * TIMEOUT)
    assert advance(mark, NOW + 11 * TIMEOUT - 1) == 5_000
    assert advance(mark, NOW + 11 * TIMEOUT) == 9_000


@pytest.mark.parametrize(("missed_ms", "is_silence"), [(TIMEOUT // 2, True), (TIMEOUT // 2 + 1, False)])
def test_half_an_idle_timeout_in_which_nobody_could_listen_is_no_silence(missed_ms: int, *, is_silence: bool) -> None:
    mark = started(9_000, 5_000)
    silence(mark, PRICES)
    mark.missed(missed_ms)
    silence(mark, PRICES, now_ms=NOW + 1)
    assert advance(mark, NOW + TIMEOUT) == (5_000 if is_silence else NEVER_MS)
    assert advance(mark, NOW + TIMEOUT + 1) == 5_000


def test_an_input_that_lags_is_not_idle_but_reading_what_says_nothing_is_silence() -> None:
    mark = started(5_000, 9_000, 9_000)
    silence(mark, ORDERS)
    mark.quiet(ORDERS, monotonic_ms=NOW + TIMEOUT - 1, can_deliver=True, lags=True)
    assert advance(mark, NOW + 10 * TIMEOUT) == 5_000
    mark.observe(ORDERS, on_time_ms=NEVER_MS)  # nothing usable in it
    silence(mark, ORDERS, now_ms=NOW + 10 * TIMEOUT)
    assert advance(mark, NOW + 10 * TIMEOUT) == 9_000


@pytest.mark.parametrize(
    ("on_time_ms", "late_ms"),
    [
        (NEVER_MS, NEVER_MS),  # refused, or a range of offsets without records
        (5_000, NEVER_MS),  # not newer than what was there: a repeated stamp, or an older event
        (4_000, 4_500),
        (NEVER_MS, 6_000),  # of a window that has closed: newer, but behind the watermark
    ],
)
def test_what_moves_no_event_time_does_not_start_the_idle_timeout_anew(on_time_ms: int, late_ms: int) -> None:
    mark = started(5_000, 9_000, 9_000)
    for second in range(0, 60, 30):
        mark.observe(ORDERS, on_time_ms=on_time_ms, late_ms=late_ms)
        silence(mark, ORDERS, now_ms=NOW + 1000 * second)
        assert advance(mark, NOW + 1000 * second) <= 6_000
    assert advance(mark, NOW + TIMEOUT) == 9_000


def test_what_moves_no_event_time_does_not_stop_the_pace_of_the_wall_clock() -> None:
    mark = started(NOW, NOW, NOW)
    silence(mark, ORDERS, CLICKS, PRICES)
    start = NOW + TIMEOUT
    for hours in range(49):
        mark.observe(ORDERS, on_time_ms=NEVER_MS)
        assert advance(mark, start + hours * 3_600_000) == NOW + hours * 3_600_000


def test_an_input_that_is_on_time_again_after_late_events_is_waited_for_again() -> None:
    mark = started(5_000, 9_000, 9_000)
    silence(mark, ORDERS)
    assert advance(mark, NOW + TIMEOUT) == 9_000
    mark.observe(ORDERS, on_time_ms=9_500, late_ms=8_000)
    for index in (CLICKS, PRICES):
        mark.observe(index, on_time_ms=20_000)
    assert advance(mark, NOW + TIMEOUT) == 9_500


def test_who_has_slept_judges_nobody_by_the_silence_before() -> None:
    mark = started(5_000, 9_000, 9_000)
    silence(mark, ORDERS)
    mark.restart_idle_clock()
    silence(mark, ORDERS, now_ms=NOW + 10 * TIMEOUT)
    assert advance(mark, NOW + 11 * TIMEOUT - 1) == 5_000
    assert advance(mark, NOW + 11 * TIMEOUT) == 9_000


def test_staying_quiet_does_not_restart_the_idle_clock() -> None:
    mark = started(5_000, 9_000, 9_000)
    for second in range(61):
        silence(mark, ORDERS, now_ms=NOW + 1000 * second)
    assert advance(mark, NOW + TIMEOUT) == 9_000


def test_when_all_are_silent_it_reaches_the_newest_event_and_then_keeps_pace_with_the_clock() -> None:
    mark = started(NOW - 50_000, NOW - 90_000, NOW - 80_000, lateness_ms=10_000)
    silence(mark, ORDERS, CLICKS, PRICES)
    now = NOW + TIMEOUT
    assert advance(mark, now) == NOW - 60_000
    assert advance(mark, now + 1_234) == NOW - 60_000 + 1_234
    assert advance(mark, now + 3_600_000) == NOW - 60_000 + 3_600_000


def test_when_all_are_silent_windows_with_data_close_once_their_time_is_over() -> None:
    mark = started(NOW - 50_000, NOW - 50_000, NOW - 50_000, lateness_ms=10_000)
    silence(mark, ORDERS, CLICKS, PRICES)
    end_ms = NOW + 80_000
    assert advance(mark, NOW + TIMEOUT, end_ms) == NOW + TIMEOUT - 10_000
    assert advance(mark, end_ms + 9_999, end_ms) == end_ms - 1
    assert advance(mark, end_ms + 10_000, end_ms) == end_ms


def test_old_data_closes_at_once_when_all_are_silent_but_the_years_since_do_not() -> None:
    mark = started(1_300_000_000_000, 1_300_000_000_000, 1_300_000_000_000)
    silence(mark, ORDERS, CLICKS, PRICES)
    assert advance(mark, NOW + TIMEOUT, 1_300_000_080_000) == 1_300_000_080_000
    assert advance(mark, NOW + 2 * TIMEOUT, 1_300_000_080_000) == 1_300_000_080_000


def test_a_partition_without_any_event_has_no_clock_however_long_it_is_silent() -> None:
    mark = started()
    silence(mark, ORDERS, CLICKS, PRICES)
    assert advance(mark, NOW + 100 * TIMEOUT) == NEVER_MS


def test_an_event_ends_the_pace_of_the_wall_clock() -> None:
    mark = started(NOW, NOW, NOW)
    silence(mark, ORDERS, CLICKS, PRICES)
    now = NOW + TIMEOUT
    advance(mark, now)
    assert advance(mark, now + 5_000) == NOW + 5_000
    mark.observe(CLICKS, on_time_ms=NOW + 1)
    assert advance(mark, now + 50_000) == NOW + 5_000
    silence(mark, CLICKS, now_ms=now + 50_000)
    assert advance(mark, now + 50_000 + TIMEOUT) == NOW + 5_000
    assert advance(mark, now + 50_000 + TIMEOUT + 700) == NOW + 5_700


def test_a_second_silence_keeps_pace_from_its_own_beginning() -> None:
    mark = started(NOW, NOW, NOW)
    silence(mark, ORDERS, CLICKS, PRICES)
    now = NOW + TIMEOUT
    advance(mark, now)
    mark.observe(CLICKS, on_time_ms=NOW + 1)
    silence(mark, CLICKS, now_ms=now + 1)
    assert advance(mark, now + 1 + TIMEOUT) == NOW + 1
    assert advance(mark, now + 1 + TIMEOUT + 300) == NOW + 301


def test_the_lead_is_over_the_slowest_of_the_others_that_still_speak() -> None:
    mark = started(90_000, 5_000, 7_000)
    assert [mark.lead_ms(i, monotonic_ms=NOW) for i in range(3)] == [85_000, 0, 2_000]
    silence(mark, CLICKS)
    assert mark.lead_ms(ORDERS, monotonic_ms=NOW + TIMEOUT) == 83_000
    silence(mark, PRICES)
    assert mark.lead_ms(ORDERS, monotonic_ms=NOW + TIMEOUT) == 0


def test_nobody_leads_an_input_that_has_shown_nothing() -> None:
    mark = started(90_000, 5_000)
    assert [mark.lead_ms(i, monotonic_ms=NOW) for i in range(3)] == [0, 0, 0]
