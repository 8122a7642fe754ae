"""What must hold of the judging whatever a SKU does."""

from __future__ import annotations

import doctest
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.cadence import HORIZON, LEVELS
from inference import (
    aggregation,
    alerting,
    arrays,
    baselines,
    ew_nb,
    nb_quantiles,
    negative_binomial,
    scoring,
    sentences,
    tail_evidence,
)
from inference import trend as trend_module
from inference.trend import exceeds, trend
from tests.support.examples import examples
from tests.support.judging import DAY_MS, Shop, closed, fresh, observe

UNITS = st.one_of(
    st.integers(0, 6).map(float), st.floats(0, 1e4, width=32), st.sampled_from([0.0, 0.001, 500.0, 1e9, 1e18])
)
MEANS = st.one_of(st.floats(0, 1e3, width=32), st.just(float("nan")), st.just(1e30), st.just(0.0))


@pytest.mark.parametrize(
    "module", [aggregation, baselines, nb_quantiles, scoring, sentences, negative_binomial, arrays, trend_module]
)
def test_the_examples_in_the_docs_run(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


@given(
    mu=st.one_of(st.floats(0, 1e6), st.floats(0, 10)),
    r=st.one_of(st.floats(0.01, 1e4), st.just(float("inf"))),
    y=st.lists(UNITS, min_size=2, max_size=8),
)
def test_tails_are_probabilities_that_move_with_the_units(mu: float, r: float, y: list[float]) -> None:
    ordered = np.sort(np.array(y))
    up, down = negative_binomial.tails(ordered, mu=np.full(len(y), mu), r=np.full(len(y), r))
    for p in (up, down):
        assert ((p >= 1e-300) & (p <= 1)).all()
    assert (np.diff(up) <= 1e-9 * up[:-1]).all()
    assert (np.diff(down) >= -1e-9 * down[:-1]).all()
    np.testing.assert_allclose(up + down, 1.0, rtol=1e-6)


@given(history=st.lists(UNITS, min_size=1, max_size=40), last=st.lists(UNITS, min_size=2, max_size=6), mean=MEANS)
def test_more_units_are_never_a_smaller_upward_surprise(history: list[float], last: list[float], mean: float) -> None:
    n = len(last)
    rows = fresh(n)
    for day, units in enumerate(history):
        rows |= observe(rows, closed(day, np.full(n, units)), np.full(n, mean))[1]
    found, _ = observe(rows, closed(len(history), np.sort(last)), np.full(n, mean))
    assert (np.diff(found.p_up) <= 1e-9).all()
    assert (np.diff(found.p_down) >= -1e-9).all()


@given(st.lists(st.tuples(UNITS, MEANS, st.floats(0, 3), st.sampled_from([5.0, 0.0, float("nan"), 7.5, 0.01]))))
def test_every_statistic_stays_in_its_range(story: list[tuple[float, float, float, float]]) -> None:
    rows = fresh(1)
    for day, (units, mean, season_index, price) in enumerate(story):
        found, rows_new = observe(
            rows, closed(day, units, price=price, season_index=season_index), np.array([mean], np.float32)
        )
        rows |= rows_new
        for p in (found.p_up, found.p_down, found.price_p):
            assert ((p >= 1e-300) & (p <= 1)).all()
        assert -300 <= found.silence_log10p[0] <= 0
        assert 0.01 <= found.dispersion[0] <= 50
        for name, dtype, shape, _ in tail_evidence.COLUMNS:
            assert rows[name].dtype == np.dtype(dtype)
            assert rows[name].shape == (1, *shape)
            assert np.isfinite(rows[name]).all(), name
        assert 0 <= rows["zero_share"][0] <= 1


@st.composite
def stories(draw: st.DrawFn) -> NDArray[np.float64]:
    """Units, prices of some SKUs over some days, with all that opens and ends alerts: bursts, gaps, jumps."""
    days, n = draw(st.integers(40, 90)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mu = np.exp(rng.uniform(-1, 5, n))
    units = rng.poisson(mu, (days, n)).astype(float)
    units *= np.where(rng.random((days, n)) < 0.06, rng.choice([30.0, 300.0], (days, n)), 1.0)
    for sku in range(n):
        for start in rng.integers(0, days, rng.integers(0, 3)):
            units[start : start + rng.integers(1, 25), sku] *= rng.choice([0.0, 0.0, 0.02])
    prices = 5.0 * np.cumprod(np.where(rng.random((days, n)) < 0.03, rng.choice([0.3, 3.0], (days, n)), 1.0), axis=0)
    return np.stack((units, prices))


@pytest.mark.slow
@examples(60)
@given(stories(), st.booleans())
def test_an_alert_opens_once_and_ends_at_most_once(story: NDArray[np.float64], forecast: bool) -> None:
    days, n = story.shape[1:]
    shop = Shop(n)
    for day in range(days):
        shop.day(story[0, day], 20.0 if forecast else np.nan, price=story[1, day], season_index=float(day % 7 != 6))
        demand = shop.rows["alert_open"][:, :3] > 0
        assert (demand.sum(axis=1) <= 1).all()
    lives: dict[str, list[alerting.AlertChange]] = {}
    for change in shop.changes:
        lives.setdefault(change.alert_key, []).append(change)
    assert len({c.id for c in shop.changes}) == len(shop.changes)
    for key, life in lives.items():
        status = [c.status for c in life]
        assert status[0] == "open"
        assert status.count("open") == 1
        assert "resolved" not in status[:-1]
        windows = [c.window_start_ms for c in life]
        assert windows == sorted(set(windows))
        assert {c.opened_ms for c in life} == {windows[0]}
        assert key == f"{life[0].sku}/{life[0].kind}/{windows[0]}"
        for c in life:
            numbers = (c.observed, c.expected, *c.interval, c.p_value, c.impact, *(v for _, v in c.contributors))
            assert np.isfinite(numbers).all()
            assert c.interval[0] <= c.interval[1]
            assert c.severity in alerting.SEVERITIES
    still = {(c.sku, c.kind) for life in lives.values() for c in life[-1:] if c.status != "resolved"}
    held = {(f"S{i}", alerting.KINDS[k]) for i, k in zip(*np.nonzero(shop.rows["alert_open"]), strict=True)}
    assert still == held


@pytest.mark.slow
def test_the_stories_above_tell_of_every_kind_and_status() -> None:
    seen = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        shop = Shop(6)
        mu = np.full(6, 200.0)
        for day in range(150):
            units = rng.poisson(mu).astype(float)
            units[0] *= 50.0 if day == 60 + seed else 1.0
            units[1] *= 0.0 if 60 <= day < 60 + 10 * (1 + seed % 3) else 1.0
            units[2] *= 0.005 if day == 140 else 1.0
            shop.day(units, mu, price=np.where(np.arange(6) == 3, 5.0 + 20.0 * (day > 70), 5.0))
        seen |= {(c.kind, c.status) for c in shop.changes}
    wanted = {(kind, status) for kind in alerting.KINDS for status in ("open", "resolved")}
    assert wanted | {("silence", "update")} <= seen


@examples(25)
@given(stories(), st.data())
def test_batches_do_not_matter(story: NDArray[np.float64], data: st.DataObject) -> None:
    days, n = story.shape[1:]
    cut = data.draw(st.integers(0, n))
    names = [f"S{i}" for i in range(n)]
    parts = [
        (slice(None), Shop(n)),
        (slice(0, cut), Shop(cut, skus=names[:cut])),
        (slice(cut, n), Shop(n - cut, skus=names[cut:])),
    ]
    for day in range(days):
        for part, shop in parts:
            shop.day(story[0, day, part], 20.0, price=story[1, day, part])
    whole, left, right = (shop for _, shop in parts)
    for name, column in whole.rows.items():
        np.testing.assert_array_equal(column, np.concatenate((left.rows[name], right.rows[name])), err_msg=name)
    assert sorted(c.id for c in whole.changes) == sorted(c.id for s in (left, right) for c in s.changes)
    assert {c.summary for c in whole.changes} == {c.summary for s in (left, right) for c in s.changes}


@given(
    season_index=st.lists(st.one_of(st.floats(0, 1e6, width=32), st.just(float("nan"))), min_size=7, max_size=7),
    theta=st.lists(st.floats(-1e5, 1e5, width=32), min_size=7, max_size=7),
    open_next=st.lists(st.sampled_from([0.0, 0.5, 1.5]), min_size=HORIZON, max_size=HORIZON),
    integer_units=st.booleans(),
)
def test_naive_quantiles_ascend_from_zero(
    season_index: list[float], theta: list[float], open_next: list[float], integer_units: bool
) -> None:
    rows = fresh(1)
    rows["naive_theta"][0] = theta
    got = baselines.forecast(
        rows,
        np.array([season_index], np.float32),
        np.array(open_next, np.float32),
        integer_units=np.array([integer_units]),
    )
    for q in (got.quantiles, got.sums):
        assert q.dtype == np.float32
        assert np.isfinite(q).all()
        assert (q >= 0).all()
        assert (np.diff(q, axis=-1) >= 0).all()
        assert not integer_units or (q == np.rint(q)).all()
    assert not got.quantiles[0, np.array(open_next) == 0].any()


@given(
    q=st.lists(st.floats(0, 1e6, width=32), min_size=7, max_size=7).map(sorted),
    values=st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=6).map(sorted),
)
def test_trend_probabilities_fall_with_what_was_sold(q: list[float], values: list[float]) -> None:
    n = len(values)
    p = exceeds(np.repeat(np.array([q]), n, axis=0), np.array(values))
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p) <= 1e-6).all()
    mean7, usual7 = np.full(n, q[3]), np.full(n, q[2])
    got = trend(
        np.repeat(np.array([q]), n, axis=0), last7=np.array(values), mean7=mean7, usual7=usual7, price=np.ones(n)
    )
    np.testing.assert_allclose(got.usual_change_units, q[3] - q[2], rtol=1e-5, atol=1e-3)
    assert (got.direction[p >= 0.8] == 1).all()
    assert (got.direction[(p > 0.21) & (p < 0.79)] == 0).all()
    assert (np.isnan(got.change_pct) == (np.array(values) == 0)).all()


