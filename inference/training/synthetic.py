"""Shops that never were: what a network for unknown shops learns from beside real sales.

A synthetic shop is drawn from a seed: demand (of what is weighed: sales, each of a weight) is negative binomial about a
mean that is a product of the SKU's level, the shop's weekdays and its year, slow random trends of the shop and
of the SKU, holidays of its country and their eves, and price promotions by an elasticity. SKUs are launched and
delisted, run out of stock, and sell in packs; shops close on some weekdays and holidays. Shops differ in all of that,
most in how fast they sell and how regularly, because a network that has only seen slow goods believes in nothing else.

`remixed` makes further SKUs of real ones instead: a few at a time as one, every so many order lines of it, in packs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from features.cadence import DAY_MS
from features.grid import WindowGrid
from features.known_days import known
from schemas.columns import OrderColumns, PriceColumns
from schemas.inputs import INPUT_NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from features.admission import Columns

Kind = Literal["restless", "regular", "weighed"]
KINDS: Final = get_args(Kind)
"""Goods that sell now and then; supermarkets, and sums of many goods, of little noise and much season; what is sold by
weight."""

COUNTRIES: Final = ("GB", "US", "DE", "FR", "CN", "")
FIRST_DAY: Final = datetime(2017, 1, 1, tzinfo=UTC)
NOON_MS: Final = DAY_MS // 2
CURRENCY: Final = "EUR"
ORDERS, PRICES = INPUT_NAMES.index("orders"), INPUT_NAMES.index("price-changes")
_MOST_UNITS: Final = 20_000.0
_CLOSE_ON_HOLIDAYS, _WEIGH_REGULARLY = 0.6, 0.7  # shares of shops


@dataclass(frozen=True)
class SyntheticShop:
    """Events, {input: columns}, and the grid of their windows, which knows the shop's country."""

    grid: WindowGrid
    events: dict[int, Columns]


def shop(seed: int, *, kind: Kind, skus: int = 400, days: int = 540) -> SyntheticShop:
    """Draw a shop of `skus` SKUs over `days` days; the same seed gives the same events."""
    rng = np.random.default_rng(seed)
    country = str(rng.choice(COUNTRIES))
    grid = WindowGrid(country=country)
    first = grid.number(int((FIRST_DAY + timedelta(days=int(rng.integers(0, 365)))).timestamp() * 1000))
    calendar = [known(grid, first + day) for day in range(days)]
    phase = np.array([grid.phase(first + day) for day in range(days)])
    year = np.array([day.year for day in calendar])
    holiday, eve = (np.array([getattr(day, name) for day in calendar]) for name in ("holiday", "eve"))

    closed_phases = _closed_phases(rng)
    is_open = ~np.isin(phase, closed_phases)
    if rng.random() < _CLOSE_ON_HOLIDAYS:
        is_open &= holiday < 1
    regular = kind == "regular" or (kind == "weighed" and rng.random() < _WEIGH_REGULARLY)
    shop_day = _weekdays(rng, strength=rng.uniform(0.1, 0.5))[phase]
    shop_day = shop_day * _season(rng, year, strength=rng.uniform(0.0, 0.4)) * _trend(rng, 1, days, 0.01)[0]
    shop_day = shop_day * np.exp(rng.normal(0.2, 0.25) * eve + rng.normal(0, 0.25) * holiday)

    center, width = (rng.uniform(0.5, 4.5), rng.uniform(0.5, 1.2)) if regular else (rng.uniform(-2.5, 1.5), 1.2)
    level = np.exp(rng.normal(center, width, skus)).clip(0.02, 500)
    mean = level[:, None] * shop_day
    mean *= np.stack([_weekdays(rng, strength=0.12)[phase] for _ in range(skus)])
    mean *= np.stack([_season(rng, year, strength=abs(rng.normal(0, 0.35))) for _ in range(skus)])
    mean *= _trend(rng, skus, days, rng.uniform(0.003, 0.03) if regular else rng.uniform(0.01, 0.08))
    price, cut = _prices(rng, skus, days)
    mean *= np.exp(rng.uniform(1.0, 4.0, (skus, 1)) * cut)
    mean *= _on_sale(rng, skus, days, share=rng.choice([0.0, 0.3, 1.0]))
    mean *= is_open

    size = np.exp(rng.normal(rng.uniform(1.5, 4.5) if regular else 0.3, 0.7, (skus, 1)))
    noisy = mean * rng.gamma(np.broadcast_to(size, mean.shape)) / size
    units: NDArray[np.float64]
    if kind == "weighed":
        each = np.exp(rng.normal(-0.7, 0.4, (skus, 1)))
        sales = rng.poisson(np.minimum(noisy / each, _MOST_UNITS))
        weight = rng.gamma(np.maximum(4.0 * sales, 1.0)) * each / 4.0
        units = np.where(sales > 0, weight.round(3), 0.0).astype(np.float64)
    else:
        packs = np.where(rng.random((skus, 1)) < (0.1 if regular else 0.4), rng.choice([2, 4, 6, 12], (skus, 1)), 1)
        units = rng.poisson(np.minimum(noisy / packs, _MOST_UNITS)).astype(np.float64) * packs
    return SyntheticShop(grid, _events(grid, first, np.minimum(units, _MOST_UNITS), price, cut))


