"""Windows of a small shop, closed by the shipped model as a worker does it: what is served, scored, learnt, told."""

from __future__ import annotations

import numpy as np
import pytest

from features.cadence import DAY, DAY_MS, HOUR_MS, LEVELS
from features.encoding import fingerprint
from features.grid import WindowGrid
from features.sku_state import SkuState
from inference import aggregation, bundle, ew_nb, scoring
from inference.live_loss import LiveLoss
from inference.outputs import WindowOutputs
from inference.pipeline import WindowPipeline, columns
from inference.session import Session
from inference.trend import Belief, trend
from schemas.columns import ForecastColumns
from schemas.forecasts import SOURCES
from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support import sku_states
from tests.support.sku_states import MONDAY_MS, Click, Order, Price

FAR_MS = 1 << 62
SKUS = ("steady", "by weight", "weekends")


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(bundle.load(expected_fingerprint=fingerprint()), provider="cpu")


def shop(session: Session | None, grid: WindowGrid | None = None) -> WindowPipeline:
    return WindowPipeline(SkuState(grid or WindowGrid(), extra_columns=columns(session)), session)


def sold(day: int) -> dict[str, float]:
    """Units of a day: around 12 pieces, around 1.25 kg, and 6 pieces on two days of the week."""
    return {"steady": 12 + day * 7 % 5, "by weight": 1.25 + (day % 3) * 0.5, "weekends": 6 if day % 7 > 4 else 0}


def run(pipeline: WindowPipeline, units: dict[str, float], window: int, *, price: float = 2.0) -> WindowOutputs:
    """Sell in a window, and close it."""
    grid = pipeline.sku_state.grid
    number = grid.number(MONDAY_MS) + window
    at = grid.start_ms(number) + 1_000
    lines = [Order(f"{window}{sku}", sku, count, price, at) for sku, count in units.items() if count]
    pipeline.sku_state.absorb(ORDERS, sku_states.columns(ORDERS, lines), now_ms=FAR_MS)
    (outputs,) = pipeline.close(number, emitted_ms=77)
    return outputs


def days(pipeline: WindowPipeline, count: int, first: int = 0) -> list[WindowOutputs]:
    return [run(pipeline, sold(day), day) for day in range(first, first + count)]


def forecasts_of(outputs: WindowOutputs) -> ForecastColumns:
    assert outputs.forecasts is not None
    return outputs.forecasts


def row(outputs: WindowOutputs, sku: str) -> int:
    return outputs.windows.sku.index(sku)


@pytest.mark.parametrize("net_fits", [True, False])
def test_units_are_whole_where_a_sku_only_ever_sold_whole_ones_whatever_serves_it(
    session: Session, *, net_fits: bool
) -> None:
    pipeline = shop(session)
    pipeline.net_fits = net_fits
    days(pipeline, 29)
    best = aggregation.NET if net_fits else aggregation.FAST
    pipeline.aggregation.losses[:] = np.where(np.arange(len(aggregation.EXPERTS)) == best, 0, 9)
    found = forecasts_of(days(pipeline, 1, 29)[0])
    assert {SOURCES[source] for source in found.source.tolist()} == {aggregation.EXPERTS[best]}
    for values in (found.quantiles, found.sums):
        whole = np.array([(part == np.rint(part)).all() for part in values])
        assert dict(zip(found.sku, whole.tolist(), strict=True)) == {
            "steady": True, "by weight": False, "weekends": True
        }  # fmt: skip
    table = pipeline.sku_state.table
    for name in ("next_net", "next_plain", "next_naive", "next_served"):
        for sku in ("steady", "weekends"):
            values = table[name][table.index[sku]]
            np.testing.assert_array_equal(values, np.rint(values), err_msg=name)
        kept = table[name][table.index["by weight"]]
        assert (kept != np.rint(kept)).any()


