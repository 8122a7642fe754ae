"""What an alert says to a person at 3 a.m.: one sentence with numbers, units, money and since when.

Times are UTC and come from the milliseconds in the facts; nothing here reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

MAX_SKU: Final = 64
"""Characters of a SKU that are shown."""

MAX_SENTENCE: Final = 480

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SPANS: Final = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFacts:
    """What the sentence is made of.

    `observed`, `expected`, `interval`: units of the window for demand_spike and demand_drop; for silence, units of the
    whole run; for price_jump, prices. `impact`: money. `opened_ms`: start of the window that opened the alert.
    `since_ms`: start of the last window with a sale, -1 = unknown. `zero_run`: windows without a sale. `price_ratio`:
    price now against before, `views_ratio`: views against usual; NaN = unknown. `price_usual`: usual |ln ratio|.
    `units7`: units expected in the next 7 windows. `season`: the shop's index of the window.
    """

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
    season: float


def summary(facts: AlertFacts) -> str:
    """Return the sentence of an alert's opening, update or end; printable, at most 480 characters."""
    said = _ENDS[facts.kind](facts) if facts.status == "resolved" else _SENTENCES[facts.kind](facts)
    if facts.status == "update":
        said = f"Worse since {date(facts.opened_ms)}: {said}"
    return said if len(said) <= MAX_SENTENCE else said[: MAX_SENTENCE - 1] + "…"


def contributors(facts: AlertFacts) -> tuple[tuple[str, float], ...]:
    """Name what else was unusual: (name, value), finite values only.

    `price_ratio` and `views_ratio` against before and usual, `zero_run` in windows, `weekday_index` of the window.
    """
    found = (
        ("price_ratio", facts.price_ratio),
        ("views_ratio", facts.views_ratio),
        ("zero_run", float(facts.zero_run)),
        ("weekday_index", facts.season),
    )
    return tuple((name, round(value, 4)) for name, value in found if math.isfinite(value))


def plain(text: str, limit: int = MAX_SKU) -> str:
    r"""Make text safe to show: what cannot be printed becomes `?`, and it ends in `…` if longer than `limit`.

    >>> plain("A\n1\x1b[31m")
    'A?1?[31m'
    """
    cut = text[:limit] if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else "?" for c in cut)


def date(ms: int) -> str:
    """Format epoch milliseconds as a UTC minute; what no calendar holds stays a number.

    >>> date(1_312_329_600_000)
    '2011-08-03 00:00 UTC'
    """
    try:
        return f"{_EPOCH + timedelta(milliseconds=ms):%Y-%m-%d %H:%M} UTC"
    except OverflowError:
        return f"{ms} ms"


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
    return f"{amount} {plain(currency, 8)}".rstrip()


def count(value: float, noun: str) -> str:
    """Join number and noun, singular for exactly one.

    >>> count(1, "unit"), count(2.5, "unit"), count(0, "window")
    ('1 unit', '2.5 units', '0 windows')
    """
    return f"{number(value)} {noun}" if number(value) == "1" else f"{number(value)} {noun}s"


def span(start_ms: int, end_ms: int) -> str:
    """Length of a window in the largest unit that divides it.

    >>> span(0, 86_400_000), span(0, 90_000_000)
    ('1 day', '25 hours')
    """
    length = end_ms - start_ms
    for unit, noun in _SPANS:
        if length > 0 and length % unit == 0:
            return count(length // unit, noun)
    return f"{length} ms"


def _where(f: AlertFacts) -> str:
    length = span(f.window_start_ms, f.window_end_ms).removeprefix("1 ")
    return f"in the {length} from {date(f.window_start_ms)}"


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
        f"SKU {plain(f.sku)} sold {count(f.observed, 'unit')} {_where(f)}, {_against(f)}; "
        f"the excess is worth {money(f.impact, f.currency)}{_views(f)}."
    )


def _drop(f: AlertFacts) -> str:
    return (
        f"SKU {plain(f.sku)} sold only {count(f.observed, 'unit')} {_where(f)}, {number(f.expected)} expected "
        f"({_range(f)}, {_odds(f)}); about {money(f.impact, f.currency)} of sales are missing{_views(f)}."
    )


def _silence(f: AlertFacts) -> str:
    since = f" since the window of {date(f.since_ms)}" if f.since_ms >= 0 else ""
    return (
        f"SKU {plain(f.sku)} has sold nothing for {count(f.zero_run, 'window')}{since}, while "
        f"{count(f.expected, 'unit')} worth {money(f.impact, f.currency)} were expected ({_odds(f)}); "
        f"check that it is listed, in stock and priced right{_views(f)}."
    )


def _price(f: AlertFacts) -> str:
    ratio = f.observed / f.expected if f.expected > 0 else math.nan
    moved = f"{number(ratio)} times" if ratio >= 2 or ratio <= 0.5 else f"{100 * (ratio - 1):+.0f} %"  # noqa: PLR2004
    return (
        f"The price of SKU {plain(f.sku)} went from {money(f.expected, '')} to {money(f.observed, f.currency)} "
        f"({moved}; a usual change is {100 * math.expm1(f.price_usual):.0f} %) {_where(f)}; on the "
        f"{count(f.units7, 'unit')} expected in the next 7 windows that is {money(f.impact, f.currency)}."
    )


def _over(f: AlertFacts) -> str:
    noun = "spike" if f.kind == "demand_spike" else "drop"
    if noun == "drop" and f.zero_run > 0:  # it ended because there is nothing left to drop
        return (
            f"Over: the demand drop of SKU {plain(f.sku)} that began {date(f.opened_ms)} is a drop no more, it sells "
            f"nothing at all (for {count(f.zero_run, 'window')}); it was worth {money(f.impact, f.currency)}."
        )
    return (
        f"Over: the demand {noun} of SKU {plain(f.sku)} that began {date(f.opened_ms)} has ended; it sold "
        f"{count(f.observed, 'unit')} {_where(f)}, {number(f.expected)} expected ({_range(f)}); at its worst it was "
        f"worth {money(f.impact, f.currency)}."
    )


def _sells_again(f: AlertFacts) -> str:
    return (
        f"Over: SKU {plain(f.sku)} sells again, {count(f.observed, 'unit')} {_where(f)}; the silence reported for "
        f"{date(f.opened_ms)} was worth {money(f.impact, f.currency)}."
    )


def _price_settled(f: AlertFacts) -> str:
    return (
        f"Over: the price of SKU {plain(f.sku)} has not jumped again since {date(f.opened_ms)} and stands at "
        f"{money(f.observed, f.currency)}; the jump was worth {money(f.impact, f.currency)}."
    )


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
    "price_jump": _price_settled,
}
