"""What a conversion found: how much became events, what did not and why, and what looks wrong about the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from features import dates
from schemas.inputs import BY_NAME, InputName
from schemas.printable import printable
from streams.intake.mapper import LeftOut

_SHOWN: Final = 3
_CENTS_FROM: Final = 50.0  # a price so many times another one of the same SKU is no discount
_QUOTED: Final = 60


class Reason(NamedTuple):
    """How many records were left out for a reason, where the first one stands, and what was said of it."""

    times: int
    place: str
    detail: str
    is_error: bool


@dataclass
class Skus:
    """What is known of SKUs: the lowest and highest price of each, and their spellings."""

    prices: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, sku: str, price: float | None) -> None:
        """Take a price above zero in, or that the SKU is there."""
        low, high = self.prices.get(sku, (np.inf, 0.0))
        if price is not None and price > 0:
            low, high = min(low, price), max(high, price)
        self.prices[sku] = (low, high)

    def leaps(self) -> list[str]:
        """Name SKUs of which one price is many times another: cents among whole money, say."""
        return [sku for sku, (low, high) in self.prices.items() if high >= _CENTS_FROM * low > 0]

    def alike(self) -> list[tuple[str, ...]]:
        """Give groups of SKUs that differ only by case, blanks or leading zeros."""
        groups: dict[str, list[str]] = {}
        for sku in self.prices:
            groups.setdefault("".join(sku.casefold().split()).lstrip("0"), []).append(sku)
        return [tuple(sorted(group)) for group in groups.values() if len(group) > 1]


@dataclass
class Report:
    """What became of some files. now_ms: what counts as the future."""

    now_ms: int
    records: int = 0
    events: Counter[InputName] = field(default_factory=Counter)
    reasons: dict[str, Reason] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None
    future: int = 0
    returned: int = 0
    duplicates: int = 0
    currencies: Counter[str] = field(default_factory=Counter)
    skus: Skus = field(default_factory=Skus)
    notes: list[str] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)

    def leave_out(self, file: str, left: LeftOut) -> None:
        """Count a record, or part of one, that is no event."""
        known = self.reasons.get(left.reason)
        if known is None:
            self.reasons[left.reason] = Reason(1, f"{file}, {left.place}", left.detail, left.is_error)
        else:
            self.reasons[left.reason] = known._replace(times=known.times + 1)

    def add(self, kind: InputName, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take events in; rows as Mapper makes them."""
        at = BY_NAME[kind].places
        self.events[kind] += len(rows)
        times = [row[at["event_time_ms"]] for row in rows]
        if times:
            self.first_ms = min(times) if self.first_ms is None else min(self.first_ms, *times)
            self.last_ms = max(times) if self.last_ms is None else max(self.last_ms, *times)
            self.future += sum(time > self.now_ms for time in times)
        price = at.get("unit_price", at.get("price"))
        for row in rows:
            self.skus.add(row[at["sku"]], None if price is None else row[price])
        if "currency" in at:
            self.currencies.update(row[at["currency"]] for row in rows)
        if "quantity" in at:
            self.returned += sum(row[at["quantity"]] < 0 for row in rows)

    @property
    def left_out(self) -> int:
        """Count what is no event, for whatever reason."""
        return sum(reason.times for reason in self.reasons.values())

    @property
    def share_of_errors(self) -> float:
        """Give the share of what should have been events that something is wrong with."""
        wrong = sum(reason.times for reason in self.reasons.values() if reason.is_error)
        total = wrong + self.events.total()
        return wrong / total if total else 0.0

    def lines(self, timezone: str = "UTC") -> Iterator[str]:
        """Say all of it, for a person."""
        made = ", ".join(f"{count:,} {kind}" for kind, count in self.events.items()) or "no events"
        yield f"{self.records:,} records: {made}" + (f" ({self.returned:,} returns)" if self.returned else "")
        if self.first_ms is not None and self.last_ms is not None:
            first, last = (dates.short_day(each, timezone) for each in (self.first_ms, self.last_ms))
            count = len(self.skus.prices)
            yield f"from {first} to {last}, {count:,} SKU{'s' if count != 1 else ''}"
        if self.currencies:
            yield "currencies: " + ", ".join(f"{name} {count:,}" for name, count in self.currencies.most_common())
        if self.duplicates:
            yield f"{self.duplicates:,} events were there twice and were taken once"
        yield from self.lines_left_out()
        yield from self._suspicious()
        yield from self.notes
        yield from self.lines_to_know()

    def lines_to_know(self) -> Iterator[str]:
        """Say what the mapping wants to be known of the records."""
        for says, count in self.noted.most_common():
            yield f"to know ({count:,} times): {says}"

    def lines_left_out(self) -> Iterator[str]:
        """Say what was left out and why, most of it first."""
        for reason, found in sorted(self.reasons.items(), key=lambda each: -each[1].times):
            said = f": {found.detail}" if found.detail else ""
            yield f"left out {found.times:,}: {reason} (first {found.place}{said})"

    def _suspicious(self) -> Iterator[str]:
        if self.future:
            yield f"suspicious: {self.future:,} events lie in the future, which a worker refuses"
        if len(self.currencies) > 1:
            yield "suspicious: more than one currency; set SKUTREND_CURRENCY and SKUTREND_RATES, or convert apart"
        if leaps := self.skus.leaps():
            named = ", ".join(printable(sku, _QUOTED) for sku in leaps[:_SHOWN])
            yield (
                f"suspicious: {len(leaps):,} SKUs have prices {_CENTS_FROM:.0f} times apart, such as {named}: "
                "some in cents, perhaps"
            )
        if alike := self.skus.alike():
            named = "; ".join(" and ".join(printable(repr(sku), _QUOTED) for sku in group) for group in alike[:_SHOWN])
            yield f"suspicious: {len(alike):,} groups of SKUs differ only by case, blanks or leading zeros: {named}"
