"""What a closing window teaches, and what it may not teach: closed shops, absurd orders, SKUs without events."""

from __future__ import annotations

import math

import numpy as np
import pytest

from features import closing
from features.cadence import DAY, RING, SCALE
from features.closing import NAMES, SCALE_FLOOR, corrected, usual_views
from features.open_windows import OpenWindow
from tests.support.closings import FIRST, fresh, happened, weighted_mean, window_context


def sold(*units: float, n: int = 1) -> closing.Rows:
    """Columns of n SKUs that sold so much in each window."""
    rows = fresh(n)
    for window, y in enumerate(units):
        closing.advance(rows, happened(np.full(n, y)), window_context(window), prior_nu=1.0)
    return rows


def test_a_closed_shop_counts_as_age_and_says_nothing_about_demand() -> None:
    rows = sold(3, 0, 4)
    before = {name: rows[name].copy() for name in NAMES}
    closing.advance(rows, happened(0.0), window_context(3, is_open=False), prior_nu=1.0)
    changed = {name for name in NAMES if rows[name].tobytes() != before[name].tobytes()}
    assert changed == {"age"}  # its place in the ring was NaN, and is
    closing.advance(rows, happened(0.0), window_context(RING, is_open=False), prior_nu=1.0)
    assert math.isnan(rows["ring"][0, FIRST % RING])


def test_units_sold_while_the_shop_counts_as_closed_are_not_learnt_from() -> None:
    rows = sold(3)
    closing.advance(rows, happened(99.0), window_context(1, is_open=False), prior_nu=1.0)
    assert rows["opens"][0] == 1
    assert corrected(rows["ew"][:, SCALE], rows["opens"], 1 / 28)[0] == pytest.approx(3)


def test_an_absurd_order_moves_the_scale_by_a_bounded_step_and_is_kept_as_it_was_in_the_ring() -> None:
    rows = sold(*[2.0] * 40)
    nu = rows["nu"][0]
    closing.advance(rows, happened(1e18), window_context(40), prior_nu=1.0)
    assert rows["nu"][0] < 2.5 * nu
    assert rows["ew_square"][0] < (20 * nu) ** 2
    assert closing.last_windows(rows, FIRST + 40, 1)[0, 0] == np.float32(1e18)


def test_a_sku_that_never_sells_keeps_a_scale_above_zero() -> None:
    rows = fresh(1)
    for window in range(400):
        closing.advance(rows, happened(0.0), window_context(window), prior_nu=0.0)
    assert rows["nu"][0] == np.float32(SCALE_FLOOR)
    assert rows["unsold"][0] == 400


def test_the_prior_keeps_a_weight_of_five_windows_against_the_last_56() -> None:
    rows = fresh(1)
    for window in range(200):
        closing.advance(rows, happened(4.0), window_context(window), prior_nu=30.0)
    assert rows["nu"][0] == pytest.approx((56 * 4 + 5 * 30) / 61, rel=1e-4)


def test_each_sku_is_moved_by_its_own_window_only() -> None:
    together = fresh(3)
    alone = [fresh(1) for _ in range(3)]
    rng = np.random.default_rng(2)
    for window in range(70):
        units, views = rng.poisson(3, 3).astype(float), rng.poisson(9, 3)
        price = rng.choice([np.nan, 1.0, 2.5], 3)
        closing.advance(together, happened(units, views=views, price=price), window_context(window), prior_nu=2.0)
        for i, rows in enumerate(alone):
            one = happened(units[i], views=views[i], price=price[i])
            closing.advance(rows, one, window_context(window), prior_nu=2.0)
    for name in NAMES:
        np.testing.assert_array_equal(together[name], np.concatenate([rows[name] for rows in alone]), err_msg=name)


def test_columns_keep_their_types_and_shapes() -> None:
    rows = sold(1, 0, 2.5, n=4)
    for column in closing.COLUMNS:
        assert rows[column.name].dtype == np.dtype(column.dtype), column.name
        assert rows[column.name].shape == (4, *column.shape), column.name


def test_a_window_without_a_row_for_a_sku_is_a_window_without_events() -> None:
    rows, window = fresh(3), OpenWindow()
    at = window.rows(np.array([1], np.int32))
    for name, value in (("order_lines", 2), ("units", 3.0), ("revenue", 6.0), ("views", 5), ("fractional", 1)):
        window.folded[name][at] = value
    facts = closing.facts(window, np.arange(3, dtype=np.int32), rows)
    assert facts.order_lines.tolist() == [0, 2, 0]
    assert facts.units.tolist() == [0, 3, 0]
    assert facts.views.tolist() == [0, 5, 0]
    np.testing.assert_array_equal(facts.price, [np.nan, 2.0, np.nan])
    assert rows["fractional"].tolist() == [0, 1, 0]
    silent = closing.facts(OpenWindow(), np.arange(3, dtype=np.int32), rows)
    assert silent.units.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(silent.price, [np.nan, 2.0, np.nan])
    assert rows["fractional"].tolist() == [0, 1, 0]


def test_sums_are_reported_to_the_sixth_decimal() -> None:
    window = OpenWindow()
    at = window.rows(np.zeros(1, np.int32))
    for _ in range(3):
        window.folded["units"][at] += 0.1
        window.folded["revenue"][at] += 0.1 * 0.3
    facts = closing.facts(window, np.zeros(1, np.int32), fresh(1))
    assert (facts.units[0], facts.revenue[0]) == (0.3, 0.09)


def test_before_the_first_update_a_corrected_mean_is_zero() -> None:
    found = corrected(np.array([0.0, 0.5], np.float32), np.array([0, 1], np.int32), 0.5)
    assert found.tolist() == [0.0, 1.0]


def test_huge_orders_window_after_window_leave_every_statistic_finite() -> None:
    rows = fresh(1)
    for window in range(90):
        closing.advance(rows, happened(100 * 1e18), window_context(window), prior_nu=1.0)
    assert np.isfinite(rows["ew_square"]).all()


def test_usual_views_are_a_mean_of_every_window_and_zero_before_the_first_view() -> None:
    rows = fresh(2)
    assert usual_views(rows, DAY).tolist() == [0, 0]
    for window, views in enumerate([3, 9, 0]):
        facts = happened([0.0, 0.0], views=[views, 0])
        closing.advance(rows, facts, window_context(window, is_open=window != 1), prior_nu=1.0)
    assert usual_views(rows, DAY).tolist() == pytest.approx([weighted_mean([3.0, 9.0, 0.0], 1 / 14), 0])
