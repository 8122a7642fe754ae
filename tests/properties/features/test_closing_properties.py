"""Running statistics against the sum over the whole history, at every prefix of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import closing
from features.cadence import DAY, RING
from features.closing import SCALE_FLOOR, corrected, gains
from features.open_windows import OpenWindow
from tests.support.closings import FIRST, ewma, fresh, happened, weighted_mean, window_context
from tests.support.examples import examples

units = st.one_of(st.just(0.0), st.integers(0, 20).map(float), st.floats(0, 20, width=32))
prices = st.sampled_from([math.nan, 0.0, 0.01, 1.0, 2.5, 400.0])


class Window(NamedTuple):
    units: float
    is_open: bool
    views: int
    price: float


stories = st.lists(
    st.builds(Window, units, st.sampled_from([True, True, True, False]), st.integers(0, 500), prices), max_size=70
)


def close(rows: closing.Rows, number: int, window: Window, *, prior_nu: float = 1.0) -> None:
    facts = happened(window.units, views=window.views, price=window.price)
    closing.advance(rows, facts, window_context(number, is_open=window.is_open), prior_nu=prior_nu)


@examples(40)
@given(stories, st.sampled_from([0.05, 1.0, 30.0]))
def test_every_statistic_is_the_sum_over_the_windows_so_far(story: list[Window], prior_nu: float) -> None:
    rows = fresh(1)
    for number, window in enumerate(story):
        close(rows, number, window, prior_nu=prior_nu)
        past = story[: number + 1]
        opened = [w.units for w in past if w.is_open]
        assert (rows["age"][0], rows["opens"][0]) == (len(past), len(opened))
        for at, gain in enumerate(gains(DAY).tolist()):
            mean = corrected(rows["ew"][:, at], rows["opens"], gain)[0]
            assert mean == pytest.approx(weighted_mean(opened, gain), rel=1e-4, abs=1e-6)
            assert rows["ew"][0, at] == pytest.approx(ewma(opened, gain), rel=1e-4, abs=1e-6)
        assert rows["ew_square"][0] == pytest.approx(ewma([x * x for x in opened], 1 / 28), rel=1e-4, abs=1e-6)
        assert rows["ew_sold"][0] == pytest.approx(ewma([float(x > 0) for x in opened], 1 / 28), rel=1e-4, abs=1e-6)
        assert rows["ew_views"][0] == pytest.approx(ewma([w.views for w in past], 1 / 14), rel=1e-4, abs=1e-6)
        assert rows["unsold"][0] == next((i for i, x in enumerate(reversed(opened)) if x > 0), len(opened))
        assert rows["nu"][0] == pytest.approx(scale(opened, prior_nu), rel=1e-4)
        usual = usual_log_price([w.price for w in past])
        assert rows["log_price_usual"][0] == pytest.approx(usual, rel=1e-4, abs=1e-4, nan_ok=True)


def scale(opened: list[float], prior_nu: float) -> float:
    """Mean of the own windows and, with the weight of five of them, what is usual."""
    if not opened:
        return max(SCALE_FLOOR, prior_nu)
    n = min(len(opened), 56)
    return max(SCALE_FLOOR, (n * weighted_mean(opened, 1 / 28) + 5 * prior_nu) / (n + 5))


def usual_log_price(prices: list[float]) -> float:
    """Exponentially weighted mean of the known log prices, started at the first."""
    logs = [math.log(price) for price in prices if price > 0]
    if not logs:
        return math.nan
    keep = 27 / 28
    return keep ** (len(logs) - 1) * logs[0] + ewma(logs[1:], 1 / 28)


@examples(60)
@given(st.lists(st.tuples(units, st.booleans()), min_size=1, max_size=130), st.integers(1, RING), st.integers(0, 60))
def test_the_ring_holds_the_last_windows_and_nan_where_there_was_none(
    story: list[tuple[float, bool]], count: int, born: int
) -> None:
    rows, history = fresh(1), [math.nan] * RING
    for number, (sold, is_open) in enumerate(story, start=born):
        close(rows, number, Window(sold, is_open, 0, math.nan))
        history.append(float(np.float32(sold)) if is_open else math.nan)
    found = closing.last_windows(rows, FIRST + born + len(story) - 1, count)
    assert found.shape == (1, count)
    np.testing.assert_array_equal(found[0], np.array(history[-count:], np.float32))


@examples(60)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60), st.sampled_from(gains(DAY).tolist()))
def test_a_corrected_mean_lies_within_what_was_seen(values: list[float], gain: float) -> None:
    mean = np.zeros(1, np.float32)
    for count, value in enumerate(values, start=1):
        mean += np.float32(gain) * (np.float32(value) - mean)
        found = corrected(mean, np.array([count], np.int32), gain)[0]
        assert found == pytest.approx(weighted_mean(values[:count], gain), rel=1e-4, abs=1e-5)
        assert min(values[:count]) - 1e-4 <= found <= max(values[:count]) + 1e-4


class Trade(NamedTuple):
    """A window as the price sees it: lines sold for so much, and price changes (price, time) in it."""

    units: float
    paid: float
    changes: list[tuple[float, int]]


trades = st.lists(
    st.builds(
        Trade,
        st.sampled_from([0.0, 1.0, 4.0]),
        st.sampled_from([0.5, 2.0, 3.0]),
        st.lists(st.tuples(st.sampled_from([1.0, 5.0, 7.0]), st.integers(0, 9)), max_size=2),
    ),
    max_size=12,
)


@examples(100)
@given(trades)
def test_the_price_is_the_last_change_or_before_any_what_was_last_paid(story: list[Trade]) -> None:
    rows, slots = fresh(1), np.zeros(1, np.int32)
    price, ever_changed = math.nan, False
    for number, trade in enumerate(story):
        window = OpenWindow()
        if trade.units or trade.changes:
            row = window.rows(slots)
            window.folded["units"][row], window.folded["revenue"][row] = trade.units, trade.units * trade.paid
            newest = max(trade.changes, key=lambda change: change[1], default=None)
            if newest:
                window.folded["price"][row], window.folded["price_ms"][row] = newest[0], number * 10 + newest[1]
        before = price
        if trade.changes:
            price = max(trade.changes, key=lambda change: change[1])[0]
        elif trade.units and not ever_changed:
            price = trade.paid
        facts = closing.facts(window, slots, rows)
        np.testing.assert_equal((facts.price_before[0], facts.price[0]), (before, price))
        np.testing.assert_equal(rows["price"][0], price)
        was_changed, ever_changed = ever_changed, ever_changed or bool(trade.changes)
        assert (facts.listed_before[0], facts.listed[0]) == (was_changed, ever_changed)
