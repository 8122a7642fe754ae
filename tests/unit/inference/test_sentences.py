"""What is said at 3 a.m."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from features.cadence import DAY_MS, HOUR_MS, MONTH_MS, WEEK_MS
from features.grid import WindowGrid
from inference import sentences
from inference.sentences import AlertFacts, contributors, summary

LONDON = "Europe/London"
SPIKE = AlertFacts(
    grid=WindowGrid(),
    kind="demand_spike",
    status="open",
    sku="85123A",
    currency="GBP",
    window_start_ms=1_312_329_600_000,
    window_end_ms=1_312_416_000_000,
    opened_ms=1_312_329_600_000,
    since_ms=1_312_243_200_000,
    zero_run=0,
    observed=2400.0,
    expected=120.0,
    interval=(80.0, 170.0),
    p_value=2.9e-8,
    impact=5700.4,
    price_ratio=1.0,
    price_usual=0.05,
    views_ratio=math.nan,
    units7=840.0,
    season_index=1.1,
)


def said(**changes: Any) -> str:  # noqa: ANN401 - whatever fields Facts has
    return summary(dataclasses.replace(SPIKE, **changes))


def test_a_spike() -> None:
    assert said() == (
        "SKU 85123A sold 2,400 units on Wednesday 3 August 2011, about 20 times the 120 expected "
        "(usual range 80 to 170, chance about 1 in 30,000,000); the excess is worth 5,700 GBP."
    )


def test_a_spike_of_what_hardly_ever_sells_is_no_ratio() -> None:
    assert "sold 1 unit on Wednesday 3 August 2011, 0.02 expected (usual range 0," in said(
        observed=1.0, expected=0.02, interval=(0.0, 0.0)
    )
    assert "the first it is known to sell" in said(expected=0.0)


def test_a_drop_with_fewer_views() -> None:
    assert said(kind="demand_drop", observed=3.0, impact=263.125, p_value=1e-12, views_ratio=0.2) == (
        "SKU 85123A sold only 3 units on Wednesday 3 August 2011, 120 expected (usual range 80 to 170, "
        "chance below 1 in a billion); about 263.12 GBP of sales are missing; views were 0.2 times usual."
    )


def test_a_silence() -> None:
    assert said(kind="silence", observed=0.0, zero_run=1, p_value=1e-5, impact=300.0) == (
        "SKU 85123A has sold nothing for 1 open day since Tuesday 2 August 2011, while 120 units worth "
        "300.00 GBP were expected (chance about 1 in 100,000); check that it is listed, in stock and priced right."
    )


def test_a_price_jump() -> None:
    assert said(kind="price_jump", observed=20.0, expected=2.0, impact=15120.0) == (
        "The price of SKU 85123A went from 2.00 to 20.00 GBP (10 times; a usual change is 5 %) on Wednesday 3 "
        "August 2011; on the 840 units expected in the next 7 days that is 15,120 GBP."
    )
    assert "(-30 %;" in said(kind="price_jump", observed=7.0, expected=10.0)


def test_worse_and_over() -> None:
    later = {"window_start_ms": 1_312_588_800_000, "window_end_ms": 1_312_675_200_000}
    assert said(status="update", **later).startswith("Worse since Wednesday 3 August 2011: SKU 85123A sold")
    over = said(status="resolved", observed=118.0, **later)
    assert over == (
        "Over: the demand spike of SKU 85123A that began on Wednesday 3 August 2011 has ended; it sold 118 units on "
        "Saturday 6 August 2011, 120 expected (usual range 80 to 170); at its worst it was worth 5,700 GBP."
    )
    assert "the demand drop of" in said(kind="demand_drop", status="resolved")
    assert "sells nothing at all (for 2 open days)" in said(kind="demand_drop", status="resolved", zero_run=2)
    assert "sells again, 1 unit on Wednesday 3 August 2011; the silence reported on Wednesday" in said(
        kind="silence", status="resolved", observed=1.0
    )
    assert "stands at 2.00 GBP" in said(kind="price_jump", status="resolved", observed=2.0)


@pytest.mark.parametrize(
    ("window_ms", "timezone", "start_ms", "expected"),
    [
        (DAY_MS, LONDON, 1_312_326_000_000, "sold 2,400 units on Wednesday 3 August 2011, about"),
        (DAY_MS, "Asia/Tokyo", 1_700_751_600_000, "sold 2,400 units on Friday 24 November 2023, about"),
        (DAY_MS, "America/New_York", 1_700_802_000_000, "sold 2,400 units on Friday 24 November 2023, about"),
        (
            HOUR_MS,
            "America/New_York",
            1_700_852_400_000,
            "sold 2,400 units on Friday 24 November 2023 from 14:00 to 15:00 (America/New_York), about",
        ),
        (WEEK_MS, LONDON, 1_312_153_200_000, "sold 2,400 units in the week from Monday 1 August 2011, about"),
        (MONTH_MS, LONDON, 1_312_153_200_000, "sold 2,400 units in August 2011, about"),
    ],
)
def test_a_window_is_reported_by_the_clock_and_calendar_of_the_shop(
    window_ms: int, timezone: str, start_ms: int, expected: str
) -> None:
    grid = WindowGrid(window_ms=window_ms, timezone=timezone)
    number = grid.number(start_ms)
    assert grid.start_ms(number) == start_ms
    assert expected in said(grid=grid, window_start_ms=start_ms, window_end_ms=grid.end_ms(number))


def test_spans_are_reported_in_the_windows_of_the_shop() -> None:
    hours = {"grid": WindowGrid(window_ms=HOUR_MS, timezone="Asia/Tokyo"), "kind": "silence", "zero_run": 11}
    assert (
        "has sold nothing for 11 open hours since Tuesday 2 August 2011 at 09:00 (Asia/Tokyo), while 120 units"
    ) in said(**hours)
    assert "expected in the next 7 weeks that" in said(grid=WindowGrid(window_ms=WEEK_MS), kind="price_jump")


@pytest.mark.parametrize("kind", ["demand_spike", "demand_drop", "silence", "price_jump"])
@pytest.mark.parametrize("status", ["open", "update", "resolved"])
def test_every_sentence_is_one_printable_line_whatever_the_numbers(kind: str, status: str) -> None:
    odd = {"sku": "\x1b[2J" + "É" * 600 + "\n", "currency": "\x00" * 9}
    for value in (0.0, 1e-300, 1.0, 1e18, 3e38, math.nan, math.inf):
        text = said(
            kind=kind,
            status=status,
            observed=value,
            expected=value,
            interval=(value, value),
            impact=value,
            units7=value,
            p_value=1e-300,
            since_ms=-1,
            opened_ms=10**18,
            **odd,
        )
        assert text.isprintable()
        assert len(text) <= sentences.MAX_SENTENCE
        assert "\\x1b[2J" in text
    assert said(kind=kind, status=status, sku="").startswith(("SKU", "The", "Over", "Worse"))


def test_contributors_are_finite_and_named() -> None:
    found = contributors(dataclasses.replace(SPIKE, zero_run=4, views_ratio=2.5))
    assert found == (("price_ratio", 1.0), ("views_ratio", 2.5), ("zero_run", 4.0), ("weekday_index", 1.1))
    assert ("views_ratio", 2.5) not in contributors(SPIKE)


def test_a_sentence_that_is_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = said()
    monkeypatch.setattr(sentences, "MAX_SENTENCE", len(whole))
    assert said() == whole
    monkeypatch.setattr(sentences, "MAX_SENTENCE", 60)
    assert said() == whole[:59] + "…"