def remixed(orders: OrderColumns, seed: int, *, skus: int = 400, most_lines: int = 400_000) -> OrderColumns:
    """Make order lines of `skus` SKUs of real ones (at most about `most_lines`): sums of some, thinned, in packs."""
    rng = np.random.default_rng(seed)
    names, of = np.unique(np.asarray(orders.sku), return_inverse=True)
    sold = (orders.quantity > 0) & (orders.unit_price > 0)
    rows = np.flatnonzero(sold)
    by_sku = np.split(rows[np.argsort(of[rows], kind="stable")], np.cumsum(np.bincount(of[rows], minlength=len(names))))
    parts, labels, packs, lines = [], [], [], 0
    for new in range(skus):
        members = rng.integers(0, len(names), int(rng.choice([1, 1, 3, 10, 40])))
        taken = np.concatenate([by_sku[member] for member in members])
        taken = taken[rng.random(len(taken)) < rng.choice([1.0, 0.5, 0.2, 0.1])]
        parts.append(taken)
        labels.append(np.full(len(taken), new))
        packs.append(np.full(len(taken), rng.choice([1.0, 1.0, 2.0, 6.0])))
        lines += len(taken)
        if lines >= most_lines:
            break
    taken, label, pack = (np.concatenate(each) for each in (parts, labels, packs))
    order = np.argsort(orders.event_time_ms[taken], kind="stable")
    taken, label, pack = taken[order], label[order], pack[order]
    return OrderColumns(
        row=np.arange(len(taken), dtype=np.int32),
        event_id=[f"remixed-{row}" for row in range(len(taken))],
        sku=[f"remixed-{sku}" for sku in label.tolist()],
        quantity=orders.quantity[taken] * pack,
        unit_price=orders.unit_price[taken],
        event_time_ms=orders.event_time_ms[taken],
        currency=[orders.currency[row] for row in taken.tolist()],
    )


def _closed_phases(rng: np.random.Generator) -> list[int]:
    """Choose the weekdays on which a shop is closed: none, Sunday, the weekend, or another one."""
    kind = rng.choice(4, p=[0.6, 0.2, 0.1, 0.1])
    return [[], [6], [5, 6], [int(rng.integers(0, 7))]][int(kind)]


def _weekdays(rng: np.random.Generator, *, strength: float) -> NDArray[np.float64]:
    """Draw an index of the weekdays, (7,), whose mean is one: a weekend, and what differs from day to day."""
    weekend = np.array([0, 0, 0, 0, 0.5, 1, 1]) * rng.normal(0, 1.5)
    index = np.exp(strength * (weekend + rng.normal(0, 0.4, 7)))
    return np.asarray(index / index.mean())


