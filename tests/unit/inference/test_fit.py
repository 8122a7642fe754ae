from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from inference.training.arrays import TrainingArrays
from inference.training.crops import Timeline, born, draw
from inference.training.fit import FitResult, OtherShop, Recipe, fit
from inference.training.holdout import SeasonalNaive, measure, origins_held_out
from inference.training.loss import lead_sums, outlook_loss, pinball
from inference.training.network import Blind, Layout, Network, Outlook
from tests.support.models import CALENDAR_OF_SHOP, WEEK, weekly_shop

if TYPE_CHECKING:
    from typing import Any

pytestmark = pytest.mark.slow

K = 14
UNTIL = 130
BRIEF = Recipe(batch=16, crop_windows=40, refresh_share=0.5)


def brief_fit(arrays: TrainingArrays, *, seed: int = 1, recipe: Recipe = BRIEF) -> FitResult:
    return fit(arrays, seed=seed, until_index=UNTIL, iterations=6, recipe=recipe)


def same_weights(one: FitResult, other: FitResult) -> bool:
    states = zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in states)


def scrambled(arrays: TrainingArrays, begin: int, *names: str) -> TrainingArrays:
    """The same arrays with garbage from window `begin` on."""
    changes: dict[str, Any] = {}
    for name in names:
        value = getattr(arrays, name).copy()
        value[begin:] = ~value[begin:] if value.dtype == np.bool_ else 977.0
        changes[name] = value
    return replace(arrays, **changes)


def test_nothing_after_until_is_looked_at() -> None:
    arrays = weekly_shop()
    before = brief_fit(arrays)
    after = brief_fit(scrambled(arrays, UNTIL, "y", "x", "calendar", "nu", "season_next", "live"))
    assert same_weights(before, after)
    assert before.metrics == after.metrics
    assert not same_weights(before, brief_fit(scrambled(arrays, UNTIL - 1, "y")))


def test_the_held_out_tail_is_not_trained_on_before_it_was_measured() -> None:
    arrays, plain = weekly_shop(), replace_refresh(0.0)
    tail = UNTIL - 2 * K
    before, after = (brief_fit(a, recipe=plain) for a in (arrays, scrambled(arrays, tail, "y", "x", "nu")))
    assert same_weights(before, after)
    assert before.metrics["wql_step"] != after.metrics["wql_step"]
    assert not same_weights(before, brief_fit(scrambled(arrays, tail - 1, "y"), recipe=plain))


def replace_refresh(share: float) -> Recipe:
    return replace(BRIEF, refresh_share=share)


def test_no_target_is_both_trained_on_and_measured() -> None:
    origins = origins_held_out(horizon=K, until_index=UNTIL)
    assert len(origins) == K + 1
    first_target, last_target = origins[0] + 1, origins[-1] + K
    assert (first_target, last_target) == (UNTIL - 2 * K, UNTIL - 1)
    trained = Timeline(weekly_shop(), end=UNTIL - 2 * K)
    assert trained.last_origin.max() + K == first_target - 1


def test_a_seed_decides_the_weights_and_leaves_the_worlds_dice_alone() -> None:
    arrays = weekly_shop()
    torch.manual_seed(42)
    expected = torch.rand(3)
    torch.manual_seed(42)
    one = brief_fit(arrays)
    assert torch.equal(torch.rand(3), expected)
    assert same_weights(one, brief_fit(arrays))
    assert one.metrics == brief_fit(arrays).metrics
    assert not same_weights(one, brief_fit(arrays, seed=2))


def test_what_is_learnt_beats_seasonal_naive() -> None:
    arrays = weekly_shop(windows=180, skus=120)
    recipe = Recipe(batch=64, crop_windows=56, refresh_share=0.0)
    metrics = fit(arrays, seed=0, until_index=180, iterations=80, recipe=recipe).metrics
    for name in ("step", "sum7", "sum14"):
        assert metrics[f"wql_{name}"] < 0.95 * metrics[f"wql_{name}_seasonal_naive"]
    assert metrics["cells_step"] == 120 * (K + 1) * 12
    assert metrics["cells_sum14"] == 120 * (K + 1)


