"""The recurrent state of a new model, rebuilt from the windows that each SKU remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from features import closing
from features.cadence import RING, SCALE
from features.encoding import FEATURES, fingerprint
from features.grid import WindowGrid
from features.sku_state import SkuState
from inference import bundle, warm_up
from inference.pipeline import WindowPipeline, columns
from inference.session import Session
from schemas.inputs import ORDERS
from tests.support import sku_states
from tests.support.sku_states import MONDAY_MS, Order

if TYPE_CHECKING:
    from numpy.typing import NDArray

SKUS = ("a", "b", "late")
DAYS, LATE = 80, 65
OPENED = [day % 7 != 6 for day in range(DAYS - RING, DAYS)]
FAR_MS = 1 << 62


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(bundle.load(expected_fingerprint=fingerprint()), provider="cpu")


def sold(sku: str, day: int) -> int:
    """Units of a day: two SKUs of different rhythm, and one that is new on day LATE; nothing on Sundays."""
    if day % 7 == 6 or (sku == "late" and day < LATE):
        return 0
    return {"a": 3 + day % 4, "b": 5 * (day % 3), "late": 40 + day % 2}[sku]


def sell(state: SkuState, day: int) -> int:
    """Let the SKUs sell, and give the number of the window."""
    number = state.grid.number(MONDAY_MS) + day
    at = state.grid.start_ms(number) + 9
    lines = [Order(f"{day}{sku}", sku, sold(sku, day), 2.0, at) for sku in SKUS if sold(sku, day)]
    state.absorb(ORDERS, sku_states.columns(ORDERS, lines), now_ms=FAR_MS)
    return number


def test_each_window_is_shown_again_with_what_was_sold_in_it() -> None:
    state = SkuState(WindowGrid())
    shown: list[dict[str, NDArray[np.float32]]] = []
    for day in range(DAYS):
        shown.append(sku_states.close(state, sell(state, day)).vectors)
    end = state.windows.first_open
    assert end is not None
    again = warm_up.replay_inputs(state, slice(0, len(SKUS)), end, OPENED)
    assert again.shape == (RING, len(SKUS), len(FEATURES))
    exact = [FEATURES.index(name) for name in ("sold", "shop_open", "integer_units", "phase_sin", "phase_cos")]
    near = [FEATURES.index(name) for name in ("sold_log", "fast_log", "same_phase", "season_index", "season_next")]
    for at, sku in enumerate(state.table.skus):
        known = range(LATE - (DAYS - RING), RING) if sku == "late" else range(RING)
        for step in known:
            live = shown[DAYS - RING + step][sku]
            np.testing.assert_array_equal(again[step, at, exact], live[exact], err_msg=f"{sku} {step}")
            if step >= RING - 14:  # long after the statistics, which start where the ring does
                np.testing.assert_allclose(again[step, at, near], live[near], atol=0.4, err_msg=f"{sku} {step}")
    last = again[-1], np.stack([shown[-1][sku] for sku in state.table.skus])
    np.testing.assert_allclose(last[0][:, near], last[1][:, near], atol=0.15)


def test_statistics_before_the_ring_are_what_they_were() -> None:
    """Running means are taken apart: what the ring put in, and what was there before."""
    state, before = SkuState(WindowGrid()), {}
    for day in range(3 * RING):
        if day == 2 * RING:
            before = {name: state.table[name][: len(SKUS)].copy() for name in closing.NAMES}
        sku_states.close(state, sell(state, day))
    kept = {name: state.table[name][: len(SKUS)].copy() for name in closing.NAMES}
    end = state.windows.first_open
    assert end is not None
    found = warm_up.statistics_before(kept, state.grid.cadence, end)
    for name in ("age", "opens"):
        np.testing.assert_array_equal(found[name], before[name], err_msg=name)
    np.testing.assert_allclose(found["ew"][:, SCALE:], before["ew"][:, SCALE:], rtol=1e-3)
    np.testing.assert_allclose(found["ew"][:, :SCALE], before["ew"][:, :SCALE], rtol=0.8)
    for name in ("ew_square", "ew_sold"):
        np.testing.assert_allclose(found[name], before[name], rtol=1e-3, err_msg=name)


def test_the_state_is_near_the_one_of_a_model_that_was_there_all_along(session: Session) -> None:
    state = SkuState(WindowGrid(), extra_columns=columns(session))
    pipeline = WindowPipeline(state, session)
    for day in range(DAYS):
        list(pipeline.close(sell(state, day), emitted_ms=0))
    table, n = state.table, len(SKUS)
    live = {name: table[name][:n].copy() for name in ("h", "c", "next_naive")}
    table["h"][:n], table["c"][:n] = 9, -9
    pipeline.warm_up()
    for name in ("h", "c"):
        found = table[name][:n]
        off = np.abs(found - live[name]).mean(axis=(1, 2))
        usual = np.abs(live[name]).mean(axis=(1, 2))
        assert (off < 0.2 * usual).all(), f"{name}: off by {off} where {usual} is usual"
    for name in ("next_net", "next_mean"):
        assert np.isnan(table[name][:n]).all(), "what the other model expected is taken back"
    np.testing.assert_array_equal(table["next_naive"][:n], live["next_naive"], "which is no model's")


def test_a_young_sku_starts_from_nothing_where_its_life_began(session: Session) -> None:
    """Windows before it are not read as windows without a sale."""
    state = SkuState(WindowGrid(), extra_columns=columns(session))
    for day in range(DAYS):
        for chunk in state.close(sell(state, day)):
            chunk.commit()
    end, n = state.windows.first_open, len(SKUS)
    assert end is not None
    x = warm_up.replay_inputs(state, slice(0, n), end, OPENED)
    zero = np.zeros((1, session.layers, session.hidden), np.float32)
    warm_up.warm_up(state, session)
    for sku, age in (("late", DAYS - LATE), ("a", RING)):
        at = state.table.index[sku]
        h, c = session.run_replay(np.ascontiguousarray(x[RING - age :, at : at + 1]), zero, zero)
        np.testing.assert_allclose(state.table["h"][at], h[0], atol=1e-5, err_msg=sku)
        np.testing.assert_allclose(state.table["c"][at], c[0], atol=1e-4, err_msg=sku)


def test_many_skus_are_warmed_up_part_by_part(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for skus_at_once in (4_096, 2):
        monkeypatch.setattr(warm_up, "_SKUS", skus_at_once)
        state = SkuState(WindowGrid(), extra_columns=columns(session))
        for day in range(DAYS):
            for chunk in state.close(sell(state, day)):
                chunk.commit()
        warm_up.warm_up(state, session)
        states.append(state.table["h"][: len(SKUS)].copy())
    np.testing.assert_allclose(states[0], states[1], atol=1e-5)
    assert (np.abs(states[1]).max(axis=(1, 2)) > 0.01).all()


def test_before_any_window_there_is_nothing_to_warm_up(session: Session) -> None:
    state = SkuState(WindowGrid(), extra_columns=columns(session))
    warm_up.warm_up(state, session)
    assert len(state.table) == 0