def test_what_was_served_is_what_the_next_window_is_held_against(session: Session) -> None:
    """Live losses and coverage are those of the published quantiles, over the windows in which both were scored."""
    pipeline, expected = shop(session), LiveLoss()
    before: ForecastColumns | None = None
    scored = 0
    for day in range(40):
        table = pipeline.sku_state.table
        both = np.isfinite(table["next_net"][: len(table)]).all(axis=1) if day else np.zeros(0, np.bool_)
        outputs = run(pipeline, sold(day), day)
        expected.fade()
        if before is not None:
            units = outputs.windows.units[[row(outputs, sku) for sku in before.sku]]
            served = before.quantiles[:, 0]
            loss = np.where(both, scoring.wql_parts(units.astype(np.float32), served)[0], 0)
            expected.loss["served"] += float(loss.sum())
            expected.units += float(units[both].sum())
            within = (units.astype(np.float32) >= served[:, 0]) & (units.astype(np.float32) <= served[:, -1]) & both
            expected.covered += float(within.sum())
            expected.scored += float(both.sum())
            scored += int(both.sum())
        before = forecasts_of(outputs)
    assert scored > 80
    assert pipeline.live.loss["served"] == pytest.approx(expected.loss["served"], rel=1e-6)
    assert all(loss > 0 for loss in pipeline.live.loss.values())
    for name in ("units", "covered", "scored"):
        assert getattr(pipeline.live, name) == pytest.approx(getattr(expected, name), rel=1e-6), name
    assert scored == 39 + 39 + 34, "from the window after the first sale on"