def test_progress_counts_every_iteration() -> None:
    seen: list[tuple[int, int, float]] = []
    result = fit(
        weekly_shop(), seed=0, until_index=UNTIL, iterations=4, recipe=BRIEF, progress=lambda *a: seen.append(a)
    )
    assert [(done, total) for done, total, _ in seen] == [(i, 6) for i in range(1, 7)]
    assert all(np.isfinite(loss) for *_, loss in seen)
    assert result.metrics["iterations"] == 6
    assert not result.network.training


def test_training_stops_where_the_windows_held_out_get_no_better() -> None:
    arrays = weekly_shop(windows=160, skus=8)  # so few that they are soon known by heart
    recipe = replace(BRIEF, check_every=2, patience=3, learning_rate=3e-2, refresh_share=0.0)
    seen: list[int] = []
    result = fit(
        arrays, seed=0, until_index=160, iterations=500, recipe=recipe, progress=lambda done, *_: seen.append(done)
    )
    assert result.metrics["iterations"] == seen[-1] < 500
    longer = fit(arrays, seed=0, until_index=160, iterations=seen[-1] + 100, recipe=recipe)
    assert same_weights(result, longer)


def test_other_shops_are_learnt_from_by_their_share() -> None:
    arrays = weekly_shop()
    alone = brief_fit(arrays)
    other = OtherShop(weekly_shop(seed=9), 0.5)
    both = fit(arrays, seed=1, until_index=UNTIL, iterations=6, recipe=BRIEF, others=[other])
    assert not same_weights(alone, both)
    nothing = fit(arrays, seed=1, until_index=UNTIL, iterations=6, recipe=BRIEF, others=[replace(other, share=0.0)])
    assert nothing.metrics["cells_step"] == both.metrics["cells_step"] == alone.metrics["cells_step"]


def test_what_a_network_is_blind_to_has_no_part_in_what_it_says() -> None:
    arrays = weekly_shop()
    blind = fit(arrays, seed=1, until_index=UNTIL, iterations=6, recipe=BRIEF, blind_to=Blind((2,), (1,))).network
    assert not same_weights(brief_fit(arrays), FitResult(blind, {}))
    told = torch.rand(5, CALENDAR_OF_SHOP)
    other = told.clone()
    other[:, 1] = 9.0
    x = torch.rand(6, 5, 4)
    changed = x.clone()
    changed[..., 2] = 9.0
    with torch.no_grad():
        one, same = blind(x, told.expand(6, 5, -1))[0], blind(changed, other.expand(6, 5, -1))[0]
    assert torch.equal(one.quantiles, same.quantiles)


def test_too_little_history_says_how_much_there_is() -> None:
    with pytest.raises(ValueError, match="42 windows, of which the last 28 are held out"):
        fit(weekly_shop(), seed=0, until_index=42)
    with pytest.raises(ValueError, match="only 160 windows"):
        fit(weekly_shop(), seed=0, until_index=161)
    with pytest.raises(ValueError, match="layout of 9 features"):
        fit(weekly_shop(), seed=0, until_index=160, layout=Layout(n_features=9))


def test_what_is_sold_on_a_closed_day_teaches_nothing() -> None:
    arrays = weekly_shop()
    y = arrays.y.copy()
    closed = WEEK[np.arange(arrays.windows) % 7] == 0
    y[closed] = np.where(np.isnan(y[closed]), np.nan, 500.0)
    assert same_weights(brief_fit(arrays), brief_fit(replace(arrays, y=y)))


