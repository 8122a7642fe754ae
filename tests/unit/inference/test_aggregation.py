"""The blend of the experts: what weighs, what is kept of the panel, and that it is hardly worse than the best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.cadence import DAY, DAY_MS, HORIZON, HOUR, HOUR_MS, LEVELS, RING, SUM_WINDOWS, cadence_of
from features.table import Column, SkuTable
from inference import aggregation
from inference.aggregation import (
    BLEND,
    EXPERTS,
    FAST,
    NAIVE,
    NET,
    PANEL,
    PLAIN,
    Aggregation,
    Pending,
    Served,
    groups_of,
)
from inference.ew_nb import Forecast
from inference.scoring import pinball, wql_parts
from inference.trend import believed
from schemas.errors import StateCorrupt
from tests.support.examples import examples

Spread = np.asarray(LEVELS, np.float32) - 0.5
COLUMNS = [Column("ring", "<f4", (RING,), fill=np.nan), Column("age", "<i4")]


def about(mean: float | NDArray[Any], rows: int, width: float = 2.0) -> Forecast:
    """The same for all steps: `mean` units, `width` more or less."""
    centre = np.broadcast_to(np.asarray(mean, np.float32), (rows,))
    step = np.maximum(centre[:, None] + width * Spread, 0)
    spans = [span * centre[:, None] + width * span**0.5 * Spread for span in SUM_WINDOWS]
    quantiles = np.concatenate([np.repeat(step[:, None], HORIZON, axis=1), np.stack(spans, axis=1)], axis=1)
    return Forecast(np.maximum(quantiles, 0).astype(np.float32), np.repeat(centre[:, None], HORIZON, axis=1))


class Shop:
    """n SKUs that sell about `level`, window by window."""

    def __init__(self, n: int, level: float = 5.0, **more: Any) -> None:  # noqa: ANN401 - of Aggregation
        self.table = SkuTable(COLUMNS)
        self.skus = [f"SKU-{sku}" for sku in range(n)]
        self.table.add(self.skus)
        self.levels, self.draw = np.full(n, level, np.float32), aggregation.draws(self.skus)
        self.blend, self.number, self.n = Aggregation(**more), 100, n

    def window(self, said: dict[int, float], sold: NDArray[Any] | None = None, *, net_ok: bool = True) -> Served:
        """Sell in a window, hold it against what was forecast, and forecast the next one."""
        self.number += 1
        units = self.levels if sold is None else sold
        self.table["ring"][: self.n, self.number % RING] = units
        self.table["age"][: self.n] += 1
        self.blend.begin(self.levels)
        served = self.blend.serve(
            self.levels,
            self.draw,
            np.full(self.n, net_ok),
            self.skus,
            np.ones(self.n, np.bool_),
            lambda expert, rows: about(said.get(expert, 50.0), len(rows)),
        )
        self.blend.end(self.number, self.table)
        return served


def test_all_begins_with_the_plain_forecast() -> None:
    served = Shop(20).window({PLAIN: 4.0})
    assert set(served.source.tolist()) == {PLAIN}
    np.testing.assert_allclose(served.quantiles, about(4.0, 20).quantiles, atol=0.001)
    np.testing.assert_array_equal(served.mean, about(4.0, 20).mean)


def test_weights_add_up_to_one_and_begin_at_the_floor() -> None:
    weights = Aggregation().weights()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert (weights[..., PLAIN] > 0.93).all()
    assert (weights >= aggregation.FLOOR).all()


def test_whoever_is_better_takes_over_and_who_is_bad_takes_no_part() -> None:
    shop = Shop(60)
    for _ in range(60):
        served = shop.window({PLAIN: 8.0, NET: 5.0})
    assert set(served.source.tolist()) == {NET}
    np.testing.assert_allclose(served.quantiles[:, 0], about(5.0, 60).quantiles[:, 0], atol=0.5)
    for _ in range(60):
        served = shop.window({PLAIN: 5.0, NET: 20.0})
    assert set(served.source.tolist()) == {PLAIN}, "a net that has become bad is left within a season or two"


def test_experts_that_are_equally_good_are_blended() -> None:
    shop, sold = Shop(100), np.where(np.arange(100) % 2, 4, 6).astype(np.float32)
    for _ in range(80):
        served = shop.window({PLAIN: 4.0, NET: 6.0}, sold)
    assert set(served.source.tolist()) == {BLEND}
    low, high = about(4.0, 1).quantiles[0, 0], about(6.0, 1).quantiles[0, 0]
    assert served.quantiles[0, 0, 0] == pytest.approx(low[0], abs=0.1), "the lower one is right about low levels"
    assert served.quantiles[0, 0, -1] == pytest.approx(high[-1], abs=0.1)
    assert 4.2 < served.mean[0, 0] < 5.8


def test_a_net_that_cannot_serve_gives_way_however_good_it_was() -> None:
    shop = Shop(30)
    for _ in range(60):
        shop.window({PLAIN: 8.0, NET: 5.0})
    served = shop.window({PLAIN: 8.0, NET: 5.0}, net_ok=False)
    assert NET not in served.source
    assert (served.quantiles[:, 0, 3] > 7.0).all()


def test_classes_learn_on_their_own() -> None:
    shop = Shop(80)
    shop.levels[:40] = 0.1
    for _ in range(60):
        shop.number += 1
        shop.table["ring"][:80, shop.number % RING] = shop.levels
        shop.table["age"][:80] += 1
        shop.blend.begin(shop.levels)
        good = lambda expert, rows: about(  # noqa: E731
            np.where((rows < 40) == (expert == FAST), shop.levels[rows], 30.0), len(rows), 0.1
        )
        served = shop.blend.serve(shop.levels, shop.draw, np.ones(80, np.bool_), shop.skus, np.ones(80, np.bool_), good)
        shop.blend.end(shop.number, shop.table)
    assert set(served.source[:40].tolist()) == {FAST}
    assert FAST not in served.source[40:]


def test_losses_are_those_of_the_definition_step_and_sum() -> None:
    shop = Shop(12)
    for _ in range(15):
        before = shop.blend.losses.copy()
        shop.window({PLAIN: 4.0, NAIVE: 9.0})
    keep = np.float32(2 ** (-1 / aggregation.HALF_LIFE))
    for group, span in ((0, 1), (3, 14), (4, 7), (5, 14)):
        sold = np.float32([5.0 * (span if group >= 4 else 1)])
        usual = about(4.0, 1).quantiles[:, [0, 2, 6, 13, 14, 15][group]].mean()
        means = [50.0, 4.0, 50.0, 50.0, 9.0]  # NET, PLAIN, FAST, WINDOWS, NAIVE
        at = [0, 2, 6, 13, 14, 15][group]
        losses = np.stack(
            [2 * pinball(sold, about(mean, 1).quantiles[:, at])[0] / max(sold, usual) for mean in means], axis=1
        )
        held = np.minimum((losses - losses.min(axis=1, keepdims=True)) * (12 / 22), 1)
        found = shop.blend.losses[group, 2]
        np.testing.assert_allclose(found, before[group, 2] * keep + held, rtol=1e-4, atol=1e-6, err_msg=str(group))
    assert not shop.blend.losses[:, :2].any(), "of other classes nothing is known"


def test_a_window_in_which_the_shop_was_closed_is_held_against_nobody() -> None:
    shop = Shop(12)
    for _ in range(5):
        shop.window({PLAIN: 4.0})
    before = shop.blend.losses.copy()
    shop.window({PLAIN: 4.0}, np.full(12, np.nan, np.float32))
    assert (shop.blend.losses[:4] <= before[:4]).all()


def test_the_panel_is_some_hundred_of_a_class_and_the_same_by_name() -> None:
    shop = Shop(5_000)
    shop.window({PLAIN: 4.0})
    shop.window({PLAIN: 4.0})
    (first,) = (pending for due, pending in shop.blend.pending.items() if due == (shop.number + 1, 0))
    assert 0.7 * PANEL < len(first.skus) < 1.3 * PANEL
    chance = PANEL / 5_000
    assert set(first.skus) == {sku.encode() for sku in shop.skus if aggregation.draws([sku])[0] < chance}
    due = sorted(shop.blend.pending)
    assert due[0][0] == shop.number + 1
    assert due[-1] == (shop.number + 14, 5)


def test_what_is_stored_goes_on_as_if_nothing_had_happened() -> None:
    dice = np.random.default_rng(3)
    sold = dice.poisson(5, (60, 50)).astype(np.float32)
    one, other = Shop(50, model="net@1"), Shop(50, model="net@1")
    kept: dict[tuple[int, int], bytes] = {}
    for day in range(60):
        said = {PLAIN: 4.0, NET: 5.0 + day % 3, NAIVE: 6.0}
        served, again = one.window(said, sold[day]), other.window(said, sold[day])
        np.testing.assert_array_equal(served.quantiles, again.quantiles)
        kept = {due: raw for due, raw in kept.items() if due[0] > other.number} | other.blend.take_fresh()
        if day % 7 == 3:
            losses, other.blend = other.blend.packed(), Aggregation(model="net@1")
            other.blend.restore(losses, iter(kept.items()))
            assert other.blend.take_fresh() == {}
            other.blend.renew()
            assert other.blend.take_fresh() == kept
    np.testing.assert_array_equal(one.blend.losses, other.blend.losses)


def test_the_order_in_which_skus_lie_changes_no_bit() -> None:
    one, other = Shop(50), Shop(50)
    other.skus = other.skus[::-1]
    other.table = SkuTable(COLUMNS)
    other.table.add(other.skus)
    other.draw = aggregation.draws(other.skus)
    sold = np.random.default_rng(4).gamma(2, 2.5, (40, 50)).astype(np.float32)
    for day in range(40):
        served = one.window({PLAIN: 4.0, NET: 5.5}, sold[day])
        again = other.window({PLAIN: 4.0, NET: 5.5}, sold[day, ::-1])
        np.testing.assert_array_equal(served.quantiles, again.quantiles[::-1])
    assert one.blend.packed() == other.blend.packed()


def test_forecasts_of_another_model_are_not_held_against_this_one() -> None:
    shop = Shop(10, model="old")
    shop.window({PLAIN: 4.0})
    blend = Aggregation(model="new")
    blend.restore(b"", iter(shop.blend.take_fresh().items()))
    assert blend.pending == {}


@pytest.mark.parametrize(
    "raw", [b"", b"\x93\x01", Pending([b"A"], np.zeros(1, np.int8), np.zeros((2, 7, 6), np.float32)).packed("m")]
)
def test_damage_is_noticed(raw: bytes) -> None:
    with pytest.raises(StateCorrupt, match="delete the state directory"):
        Aggregation(model="m").restore(b"", iter([((1, 0), raw)]))
    with pytest.raises(StateCorrupt, match="losses of experts"):
        Aggregation().restore(b"1234", iter(()))


def test_windows_that_are_crossed_leave_what_closing_each_of_them_leaves() -> None:
    one, other = Shop(10), Shop(10)
    for shop in (one, other):
        for _ in range(9):
            shop.window({PLAIN: 4.0})
        shop.table["age"][:10] = 0  # forgotten
        shop.table["ring"][:10] = np.nan
    one.blend.fade(5)
    one.blend.cross(one.number + 6)
    for _ in range(5):
        other.number += 1
        other.blend.begin(np.zeros(0, np.float32))
        other.blend.end(other.number, other.table)
    np.testing.assert_array_equal(one.blend.losses, other.blend.losses)
    assert one.blend.pending.keys() == other.blend.pending.keys()


def test_crossing_for_ages_ends() -> None:
    shop = Shop(10)
    for _ in range(9):
        shop.window({PLAIN: 4.0})
    shop.blend.fade(10**9)
    assert shop.blend.losses.max() < 1e-30


def test_hits_are_those_of_the_randomised_pit() -> None:
    dice = np.random.default_rng(8)
    quantiles = np.sort(dice.poisson(2, (400, len(LEVELS))).astype(np.float32), axis=1)
    sold = dice.poisson(2, 400).astype(np.float32)
    found = aggregation.hits(sold, quantiles)
    for y, row, hit in zip(sold, quantiles, found, strict=True):
        below = [level for level, q in zip(LEVELS, row, strict=True) if q < y]
        above = [level for level, q in zip(LEVELS, row, strict=True) if q > y]
        same = [level for level, q in zip(LEVELS, row, strict=True) if q == y]
        low, high = max(below, default=0.0), min(above, default=1.0)
        start, stop = ((low + same[0]) / 2, (same[-1] + high) / 2) if same else (low, high)
        start = 0.0 if y == 0 else start
        wanted = [min(1.0, max(0.0, (level - start) / (stop - start))) for level in LEVELS]
        np.testing.assert_allclose(hit, wanted, atol=1e-5)


def test_increases_that_do_not_come_true_are_believed_less_and_those_that_do_are_not() -> None:
    """Told: 40 or so after 35. One shop sells 35 all along, the other one as it was told."""
    told = []
    for weekly in (5.0, 5.8):
        shop = Shop(60)
        for day in range(120):
            sold = np.full(60, 5.0 if day % 14 < 7 else weekly, np.float32)
            shop.window({PLAIN: 5.8, NET: 5.8, FAST: 5.8, NAIVE: 5.8}, sold)
        told.append(believed(np.full(60, 0.9), shop.blend.belief(shop.levels))[0])
    assert 0.4 < told[0] < 0.6, "a tie is one half"
    assert told[1] > told[0]
    assert shop.blend.slopes[:2].tolist() == [1, 1], "of other classes nothing is known"
    assert shop.blend.shifts[:2].tolist() == [0, 0]


def test_a_shop_that_rises_more_often_than_it_is_told_moves_the_probability_up() -> None:
    """Told: as much as in the week before. It grows by a tenth every week."""
    shop = Shop(60)
    for day in range(200):
        level = np.float32(4.0 * 1.1 ** (day // 7 % 10))
        sold = np.full(60, level, np.float32)
        shop.window({PLAIN: float(level), NET: float(level), FAST: float(level), NAIVE: float(level)}, sold)
    assert believed(np.full(60, 0.5), shop.blend.belief(shop.levels))[0] > 0.55


def test_what_was_learnt_before_there_were_shifts_goes_on() -> None:
    before, again = Aggregation(), Aggregation()
    before.losses += 2
    before.slopes[:] = 0.5
    again.restore(before.packed()[: -before.shifts.nbytes], iter(()))
    assert (again.losses == 2).all()
    assert again.slopes.tolist() == [0.5] * 3
    assert not again.shifts.any()


def test_shares_below_levels_are_told_by_group() -> None:
    shop = Shop(20)
    assert np.isnan(shop.blend.hit_shares()).all()
    for _ in range(6):
        shop.window({PLAIN: 4.0})
    shares = shop.blend.hit_shares()
    assert np.isnan(shares[3]).all(), "nothing of two weeks has come true"
    np.testing.assert_allclose(shares[0], 0, atol=1e-6)  # 5 was sold, above all that was served
    for _ in range(30):
        shop.window({PLAIN: 6.5})
    assert (shop.blend.hit_shares()[0] > 0.5).all(), "what fades counts less"


@pytest.mark.slow
@pytest.mark.parametrize("width", [2.0, 30.0], ids=["too narrow", "too wide"])
def test_levels_become_hit_as_often_as_they_should(width: float) -> None:
    """Within a year nearer by a third at the least; of an expert that is only wrong about how sure it is."""
    shop, dice = Shop(100, 20.0), np.random.default_rng(6)
    hit, spans = [], []
    served: Served | None = None
    for day in range(400):
        sold = dice.gamma(9, 20 / 9, 100).astype(np.float32)
        if served is not None and day > 250:
            hit.append(aggregation.hits(sold, served.quantiles[:, 0]))
        shop.number += 1
        shop.table["ring"][:100, shop.number % RING], shop.table["age"][:100] = sold, day + 1
        shop.blend.begin(shop.levels)
        everybody = np.ones(100, np.bool_)
        served = shop.blend.serve(
            shop.levels, shop.draw, everybody, shop.skus, everybody, lambda _, rows: about(20.0, len(rows), width)
        )
        shop.blend.end(shop.number, shop.table)
        spans.append(sold)
    found = np.concatenate(hit).mean(axis=0)
    raw = aggregation.hits(np.concatenate(spans), about(20.0, 40_000, width).quantiles[:, 0]).mean(axis=0)
    off, was_off = np.abs(found - LEVELS), np.abs(raw - LEVELS)
    assert was_off.max() > 0.1, "else there was nothing to calibrate"
    assert off.mean() <= 0.7 * was_off.mean()
    assert (off <= was_off + 0.02).all()


@pytest.mark.slow
@examples(15)
@given(
    st.integers(0, 2**32),
    st.lists(st.floats(0.5, 3.0), min_size=5, max_size=5),
    st.floats(0.3, 20.0),
    st.integers(40, 200),
)
def test_the_blend_is_hardly_worse_than_the_best_expert(seed: int, factors: list[float], level: float, n: int) -> None:
    """Experts that are off by constant factors, after the time in which all weight was with one of them."""
    dice = np.random.default_rng(seed)
    shop, best, served_loss = Shop(n, level), np.zeros(len(EXPERTS)), 0.0
    said = {expert: level * factor for expert, factor in enumerate(factors)}
    before: Served | None = None
    for day in range(150):
        sold = dice.negative_binomial(2, 2 / (2 + level), n).astype(np.float32)
        if before is not None and day > 60:
            served_loss += float(wql_parts(sold, before.quantiles[:, 0])[0].sum())
            best += [float(wql_parts(sold, about(said[e], n).quantiles[:, 0])[0].sum()) for e in range(len(EXPERTS))]
        before = shop.window(said, sold)
    assert served_loss <= 1.02 * best.min()


@pytest.mark.parametrize(
    ("horizon", "names"),
    [
        (14, "1 2-5 6-9 10-14 sum7 sum14"),
        (24, "1 2-5 6-9 10-14 15-24 sum7 sum14 sum24"),
        (30, "1 2-5 6-9 10-14 15-24 25-30 sum7 sum14 sum24"),
        (168, "1 2-5 6-9 10-14 15-24 25-72 73-168 sum7 sum14 sum24-168"),
    ],
)
def test_all_steps_and_sums_of_a_horizon_are_of_a_group_that_one_of_them_stands_for(horizon: int, names: str) -> None:
    cadence = cadence_of(HOUR_MS, horizon)
    groups = groups_of(cadence)
    assert groups.names == tuple(names.split())
    assert len(groups.of) == cadence.outputs
    assert [groups.of[at] for at in groups.tried] == list(range(len(groups.names)))
    for group, (name, span) in enumerate(zip(groups.names, groups.spans, strict=True)):
        steps = groups.steps(name)
        assert set(groups.of[steps].tolist()) == {group}
        assert groups.is_sum(group) == name.startswith("sum")
        own = int(name.removeprefix("sum").partition("-")[0]) if groups.is_sum(group) else groups.tried[group] + 1
        assert span == own
        assert span <= RING or not groups.is_sum(group), "what was sold must still be known"
    # what waits to come true: SKUs of three classes, forecasts of all experts and what was served
    waiting = sum(groups.spans) * groups.panel * 3 * len(LEVELS) * (len(EXPERTS) + 1) * 4
    assert waiting <= 8 << 20


def test_what_was_learnt_of_another_horizon_is_left_and_what_is_cut_is_damage() -> None:
    before, now = Aggregation(HOUR), Aggregation(cadence_of(HOUR_MS, 168))
    before.losses += 1
    now.restore(before.packed(), iter([((3, 0), b"not looked at")]))
    assert not now.losses.any()
    assert not now.pending
    with pytest.raises(StateCorrupt):
        now.restore(before.packed()[:-8], iter(()))
    again = Aggregation(HOUR)
    again.restore(before.packed(), iter(()))
    assert (again.losses == 1).all()
    assert groups_of(DAY) is groups_of(cadence_of(DAY_MS))
