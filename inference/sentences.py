"""What an alert says to a person at 3 a.m.: one sentence with numbers, units, money and since when.

Days and clock times are the shop's own, and come from the milliseconds in the facts; nothing here reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from features import dates
from features.grid import WindowGrid
from schemas.printable import printable

MAX_SKU: Final = 64
"""Characters of a SKU that are shown."""

MAX_SENTENCE: Final = 480


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFacts:
    """What the sentence is made of.

    `grid`: the windows, in the time zone of the shop. `observed`, `expected`, `interval`: units of the window for
    demand_spike and demand_drop; for silence, units of the whole run; for price_jump, prices. `impact`: money.
    `opened_ms`: start of the window that opened the alert. `since_ms`: start of the last window with a sale, -1 =
    unknown. `zero_run`: windows without a sale. `price_ratio`: price now against before, `views_ratio`: views against
    usual; NaN = unknown. `price_usual`: usual |ln ratio|. `units7`: units expected in the next 7 windows.
    `season_index`: the shop's index of the window. `dormant_since_ms`: start of the window of the last event of a SKU
    that is forgotten, whose alerts end with that; -1 = it is not.
    """

    grid: WindowGrid
    kind: str
    status: str
    sku: str
    currency: str
    window_start_ms: int
    window_end_ms: int
    opened_ms: int
    since_ms: int
    zero_run: int
    observed: float
    expected: float
    interval: tuple[float, float]
    p_value: float
    impact: float
    price_ratio: float
    price_usual: float
    views_ratio: float
    units7: float
    season_index: float
    dormant_since_ms: int = -1


def summary(facts: AlertFacts) -> str:
    """Return the sentence of an alert's opening, update or end; printable, at most 480 characters."""
    if facts.dormant_since_ms >= 0:
        said = _forgotten(facts)
    else:
        said = _ENDS[facts.kind](facts) if facts.status == "resolved" else _SENTENCES[facts.kind](facts)
    if facts.status == "update":
        said = f"Worse since {dates.window(facts.grid, facts.opened_ms)}: {said}"
    return said if len(said) <= MAX_SENTENCE else said[: MAX_SENTENCE - 1] + "…"


def contributors(facts: AlertFacts) -> tuple[tuple[str, float], ...]:
    """Name what else was unusual: (name, value), finite values only.

    `price_ratio` and `views_ratio` against before and usual, `zero_run` in windows, `weekday_index` of the window.
    """
    found = (
        ("price_ratio", facts.price_ratio),
        ("views_ratio", facts.views_ratio),
        ("zero_run", float(facts.zero_run)),
        ("weekday_index", facts.season_index),
    )
    return tuple((name, round(value, 4)) for name, value in found if math.isfinite(value))


def number(value: float) -> str:
    """Three significant digits, whole from 100 on, thousands grouped.

    >>> number(0.12345), number(12.0), number(1234.5)
    ('0.123', '12', '1,234')
    """
    if not math.isfinite(value):
        return "?"
    if abs(value) >= 1e15:  # noqa: PLR2004 - from here on digits are noise
        return f"{value:.3g}"
    if abs(value) >= 100 or value == round(value):  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else "0"  # noqa: PLR2004


def money(value: float, currency: str) -> str:
    """Amount with two decimals below 1,000, and its currency if known.

    >>> money(12.5, "GBP"), money(12345.6, "")
    ('12.50 GBP', '12,346')
    """
    if not math.isfinite(value):
        amount = "?"
    elif abs(value) >= 1e15:  # noqa: PLR2004
        amount = f"{value:.3g}"
    else:
        amount = f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004
    return f"{amount} {printable(currency, 8)}".rstrip()


def count(value: float, noun: str) -> str:
    """Join number and noun, singular for exactly one.

    >>> count(1, "unit"), count(2.5, "unit"), count(0, "unit")
    ('1 unit', '2.5 units', '0 units')
    """
    return f"{number(value)} {noun}" if number(value) == "1" else f"{number(value)} {noun}s"


def _where(f: AlertFacts) -> str:
    return dates.during(f.grid, f.window_start_ms, f.window_end_ms)


def _windows(f: AlertFacts, count_: float, adjective: str = "") -> str:
    return dates.windows(f.grid, number(count_), adjective=adjective)


def _sku(f: AlertFacts) -> str:
    return printable(f.sku, MAX_SKU)


def _range(f: AlertFacts) -> str:
    low, high = (number(v) for v in f.interval)
    return f"usual range {low}" if low == high else f"usual range {low} to {high}"


def _odds(f: AlertFacts) -> str:
    if f.p_value <= 1e-9:  # noqa: PLR2004
        return "chance below 1 in a billion"
    return f"chance about 1 in {number(float(f'{1.0 / f.p_value:.1g}'))}"