def test_a_crop_holds_the_windows_after_each_of_its_rows() -> None:
    arrays, end = weekly_shop(), 60
    skus, starts = np.array([0, 3, 7]), np.array([20, 50, 0])
    crop = Timeline(arrays, end=end).cut(skus, starts, 30)
    for row in range(30):
        for column, (sku, start) in enumerate(zip(skus, starts, strict=True)):
            t = int(start) + row
            assert crop.origin[row, column] == (t + K < end and bool(arrays.live[min(t, end - 1), sku]))
            for step in range(1, K + 1):
                open_and_known = t < end and t + step < end and arrays.season_next[t, step - 1] > 0
                wanted = arrays.y[t + step, sku] if open_and_known else np.nan
                if t < end:
                    np.testing.assert_equal(crop.y[row, column, step - 1].item(), wanted)
            if t < end:
                assert crop.nu[row, column] == arrays.nu[t, sku]
                assert np.array_equal(crop.x[row, column], np.where(arrays.live[t, sku], arrays.x[t, sku], 0))


def test_crops_begin_at_birth_or_later_and_reach_an_origin() -> None:
    timeline = Timeline(weekly_shop(windows=200), end=180)
    generator = np.random.default_rng(0)
    drawn = [draw(timeline, generator, batch=64, length=40, newborn=0.25, shortest=28) for _ in range(20)]
    for crop in drawn:
        assert (crop.window[0] >= timeline.first_live[crop.skus]).all()
        assert crop.origin.any(dim=0).all()
    share = np.mean([born(timeline, crop).mean() for crop in drawn])
    assert 0.2 < share < 0.35
    reached = np.concatenate([crop.window[crop.origin.numpy()] for crop in drawn])
    assert reached.max() == 180 - K - 1


def test_a_sku_without_origins_is_never_drawn() -> None:
    arrays = weekly_shop()
    live = arrays.live.copy()
    live[:, 5], live[: UNTIL - 3, 6] = False, False
    timeline = Timeline(replace(arrays, live=live), end=UNTIL)
    assert not {5, 6} & set(timeline.trainable.tolist())


def test_pinball_is_the_textbook_one() -> None:
    levels = torch.tensor([0.1, 0.5, 0.9])
    quantiles = torch.tensor([1.0, 2.0, 4.0])
    loss = pinball(torch.tensor(3.0), quantiles, levels)
    assert loss.item() == pytest.approx((0.1 * 2 + 0.5 * 1 + 0.1 * 1) / 3)


def test_sums_leave_out_what_is_closed() -> None:
    values = torch.tensor([1.0, float("nan"), 2.0, 4.0])
    assert lead_sums(values, (2, 4)).tolist() == [1.0, 7.0]


def test_the_loss_counts_only_known_open_windows_of_origins() -> None:
    layout = Layout(4, CALENDAR_OF_SHOP)
    timeline = Timeline(weekly_shop(), end=100)
    crop = timeline.cut(np.arange(30), np.full(30, 60), 40)
    counts = torch.ones(crop.origin.shape, dtype=torch.bool)
    rows = int(crop.origin.sum())
    base = Outlook(torch.ones(rows, K, 7), torch.ones(rows, 2, 7), torch.ones(rows, K))
    loss = outlook_loss(base, crop, counts, layout)
    closed = (crop.season_next[crop.origin] == 0)[..., None]
    elsewhere = Outlook(torch.where(closed, 50.0, base.quantiles), base.sums, base.mean)
    assert outlook_loss(elsewhere, crop, counts, layout) == loss
    worse = Outlook(torch.where(closed, base.quantiles, 50.0), base.sums, base.mean)
    assert outlook_loss(worse, crop, counts, layout) > loss
    assert outlook_loss(Outlook(base.quantiles[:0], base.sums[:0], base.mean[:0]), crop, ~counts, layout) == 0
    both = outlook_loss(base._replace(flat=base.quantiles), crop, counts, layout)
    assert both > loss
    assert outlook_loss(base._replace(flat=elsewhere.quantiles), crop, counts, layout) == both
    assert outlook_loss(base._replace(flat=worse.quantiles), crop, counts, layout) > both


