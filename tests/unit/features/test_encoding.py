"""The fingerprint that ties a model to its features, and the bounds of what a vector holds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from features import encoding
from features.cadence import DAY
from features.encoding import CALENDAR, FEATURES, fingerprint
from tests.support.closings import fresh, happened, step, window_context

TODAY = "0ad53262901c36b7"
"""Every bundle in use was exported for it. If it changes on purpose, the shipped bundle is trained anew."""


def features_of(rows: dict[str, Any], window: int, **facts: float) -> dict[str, float]:
    """One more window of one SKU, by feature name."""
    return dict(zip(FEATURES, step(rows, happened(**facts), window_context(window))[0].tolist(), strict=True))


def test_the_fingerprint_is_that_of_the_bundles_in_use() -> None:
    assert fingerprint() == TODAY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FEATURES", (*FEATURES, "weather")),
        ("FEATURES", FEATURES[::-1]),
        ("CALENDAR", CALENDAR[1:]),
        ("_REVISION", 5),
        ("USUAL_MULTIPLE", 10.0),
        ("HORIZON", 7),
        ("LEVELS", (0.1, 0.5, 0.9)),
        ("SUM_WINDOWS", (7,)),
        ("RING", 28),
    ],
)
def test_whatever_changes_a_vector_changes_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(encoding, name, value)
    assert fingerprint() != TODAY


def test_feature_names_are_distinct() -> None:
    assert len(set(FEATURES)) == len(FEATURES) == 36
    assert len(set(CALENDAR)) == len(CALENDAR) == 53


def test_units_are_clipped_at_twenty_scales() -> None:
    rows = fresh(1)
    for window in range(30):
        features_of(rows, window, units=2.0)
    assert features_of(rows, 30, units=1e18)["sold_log"] == pytest.approx(math.log(21))
    assert features_of(rows, 31, units=0.0, returned_units=1e18)["returned"] == pytest.approx(math.log(21))


@pytest.mark.parametrize(("price", "level"), [(1e12, 2.0), (1e-9, -2.0), (0.0, 0.0), (math.nan, 0.0), (2.5, 0.0)])
def test_price_features_are_clipped_and_zero_where_a_price_is_unknown(price: float, level: float) -> None:
    rows = fresh(1)
    for window in range(30):
        features_of(rows, window, units=1.0)
    found = features_of(rows, 30, units=1.0, price=price, price_before=2.5)
    assert found["price_level"] == pytest.approx(level, abs=1e-6)
    assert found["price_move"] == pytest.approx(level, abs=1e-6)


def test_a_season_longer_than_the_ring_has_no_earlier_phase() -> None:
    rows = fresh(1)
    for window in range(60):
        x = step(rows, happened(5.0), window_context(window, season_windows=57))
    assert x[0, FEATURES.index("same_phase")] == x[0, FEATURES.index("same_phase_earlier")] == 0
    x = step(rows, happened(5.0), window_context(60, season_windows=56))
    assert x[0, FEATURES.index("same_phase")] > 0
    assert x[0, FEATURES.index("same_phase_earlier")] == 0


def test_a_sku_that_was_not_live_a_season_ago_sold_nothing_then() -> None:
    rows = fresh(1)
    found = [features_of(rows, window, units=4.0)["same_phase"] for window in range(7)]
    assert found[:6] == [0.0] * 6
    assert found[6] > 0


@pytest.mark.parametrize(("price", "before", "move"), [(1e12, 5e-324, 2.0), (5e-324, 1e12, -2.0)])
def test_the_widest_price_move_an_order_may_tell_is_clipped_without_a_warning(
    price: float, before: float, move: float
) -> None:
    assert features_of(fresh(1), 0, units=1.0, price=price, price_before=before)["price_move"] == move


def test_other_memories_are_another_fingerprint() -> None:
    assert fingerprint(replace(DAY, memories=(2, 7, 28, 90))) != TODAY
