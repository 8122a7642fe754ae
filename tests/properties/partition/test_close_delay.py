"""The delay of each window against a list of everything that happened."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from features.cadence import HOUR_MS
from features.grid import WindowGrid
from streams.partition.close_delay import CloseDelay

GRID = WindowGrid(window_ms=HOUR_MS)
FIRST = 400_000
steps = st.lists(
    st.tuples(st.just("moved"), st.integers(0, 3 * HOUR_MS))
    | st.tuples(st.sampled_from(["close", "commit"]), st.none())
)


@given(steps, st.integers(0, 5))
def test_each_closed_window_is_reported_once_with_the_time_since_the_watermark_passed_it(
    happened: list[tuple[str, Any]], behind: int
) -> None:
    delay = CloseDelay(GRID)
    mark_ms, now_s, number = GRID.start_ms(FIRST), 0.0, FIRST - behind
    passed: dict[int, float] = {}
    closed: list[int] = []
    for what, by_ms in [("moved", 0), *happened]:
        now_s += 1.0
        if what == "moved":
            mark_ms += by_ms
            delay.moved(mark_ms, now_s=now_s)
            for each in range(FIRST - behind, GRID.number(mark_ms)):
                passed.setdefault(each, now_s)
        elif what == "close" and GRID.end_ms(number) <= mark_ms:
            delay.closed(number, now_s=now_s)
            closed.append(number)
            number += 1
        elif what == "commit":
            assert delay.committed(now_s=now_s) == [now_s - passed[each] for each in closed]
            closed.clear()
    assert len(delay) <= GRID.number(mark_ms) - number + 1, "it does not grow beyond what is open"