def _against(f: AlertFacts) -> str:
    if f.expected <= 0:
        return f"the first it is known to sell ({_odds(f)})"
    if f.expected < 1:  # a ratio to a fraction of a unit says little
        return f"{number(f.expected)} expected ({_range(f)}, {_odds(f)})"
    times = number(f.observed / f.expected)
    return f"about {times} times the {number(f.expected)} expected ({_range(f)}, {_odds(f)})"


def _views(f: AlertFacts) -> str:
    return f"; views were {number(f.views_ratio)} times usual" if math.isfinite(f.views_ratio) else ""


def _spike(f: AlertFacts) -> str:
    return (
        f"SKU {_sku(f)} sold {count(f.observed, 'unit')} {_where(f)}, {_against(f)}; "
        f"the excess is worth {money(f.impact, f.currency)}{_views(f)}."
    )


def _drop(f: AlertFacts) -> str:
    return (
        f"SKU {_sku(f)} sold only {count(f.observed, 'unit')} {_where(f)}, {number(f.expected)} expected "
        f"({_range(f)}, {_odds(f)}); about {money(f.impact, f.currency)} of sales are missing{_views(f)}."
    )


def _silence(f: AlertFacts) -> str:
    since = f" since {dates.window(f.grid, f.since_ms)}" if f.since_ms >= 0 else ""
    return (
        f"SKU {_sku(f)} has sold nothing for {_windows(f, f.zero_run, 'open')}{since}, while "
        f"{count(f.expected, 'unit')} worth {money(f.impact, f.currency)} were expected ({_odds(f)}); "
        f"check that it is listed, in stock and priced right{_views(f)}."
    )


def _price(f: AlertFacts) -> str:
    ratio = f.observed / f.expected if f.expected > 0 else math.nan
    moved = f"{number(ratio)} times" if ratio >= 2 or ratio <= 0.5 else f"{100 * (ratio - 1):+.0f} %"  # noqa: PLR2004
    return (
        f"The price of SKU {_sku(f)} went from {money(f.expected, '')} to {money(f.observed, f.currency)} "
        f"({moved}; a usual change is {100 * math.expm1(f.price_usual):.0f} %) {_where(f)}; on the "
        f"{count(f.units7, 'unit')} expected in the next {_windows(f, 7)} that is {money(f.impact, f.currency)}."
    )


def _over(f: AlertFacts) -> str:
    if f.kind == "demand_drop" and f.zero_run > 0:  # it ended because there is nothing left to drop
        return (
            f"Over: the demand drop of SKU {_sku(f)} that began {dates.at_start(f.grid, f.opened_ms)} is a drop no "
            f"more, it sells nothing at all (for {_windows(f, f.zero_run, 'open')}); it was worth "
            f"{money(f.impact, f.currency)}."
        )
    return (
        f"Over: the {_NOUNS[f.kind]} of SKU {_sku(f)} that began {dates.at_start(f.grid, f.opened_ms)} has ended; it "
        f"sold {count(f.observed, 'unit')} {_where(f)}, {number(f.expected)} expected ({_range(f)}); at its worst it "
        f"was worth {money(f.impact, f.currency)}."
    )


def _sells_again(f: AlertFacts) -> str:
    return (
        f"Over: SKU {_sku(f)} sells again, {count(f.observed, 'unit')} {_where(f)}; the silence reported "
        f"{dates.at_start(f.grid, f.opened_ms)} was worth {money(f.impact, f.currency)}."
    )


def _price_stable(f: AlertFacts) -> str:
    return (
        f"Over: the price of SKU {_sku(f)} has not jumped again since {dates.window(f.grid, f.opened_ms)} and stands "
        f"at {money(f.observed, f.currency)}; the jump was worth {money(f.impact, f.currency)}."
    )


def _forgotten(f: AlertFacts) -> str:
    return (
        f"Over: SKU {_sku(f)} has had no event since {dates.window(f.grid, f.dormant_since_ms)} and is watched no "
        f"more; the {_NOUNS[f.kind]} reported {dates.at_start(f.grid, f.opened_ms)} was worth "
        f"{money(f.impact, f.currency)}."
    )


_NOUNS: Final = {
    "demand_spike": "demand spike",
    "demand_drop": "demand drop",
    "silence": "silence",
    "price_jump": "price jump",
}
_SENTENCES: Final[dict[str, Callable[[AlertFacts], str]]] = {
    "demand_spike": _spike,
    "demand_drop": _drop,
    "silence": _silence,
    "price_jump": _price,
}
_ENDS: Final[dict[str, Callable[[AlertFacts], str]]] = {
    "demand_spike": _over,
    "demand_drop": _over,
    "silence": _sells_again,
    "price_jump": _price_stable,
}
