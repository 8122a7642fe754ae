"""The live score of a partition against all of its windows, one by one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cadence import LEVELS
from inference.live_loss import LiveLoss
from inference.live_state import LiveState
from inference.scoring import Losses

units = st.floats(0, 1e6, width=32)
cells = st.lists(st.tuples(units, units, units, st.booleans()), max_size=4)


def added(live: LiveLoss, window: list[tuple[float, float, float, bool]]) -> None:
    live.fade()
    sold, low, high, scored = (
        (np.array(column) for column in zip(*window, strict=True)) if window else [np.zeros(0)] * 4
    )
    fine = scored.astype(np.bool_)
    loss = np.where(fine, np.abs(sold - low), 0.0).astype(np.float32)
    served = np.linspace(np.minimum(low, high), np.maximum(low, high), len(LEVELS), axis=1).astype(np.float32)
    live.add(Losses(fine, {"served": loss, "lstm": loss / 2}), sold.astype(np.float64), served)


@given(st.lists(cells, max_size=8), st.integers(0, 8))
def test_it_is_the_faded_sum_over_all_windows_and_goes_on_from_what_was_stored(
    windows: list[list[tuple[float, float, float, bool]]], stored_after: int
) -> None:
    live = LiveLoss()
    for at, window in enumerate(windows):
        if at == stored_after:
            raw = msgspec.msgpack.encode(live.state())
            live = LiveLoss()
            live.restore(msgspec.msgpack.decode(raw, type=LiveState))
        added(live, window)
    weights = [2 ** (-(len(windows) - 1 - at) / 20) for at in range(len(windows))]
    scored = sum(w * sum(s for *_, s in window) for w, window in zip(weights, windows, strict=True))
    inside = sum(
        w * sum(s and min(a, b) <= y <= max(a, b) for y, a, b, s in window)
        for w, window in zip(weights, windows, strict=True)
    )
    assert live.scored == pytest.approx(scored)
    assert live.covered == pytest.approx(inside)
    assert np.isnan(live.coverage()) if scored == 0 else live.coverage() == pytest.approx(inside / scored)
    sold = sum(w * sum(y for y, *_, s in window if s) for w, window in zip(weights, windows, strict=True))
    assert live.units == pytest.approx(sold)


def test_sums_stored_by_a_build_with_other_sources_are_taken_as_far_as_they_go() -> None:
    live = LiveLoss()
    live.restore(LiveState(loss={"served": 2.0, "gone": 9.0}, units=4.0, covered=1.0, scored=2.0))
    assert live.loss == {"served": 2.0, "lstm": 0.0, "ewnb": 0.0, "seasonal_naive": 0.0}
    assert (live.wql("served"), live.coverage()) == (0.5, 0.5)