@given(st.lists(st.tuples(UNITS, UNITS, UNITS, st.booleans()), min_size=1, max_size=40))
def test_losses_are_finite_and_none_where_a_window_does_not_count(
    story: list[tuple[float, float, float, bool]],
) -> None:
    rows = fresh(1)
    for units, net, served, active in story:
        rows["next_net"][:], rows["next_served"][:] = net, served
        rows["next_naive"][:] = rows["next_plain"][:] = 1.0
        found = scoring.losses(rows, np.array([units]), active=np.array([active]))
        assert found.scored.tolist() == [active]
        for loss in found.by_source.values():
            assert np.isfinite(loss).all()
            assert (loss >= 0).all()
            assert active or not loss.any()


def test_columns_are_named_once_and_described_as_agreed() -> None:
    specs: list[Any] = [
        s for module in (tail_evidence, alerting, scoring, baselines, ew_nb, aggregation) for s in module.COLUMNS
    ]
    names = [name for name, *_ in specs]
    assert len(set(names)) == len(names)
    for name, dtype, shape, fill in specs:
        assert dtype[0] in "<|", name
        assert isinstance(shape, tuple)
        assert np.full((), fill, dtype) is not None
    assert ("naive_theta", "<f4", (len(LEVELS),), 0.0) in specs
    assert DAY_MS == 86_400_000
