"""How often calls came true."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cadence import RING
from features.table import Column, SkuTable
from inference.trend_calls import DOWN, UP, TrendCalls

CASES = st.lists(
    st.tuples(st.sampled_from([-1, 0, 1]), st.floats(0, 1, width=32), st.integers(0, 3), st.integers(0, 3)), max_size=30
)


@given(cases=CASES, cut=st.integers(0, 30))
def test_calls_are_counted_as_one_would_by_hand(cases: list[tuple[int, float, int, int]], cut: int) -> None:
    calls = TrendCalls()
    for part in (cases[:cut], cases[cut:]):
        direction, probability, last, now = (np.array([case[at] for case in part]) for at in range(4))
        calls.add(direction.astype(np.int8), probability.astype(np.float32), last=last, now=now)
    claimed = [(called, np.sign(now - last)) for called, _, last, now in cases if called]
    right = sum(called == happened for called, happened in claimed)
    assert calls.accuracy() == pytest.approx(right / len(claimed) if claimed else math.nan, nan_ok=True)
    for which in (UP, DOWN):
        hit = claimed.count((which, which))
        made = sum(called == which for called, _ in claimed)
        went = sum(np.sign(now - last) == which for _, _, last, now in cases)
        assert calls.precision(which) == pytest.approx(hit / made if made else math.nan, nan_ok=True)
        assert calls.recall(which) == pytest.approx(hit / went if went else math.nan, nan_ok=True)
    assert calls.seen.sum() == len(cases)
    assert calls.risen.sum() == sum((np.sign(now - last) + 1) / 2 for *_, last, now in cases)
    fine = calls.seen > 0
    mean = calls.announced[fine] / calls.seen[fine]
    assert (np.floor(np.minimum(mean * 10, 9) + 1e-5) >= np.flatnonzero(fine)).all()


def test_a_call_is_held_against_the_seven_windows_before_and_after_it() -> None:
    table, calls = SkuTable([Column("ring", "<f4", (RING,), fill=np.nan)]), TrendCalls()
    table.add(["rises", "goes", "falls", "is closed at times"])
    units = np.array([[0, 1], [5, 5], [3, 2], [1, 1]], np.float32).repeat(7, axis=1)  # windows 60 to 73
    units[3, 12:] = np.nan
    table["ring"][:4, np.arange(60, 74) % RING] = units
    up, sure = np.ones(4, np.int8), np.full(4, 0.9, np.float32)
    calls.announce(66, ["rises", "goes", "falls", "is closed at times"], up, sure)
    table.keep(np.array([0, 2, 3], np.int32))
    for number in range(60, 73):
        calls.come_true(number, table)
    assert calls.seen.sum() == 0
    calls.come_true(73, table)
    assert calls.counts.tolist() == [[0, 0, 0], [0, 0, 0], [2, 0, 1]]
    calls.come_true(73, table)
    assert calls.counts.sum() == 3
