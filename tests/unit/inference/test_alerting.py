"""The life of an alert, told as short stories of one shop."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from inference import alerting, tail_evidence
from inference.alerting import AlertRules
from streams.settings import Settings
from tests.support.judging import DAY_MS, Shop


def shop(units: float = 40.0, days: int = 60) -> Shop:
    """A shop of one SKU that has sold about `units` a day, at 5.00, and nothing odd."""
    one = Shop(1, skus=["A/1"])
    assert one.days(days, lambda day: units + day % 3, units + 1) == []
    return one


def told(changes: list[alerting.AlertChange]) -> list[tuple[str, str, str]]:
    return [(c.kind, c.status, c.severity) for c in changes]


def test_a_spike_opens_pages_and_ends_after_three_calm_windows() -> None:
    one = shop()
    (opened,) = one.day(900, 40.0)
    assert told([opened]) == [("demand_spike", "open", "page")]
    assert opened.alert_key == f"A/1/demand_spike/{60 * DAY_MS}"
    assert opened.id == f"{opened.alert_key}/{60 * DAY_MS}/open"
    assert (opened.observed, opened.expected, opened.currency) == (900, 40, "GBP")
    assert opened.impact == pytest.approx(860 * 5)
    assert opened.p_value < 1e-6
    assert opened.interval[0] < 40 < opened.interval[1]
    assert one.days(2, lambda _: 41.0, 40.0) == []
    (ended,) = one.day(40, 40.0)
    assert told([ended]) == [("demand_spike", "resolved", "page")]
    assert ended.alert_key == opened.alert_key
    assert ended.id == f"{opened.alert_key}/{63 * DAY_MS}/resolved"
    assert ended.impact == pytest.approx(opened.impact)
    assert one.days(10, lambda _: 41.0, 40.0) == []


def test_calm_starts_anew_after_a_window_that_was_not_calm() -> None:
    one = shop()
    one.day(900, 40.0)
    one.days(2, lambda _: 41.0, 40.0)
    one.day(350, 40.0)  # improbable enough not to be calm, no record
    assert one.days(2, lambda _: 41.0, 40.0) == []
    assert told(one.day(41, 40.0)) == [("demand_spike", "resolved", "page")]


def test_a_closed_shop_is_not_calm() -> None:
    one = shop()
    one.day(900, 40.0)
    for _ in range(10):
        assert one.day(0, 40.0, season_index=0.0) == []
    assert one.rows["alert_open"][0, alerting.SPIKE] == alerting.PAGE


def test_a_drop_is_reported_and_a_silence_takes_over() -> None:
    one = shop(4000.0, 250)
    (drop,) = one.day(3, 4000.0)
    assert told([drop]) == [("demand_drop", "open", "page")]
    both = one.day(0, 4000.0)
    assert told(both) == [("demand_drop", "resolved", "page"), ("silence", "open", "page")]
    assert both[1].observed == 0
    assert one.day(3, 4000.0)[0].status == "resolved"


def test_a_dead_listing_is_found_worsens_at_most_a_few_times_and_ends_with_a_sale() -> None:
    one = shop(3.0, 120)
    changes = one.days(60, lambda _: 0.0, 3.0)
    count = Counter((c.kind, c.status) for c in changes)
    assert count["silence", "open"] == 1
    assert 1 <= count["silence", "update"] <= 6
    assert set(count) == {("silence", "open"), ("silence", "update")}
    assert changes[0].window_start_ms - 119 * DAY_MS <= 10 * DAY_MS
    assert changes[0].expected == pytest.approx(4 * (changes[0].window_start_ms / DAY_MS - 119), rel=0.05)
    assert [c.p_value for c in changes] == sorted((c.p_value for c in changes), reverse=True)
    last = changes[-1].severity
    assert told(one.day(2, 3.0)) == [("silence", "resolved", last)]


def test_an_update_is_reported_when_the_class_rises() -> None:
    rules = AlertRules(update_decades=99.0)
    one = Shop(1, rules=rules)
    one.days(120, lambda day: 3.0 + day % 3, 3.0)
    changes = one.days(100, lambda _: 0.0, 3.0)
    assert told(changes) == [("silence", "open", "ticket"), ("silence", "update", "page")]
    assert changes[1].impact >= rules.page_impact


@pytest.mark.parametrize(
    ("rules", "expected"),
    [(AlertRules(min_impact=1e6), []), (AlertRules(min_age=61), []), (AlertRules(page_impact=1e6), ["ticket"])],
)
def test_what_is_cheap_or_young_is_not_told_and_what_is_not_dear_does_not_page(
    rules: AlertRules, expected: list[str]
) -> None:
    one = shop()
    one.rules = rules
    assert [c.severity for c in one.day(900, 40.0)] == expected


def test_only_a_huge_spike_of_a_young_sku_is_reported() -> None:
    assert Shop(1).day(80_000)[0].kind == "demand_spike"
    assert Shop(1).day(1_500) == []


def test_without_a_price_there_is_no_impact_and_no_alert() -> None:
    assert shop().day(900, 40.0, price=np.nan) == []


def test_a_second_spike_no_larger_than_the_last_is_no_news() -> None:
    one = shop()
    one.day(400, 40.0)
    one.days(20, lambda _: 41.0, 40.0)
    assert one.day(350, 40.0) == []


def test_a_price_jump_is_reported_with_both_prices_and_what_it_moves() -> None:
    one = shop()
    (jump,) = one.day(40, 40.0, price=0.5)
    assert told([jump]) == [("price_jump", "open", "page")]
    assert [jump.observed, jump.expected] == pytest.approx([0.5, 5.0])
    assert jump.impact == pytest.approx(4.5 * 7 * 40)
    assert jump.interval[0] < 5.0 < jump.interval[1]
    for _ in range(2):
        assert one.day(40, 40.0, price=0.5) == []
    assert told(one.day(40, 40.0, price=0.5)) == [("price_jump", "resolved", "page")]


@pytest.mark.parametrize(("price", "told_of"), [(5.9, 0), (6.0, 1), (5 / 1.19, 0), (5 / 1.21, 1)])
def test_a_price_jump_starts_at_a_fifth(price: float, told_of: int) -> None:
    assert len(shop().day(40, 40.0, price=price)) == told_of


def test_the_price_of_a_young_sku_may_move() -> None:
    one = shop(days=20)
    assert one.day(40, 40.0, price=50.0) == []


def test_the_least_impact_is_exact() -> None:
    for least, told_of in ((860 * 5 - 0.01, 1), (860 * 5 + 0.01, 0)):
        one = shop()
        one.rules = AlertRules(min_impact=least)
        assert len(one.day(901, 41.0)) == told_of


def test_kinds_of_demand_exclude_each_other_and_prices_do_not() -> None:
    one = shop(4000.0, 250)
    kinds = {c.kind for c in one.day(200_000, 4000.0, price=20.0)}
    assert kinds == {"demand_spike", "price_jump"}
    assert one.day(1, 4000.0, price=20.0) == []  # far too little, but the spike is still open


def test_columns_hold_nothing_of_an_ended_alert() -> None:
    one = shop()
    one.day(900, 40.0)
    one.days(3, lambda _: 41.0, 40.0)
    for name, _, _, fill in alerting.COLUMNS:
        assert (one.rows[name] == fill).all(), name


def test_the_rules_are_those_that_the_settings_and_the_readme_promise() -> None:
    rules = AlertRules()
    assert rules.min_impact == Settings().alert_min_impact == 50.0
    assert (rules.ticket_p, rules.page_p, rules.page_impact) == (1e-4, 1e-6, 500.0)


def test_rules_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        AlertRules().ticket_p = 1.0  # type: ignore[misc]


def ninety_percent(mean: float, windows: float, r: float) -> tuple[float, float]:
    sd = math.sqrt(mean + mean * mean / (windows * r))
    return max(0.0, mean - 1.645 * sd), mean + 1.645 * sd


def test_without_a_forecast_the_interval_is_that_of_the_law_the_window_was_held_against() -> None:
    one = shop()
    r = float(tail_evidence.dispersion(one.rows)[0])
    (spike,) = one.day(900, 40.0)
    assert spike.interval == pytest.approx(ninety_percent(40.0, 1, r))


def test_the_interval_of_a_silence_is_that_of_as_many_windows_as_it_lasts() -> None:
    one = shop(3.0, 120)
    changes: list[alerting.AlertChange] = []
    while not changes:
        r = float(tail_evidence.dispersion(one.rows)[0])
        changes = one.day(0, 3.0)
    (silence,) = changes
    windows = dict(silence.contributors)["zero_run"]
    assert windows > 1
    assert silence.interval == pytest.approx(ninety_percent(silence.expected, windows, r))


def test_what_ends_in_windows_without_a_sale_is_compared_with_one_window_and_not_with_the_silence() -> None:
    one = shop(0.0, 60)
    (spike,) = one.day(4_000, 1.0)
    changes: list[alerting.AlertChange] = []
    while not changes:
        changes = one.day(0, 1.0)
    assert told(changes) == [("demand_spike", "resolved", spike.severity)]
    assert dict(changes[0].contributors).get("zero_run", 3) >= 3
    assert (changes[0].observed, changes[0].expected) == (0, 1)