def test_a_quantile_below_its_floor_still_feels_the_way_up() -> None:
    timeline = Timeline(weekly_shop(), end=100)
    crop = timeline.cut(np.arange(5), np.full(5, 60), 1)
    sunk = torch.full((int(crop.origin.sum()), K, 7), -3.0, requires_grad=True)
    outlook = Outlook(sunk, torch.ones(len(sunk), 2, 7), torch.ones(len(sunk), K))
    torch.autograd.backward(outlook_loss(outlook, crop, crop.origin, Layout(4, CALENDAR_OF_SHOP)))
    assert sunk.grad is not None
    assert (sunk.grad <= 0).all()
    assert sunk.grad.min() < 0


def periodic(windows: int = 120) -> TrainingArrays:
    arrays = weekly_shop(windows=windows, skus=4)
    y = np.repeat((np.arange(windows) % 7 + 1)[:, None], 4, axis=1).astype(np.float32)
    closed = np.arange(windows) % 7 == 6
    y[closed] = np.nan
    return replace(arrays, y=y, live=np.ones_like(arrays.live))


def test_seasonal_naive_repeats_the_season_exactly() -> None:
    arrays, layout = periodic(), Layout(4, CALENDAR_OF_SHOP)
    quantiles, sums = SeasonalNaive(arrays, layout, until_index=120, season_length=7).at(
        np.array([100, 101]), np.array([0, 3])
    )
    for index, window in enumerate((100, 101)):
        wanted = [0.0 if (window + s) % 7 == 6 else (window + s) % 7 + 1 for s in range(1, K + 1)]
        np.testing.assert_allclose(quantiles[index], np.repeat(np.array(wanted)[:, None], 7, axis=1))
        np.testing.assert_allclose(sums[index], [[21.0] * 7, [42.0] * 7])


def test_seasonal_naive_spreads_by_its_own_past_errors() -> None:
    arrays = weekly_shop(windows=140, skus=30)
    quantiles, sums = SeasonalNaive(arrays, Layout(4, CALENDAR_OF_SHOP), until_index=140, season_length=7).at(
        np.full(30, 120), np.arange(30)
    )
    assert (np.diff(quantiles, axis=2) >= 0).all()
    assert (np.diff(sums, axis=2) >= 0).all()
    assert (quantiles >= 0).all()
    # oracle, one SKU, one step: same weekday a week ago + differences over the 84 windows before
    past = np.where(WEEK[np.arange(121) % 7] > 0, arrays.y[:121, 1], np.nan)
    differences = past[121 - 84 :] - past[121 - 84 - 7 : 121 - 7]
    wanted = past[114] + np.nanquantile(differences, 0.9)
    assert quantiles[1, 0, 5] == pytest.approx(max(0.0, wanted))


def test_measuring_serves_floored_and_whole_quantiles() -> None:
    arrays = weekly_shop()
    torch.manual_seed(3)
    network = Network(Layout(4, CALENDAR_OF_SHOP))
    found = measure(network, arrays, until_index=UNTIL, crop_length=60, season_length=7)
    with torch.no_grad():
        network.parts.bias.fill_(-100.0)
        network.parts.weight.zero_()
    silent = measure(network, arrays, until_index=UNTIL, crop_length=60, season_length=7)
    # all quantiles 0: 2 x mean pinball = 2 x mean level of what was sold
    assert silent["wql_step"] == pytest.approx(1.0, abs=1e-4)
    assert silent["wql_sum14"] == pytest.approx(1.0, abs=1e-4)
    assert found["wql_step"] < 1.0


def test_whole_units_are_inferred_from_what_was_sold_before_until() -> None:
    arrays = weekly_shop()
    y = arrays.y.copy()
    y[50, 4], y[140, 7] = 1.5, 0.25
    integer_units = replace(arrays, y=y).whole_units(until_index=UNTIL)
    assert not integer_units[4]
    assert integer_units[7]


@pytest.mark.parametrize("name", ["x", "calendar", "nu", "season_next", "live"])
def test_arrays_that_do_not_fit_are_named(name: str) -> None:
    arrays = weekly_shop()
    with pytest.raises(ValueError, match=f"{name} is "):
        replace(arrays, **{name: getattr(arrays, name)[:-1]})