def test_a_forecast_says_which_window_it_follows_and_compares_the_next_week_with_the_last(session: Session) -> None:
    pipeline = shop(session)
    days(pipeline, 29)
    slopes, shifts = pipeline.aggregation.slopes.copy(), pipeline.aggregation.shifts.copy()
    outputs = days(pipeline, 1, 29)
    found = forecasts_of(outputs[-1])
    start_ms = MONDAY_MS + 29 * DAY_MS
    assert (found.window_start_ms, found.window_end_ms) == (start_ms, start_ms + DAY_MS)
    assert found.step_starts_ms == tuple(start_ms + step * DAY_MS for step in range(1, 15))
    assert (found.step_ms, found.revision, found.emitted_ms) == (DAY_MS, 0, 77)
    assert (found.model, found.provider) == (session.model, session.provider)
    assert (found.quantile_levels, found.sum_windows) == (LEVELS, (7, 14))
    np.testing.assert_array_equal(found.actual_units, [sold(29)[sku] for sku in found.sku])
    last7 = np.array([sum(sold(day)[sku] for day in range(23, 30)) for sku in found.sku])
    table = pipeline.sku_state.table
    levels = ew_nb.levels({name: table[name][:3] for name, *_ in ew_nb.COLUMNS}, table["opens"][:3], DAY)
    kinds = aggregation.class_of(levels)
    usual7 = levels * pipeline.sku_state.season.demand(np.arange(7)).sum()
    expected = trend(
        found.sums[:, 0],
        last7=last7,
        mean7=found.mean[:, :7].sum(axis=1),
        usual7=usual7,
        price=np.full(3, 2.0),
        belief=Belief(slopes[kinds], shifts[kinds]),
    )
    np.testing.assert_array_equal(found.direction, expected.direction)
    np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-6)
    for name in ("change_pct", "change_units", "change_money", "usual_change_units", "usual_change_money"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(found.change_money, 2 * found.change_units, atol=0.01)


def test_of_many_skus_that_come_up_at_once_the_panel_is_no_larger_than_it_is_later(session: Session) -> None:
    """All of them were in it, and the record of their forecasts was larger than any topic takes."""
    pipeline = shop(session)
    crowd = {f"new {n}": 1.0 + n % 9 for n in range(4_000)}
    sizes = []
    for day in range(3):
        run(pipeline, crowd, day)
        fresh = pipeline.aggregation.take_fresh()
        sizes.append(max(map(len, fresh.values())))
        assert max(len(pending.skus) for pending in pipeline.aggregation.pending.values()) < 2 * 3 * aggregation.PANEL
    assert max(sizes) < 200_000, "bytes of a record"


def test_a_window_says_what_happened_in_it_and_to_whom(session: Session) -> None:
    pipeline = shop(session)
    days(pipeline, 10)
    at = MONDAY_MS + 10 * DAY_MS + 5_000
    state = pipeline.sku_state
    state.absorb(ORDERS, sku_states.columns(ORDERS, [Order("r", "steady", -2, 2.0, at)]), now_ms=FAR_MS)
    state.absorb(ORDERS, sku_states.columns(ORDERS, [Order("f", "steady", 3, 0.0, at)]), now_ms=FAR_MS)
    clicks = [Click("v", "steady", 0, at), Click("w", "steady", 0, at), Click("c", "steady", 1, at)]
    state.absorb(CLICKS, sku_states.columns(CLICKS, clicks), now_ms=FAR_MS)
    state.absorb(PRICES, sku_states.columns(PRICES, [Price("p", "steady", 3.5, at)]), now_ms=FAR_MS)
    outputs = run(pipeline, {"steady": 4, "by weight": 0.5}, 10)
    windows, n = outputs.windows, row(outputs, "steady")
    assert (windows.window_start_ms, windows.window_end_ms) == (MONDAY_MS + 10 * DAY_MS, MONDAY_MS + 11 * DAY_MS)
    told = {name: getattr(windows, name)[n].item() for name in ("units", "revenue", "returned_units", "free_units")}
    assert told == {"units": 4, "revenue": 8.0, "returned_units": 2, "free_units": 3}
    assert (windows.order_lines[n], windows.views[n], windows.carts[n], windows.price[n]) == (1, 2, 1, 3.5)
    assert windows.observed.all()
    eventful = dict(zip(windows.sku, outputs.eventful.tolist(), strict=True))
    assert eventful == {"steady": True, "by weight": True, "weekends": False}


def test_a_flood_of_orders_opens_an_alert_with_the_band_that_was_served(session: Session) -> None:
    pipeline, others = shop(session), {f"other {n}": 20.0 for n in range(40)}
    for day in range(35):
        before = forecasts_of(run(pipeline, sold(day) | others, day))
    flood = run(pipeline, sold(35) | others | {"steady": 400}, 35)
    n = before.sku.index("steady")
    (alert,) = [each for each in flood.alerts if each.sku == "steady"]
    assert (alert.status, alert.observed, alert.currency) == ("open", 400, "GBP")
    assert (alert.window_start_ms, alert.window_end_ms) == (MONDAY_MS + 35 * DAY_MS, MONDAY_MS + 36 * DAY_MS)
    assert alert.interval == pytest.approx((before.quantiles[n, 0, 0], before.quantiles[n, 0, -1]))
    assert alert.expected == pytest.approx(before.mean[n, 0], rel=0.35), "what was forecast, shrunk to experience"
    assert alert.impact == pytest.approx(2.0 * (400 - alert.expected), rel=1e-3)
    assert alert.p_value < 1e-6
    assert not [each for each in flood.alerts if each.sku != "steady"], "whatever else sold as usual"


def test_a_net_that_learnt_days_serves_no_hours(session: Session) -> None:
    pipeline = shop(session, WindowGrid(window_ms=HOUR_MS))
    assert not pipeline.net_fits
    found = [forecasts_of(run(pipeline, {"steady": 3 + n % 2}, n)) for n in range(20)]
    names = {SOURCES[source] for each in found for source in each.source.tolist()}
    assert names <= {"ewnb", "blend"}
    assert SOURCES[found[0].source[0]] == "ewnb", "which serves from a SKU's first window on"
    pipeline.aggregation.losses[..., aggregation.NET] = -9  # however good it was
    last = forecasts_of(run(pipeline, {"steady": 3}, 20))
    assert SOURCES[last.source[0]] != "lstm"
    pipeline.aggregation.losses[..., aggregation.NET] = 9
    assert found[-1].step_ms == HOUR_MS
    assert found[-1].mean[0, 0] > 0


def test_a_day_on_which_the_shop_is_known_to_be_closed_is_not_scored_and_judged(session: Session) -> None:
    pipeline = shop(session)
    scored = []
    for day in range(42):
        before = pipeline.expected_open
        live = pipeline.live.scored
        run(pipeline, {"steady": 12.0 + day % 2} if day % 7 < 6 else {}, day)
        scored.append(pipeline.live.scored > live)
        if day > 21:
            assert before == (day % 7 < 6), "known beforehand"
    assert scored[22:] == [day % 7 < 6 for day in range(22, 42)]


def test_without_a_model_there_are_windows_only_and_no_expectation_is_left(session: Session) -> None:
    pipeline = shop(session)
    days(pipeline, 10)
    pipeline.session = None
    outputs = run(pipeline, sold(10), 10)
    assert outputs.forecasts is None
    assert outputs.alerts == []
    np.testing.assert_array_equal(outputs.windows.units, [sold(10)[sku] for sku in outputs.windows.sku])
    table = pipeline.sku_state.table
    for name in ("next_net", "next_plain", "next_naive", "next_served", "next_mean"):
        assert np.isnan(table[name][: len(table)]).all(), name
