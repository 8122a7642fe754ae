"""Vectors of arbitrary SKUs: finite, bounded, each its own, and equal to what one would work out from the history."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cadence import RING
from features.closing import SCALE_FLOOR, WindowFacts
from features.encoding import FEATURES
from features.season import Context
from tests.support.closings import FIRST, GRID, ewma, fresh, happened, step, weighted_mean, window_context
from tests.support.examples import examples

AMOUNTS = np.array([0.0, 0.0, 0.0, 1e-300, 1e-6, 0.5, 1.0, 3.0, 1000.0, 1e9, 1e18, 1e36])  # 1e36: 1e18 lines of 1e18
PRICES = np.array([np.nan, 0.0, 5e-324, 1e-300, 1e-6, 0.5, 2.5, 1e12, 1e36])  # what was paid may be 1e30 for 1e-6 units
AGES = np.array([0, 0, 0, 1, 100, 2**30])  # windows: 2^30 minutes are 2,000 years
COUNTS = np.array([0, 0, 1, 1000, 2**31 - 1, 2**31, 2**62])


def hostile(rng: np.random.Generator, n: int) -> WindowFacts:
    """What no shop has sold."""
    return happened(
        rng.choice(AMOUNTS, n),
        price=rng.choice(PRICES, n),
        price_before=rng.choice(PRICES, n),
        views=rng.choice(COUNTS, n),
        carts=rng.choice(COUNTS, n),
        returned_units=rng.choice(AMOUNTS, n),
        free_units=rng.choice(AMOUNTS, n),
        revenue=np.zeros(n),
    )


@examples(60)
@given(
    st.integers(0, 2**32),
    st.integers(0, 6),
    st.integers(1, 90),
    st.sampled_from([1.0, 0.02, 1e9, 1e18]),
    st.sampled_from([1, 7, 24, 1440]),
)
def test_a_vector_is_finite_and_bounded_whatever_happened(
    seed: int, n: int, windows: int, prior_nu: float, season_windows: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = fresh(n)
    rows["age"][:] = rows["opens"][:] = rng.choice(AGES, n)
    rows["unsold"][:] = rows["opens"] // 2
    for window in range(windows):
        context = window_context(
            window,
            is_open=bool(rng.random() < 0.8),
            season_windows=season_windows,
            trend=rng.choice([-2.0, 0.0, 2.0]),
            index=rng.choice([0.0, 5.0]),
            season_next=rng.choice([0.0, 1.0, 5.0], 14).astype(np.float32),
        )
        x = step(rows, hostile(rng, n), context, prior_nu=prior_nu)
        assert x.shape == (n, len(FEATURES))
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert (np.abs(x) <= 22).all()


@examples(40)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 70))
def test_the_vector_of_a_sku_does_not_depend_on_its_neighbours(seed: int, n: int, windows: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(n)[: rng.integers(1, n)]
    together, apart = fresh(n), fresh(len(chosen))
    for window in range(windows):
        facts, context = hostile(rng, n), window_context(window, is_open=bool(rng.random() < 0.8))
        picked = WindowFacts(**{name: getattr(facts, name)[chosen] for name in WindowFacts.__dataclass_fields__})
        np.testing.assert_array_equal(step(together, facts, context)[chosen], step(apart, picked, context))


class Window(NamedTuple):
    """One day of one SKU."""

    units: float
    returned: float
    views: int
    carts: int
    price: float
    is_open: bool


days = st.builds(
    Window,
    st.one_of(st.just(0.0), st.integers(0, 20).map(float)),
    st.sampled_from([0.0, 0.0, 1.0, 500.0]),
    st.integers(0, 300),
    st.integers(0, 9),
    st.sampled_from([math.nan, 0.0, 1.0, 2.5, 400.0]),
    st.sampled_from([True, True, True, False]),
)


def log1p_scaled(units: float, nu: float) -> float:
    return math.log1p(min(max(units / nu, 0.0), 20.0))


def log_ratio(value: float, base: float) -> float:
    return min(max(math.log(value / base), -2.0), 2.0) if value > 0 and base > 0 else 0.0


def by_hand(past: list[Window], context: Context, *, prior_nu: float, integer_units: bool) -> dict[str, float]:
    """The features of a SKU born with the first of `past`, from all of its history."""
    now, opened = past[-1], [w.units for w in past if w.is_open]
    n = min(len(opened), 56)
    nu = max(SCALE_FLOOR, (n * weighted_mean(opened, 1 / 28) + 5 * prior_nu) / (n + 5)) if n else prior_nu
    logs = [math.log(w.price) for w in past if w.price > 0]
    usual = math.exp((27 / 28) ** (len(logs) - 1) * logs[0] + ewma(logs[1:], 1 / 28)) if logs else math.nan

    def before_next(seasons: int) -> float:
        at = len(past) - 7 * seasons
        return past[at].units if at >= 0 and past[at].is_open else 0.0

    squares = weighted_mean([x * x for x in opened], 1 / 28)
    return {
        "sold_log": log1p_scaled(now.units, nu),
        "sold": float(now.units > 0),
        "shop_open": float(now.is_open),
        "fast_log": log1p_scaled(weighted_mean(opened, 1 / 2.5), nu),
        "weekly_log": log1p_scaled(weighted_mean(opened, 1 / 7), nu),
        "slow_log": log1p_scaled(weighted_mean(opened, 1 / 90), nu),
        "sold_share": weighted_mean([float(x > 0) for x in opened], 1 / 28),
        "spread": math.log1p(min(squares / nu**2, 1e4)),
        "zero_run": math.log1p(next((i for i, x in enumerate(reversed(opened)) if x > 0), len(opened))) / 4,
        "age": math.log1p(len(opened)) / 6,
        "scale": math.log(nu) / 4,
        "season_index": context.index - 1,
        "shop_trend": context.trend,
        "same_phase": log1p_scaled(before_next(1), nu),
        "same_phase_earlier": log1p_scaled(before_next(2), nu),
        "price_level": log_ratio(now.price, usual),
        "price_move": log_ratio(now.price, past[-2].price if len(past) > 1 else math.nan),
        "views": math.log1p(now.views) - math.log1p(ewma([w.views for w in past], 1 / 14)),
        "carts": math.log1p(now.carts),
        "returned": log1p_scaled(now.returned, nu),
        "integer_units": float(integer_units),
        "phase_sin": math.sin(2 * math.pi * GRID.phase(context.number) / 7),
        "phase_cos": math.cos(2 * math.pi * GRID.phase(context.number) / 7),
        "season_next": float(context.season_next[0]) - 1,
        **own_season(past, nu, context),
    }


def own_season(past: list[Window], nu: float, context: Context) -> dict[str, float]:
    """What the last 56 windows tell of the SKU's own season; those of a story are no holidays."""
    back = [min(w.units / nu, 8.0) if w.is_open else math.nan for w in reversed(past[-56:])]
    back += [math.nan] * (56 - len(back))
    sales = [value for value in back if value > 0]
    changes = [a - b for a, b in zip(back[:-7], back[7:], strict=True) if not math.isnan(a - b)]
    square = (sum(x * x for x in changes) / 2 + 2 * (0.5 + 1 / nu)) / (len(changes) + 2)
    profile = {}
    for ahead in range(1, 8):
        usual = float(context.season_next[ahead - 1])
        seen = [(0.88 ** (k - 1), back[7 * k - ahead]) for k in range(1, 9) if not math.isnan(back[7 * k - ahead])]
        mean = (0.3 * usual + sum(w * v for w, v in seen)) / (0.3 + sum(w for w, _ in seen))
        profile[f"profile_{ahead}"] = math.log((mean + 0.05) / (usual + 0.05)) if usual > 0 else 0.0
    return {
        "size": math.log(max(sum(sales) / max(len(sales), 1), 0.05)) / 2,
        "holiday": 0.0,
        "eve": 0.0,
        "shop_slow_trend": context.slow_trend,
        "noise": math.log(min(max(math.sqrt(square), 0.02), 8.0)),
        **profile,
    }


@examples(40)
@given(st.lists(days, min_size=1, max_size=70), st.sampled_from([0.3, 1.0, 40.0]), st.booleans(), st.integers(0, 6))
def test_a_vector_is_what_one_works_out_from_the_whole_history(
    story: list[Window], prior_nu: float, integer_units: bool, born: int
) -> None:
    rows = fresh(1)
    rows["fractional"][:] = not integer_units
    for number, day in enumerate(story):
        past = story[: number + 1]
        context = window_context(born + number, is_open=day.is_open, index=1.25, trend=-0.5, slow_trend=0.25)
        context.season_next[0] = 0.75
        facts = happened(
            day.units,
            price=day.price,
            price_before=past[-2].price if number else math.nan,
            views=day.views,
            carts=day.carts,
            returned_units=day.returned,
        )
        x = step(rows, facts, context, prior_nu=prior_nu)
        want = by_hand(past, context, prior_nu=prior_nu, integer_units=integer_units)
        assert tuple(want) == FEATURES
        assert dict(zip(FEATURES, x[0].tolist(), strict=True)) == pytest.approx(want, rel=1e-3, abs=1e-3)
    assert rows["ring"].shape == (1, RING)
    assert FIRST + born + len(story) - 1 == context.number