def _season(rng: np.random.Generator, year: NDArray[np.float64], *, strength: float) -> NDArray[np.float64]:
    """Draw a year, (days,): one or two waves, and for some a rise towards a date."""
    wave = np.sin(2 * np.pi * (year - rng.random())) + 0.4 * np.sin(4 * np.pi * (year - rng.random()))
    peak = rng.choice([0.96, rng.random()])
    away = (peak - year) % 1.0
    rise = np.exp(-away / 0.06) * rng.choice([0.0, 2.0], p=[0.7, 0.3])
    return np.asarray(np.exp(strength * (0.7 * wave + rise)))


def _trend(rng: np.random.Generator, skus: int, days: int, step: float) -> NDArray[np.float64]:
    """Draw slow random trends, (skus, days): log-levels that wander and come back."""
    steps = rng.normal(0, step, (skus, days))
    level = np.zeros((skus, days))
    level[:, 0] = rng.normal(0, step * 5, skus)
    for day in range(1, days):
        level[:, day] = 0.99 * level[:, day - 1] + steps[:, day]
    return np.asarray(np.exp(level))


def _on_sale(rng: np.random.Generator, skus: int, days: int, *, share: float) -> NDArray[np.float64]:
    """Draw when SKUs can be bought, 0 or 1 (skus, days): launches, ends, and stock that runs out, for some of them."""
    on_sale = np.ones((skus, days))
    day = np.arange(days)
    launched = np.where(rng.random(skus) < 0.4 * share, rng.integers(0, int(0.8 * days), skus), 0)
    ended = np.where(rng.random(skus) < 0.3 * share, rng.integers(int(0.2 * days), days, skus), days)
    on_sale[(day < launched[:, None]) | (day >= ended[:, None])] = 0
    for sku in np.flatnonzero(rng.random(skus) < 0.4 * share).tolist():
        for _ in range(int(rng.integers(1, 4))):
            start = int(rng.integers(0, days))
            on_sale[sku, start : start + int(rng.integers(3, 40))] = 0
    return on_sale


def _prices(rng: np.random.Generator, skus: int, days: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw usual prices (skus,), and by how much ln(price) is below them on each day (skus, days)."""
    price = np.round(np.exp(rng.normal(1.5, 1.0, skus)), 2).clip(0.1)
    cut = np.zeros((skus, days))
    for sku in np.flatnonzero(rng.random(skus) < rng.uniform(0, 0.5)).tolist():
        for _ in range(int(rng.integers(1, 8))):
            start = int(rng.integers(0, days))
            cut[sku, start : start + int(rng.integers(2, 15))] = -np.log(1 - rng.uniform(0.05, 0.4))
    return price, cut


def _events(
    grid: WindowGrid,
    first: int,
    units: NDArray[np.float64],
    price: NDArray[np.float64],
    cut: NDArray[np.float64],
) -> dict[int, Columns]:
    """Lay the days out as events: an order line a SKU and day at noon, a price change where a price changes."""
    days = units.shape[1]
    starts_ms = np.array([grid.start_ms(first + day) for day in range(days)], np.int64)
    paid = np.round(price[:, None] * np.exp(-cut), 2).clip(0.01)
    day, sku = np.nonzero(units.T)
    orders = OrderColumns(
        **_named("o", sku), quantity=units[sku, day], unit_price=paid[sku, day], event_time_ms=starts_ms[day] + NOON_MS
    )
    moved = np.zeros_like(paid, dtype=bool)
    moved[:, 1:] = paid[:, 1:] != paid[:, :-1]
    day, sku = np.nonzero(moved.T)
    prices = PriceColumns(**_named("p", sku), price=paid[sku, day], event_time_ms=starts_ms[day] + 1)
    return {ORDERS: orders, PRICES: prices}


def _named(prefix: str, sku: NDArray[np.intp]) -> dict[str, Any]:
    """Give the columns that all events with money have, of SKUs (n,) by number."""
    return {
        "row": np.arange(len(sku), dtype=np.int32),
        "event_id": [f"{prefix}{at}" for at in range(len(sku))],
        "sku": [f"s{at}" for at in sku.tolist()],
        "currency": [CURRENCY] * len(sku),
    }
