"""The one currency in which a shop's money is told, and what money in another one is worth in it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import OrderColumns, PriceColumns
from schemas.errors import BadSetting, StateMismatch

MAX_RATE: Final = 1e12
_CODE: Final = re.compile(r"[A-Z]{3}|[a-z]{3}")
_OTHER: Final = "no currency code"
_LEAST: Final = float(np.finfo(np.float64).tiny)


def currency_code(text: str) -> str:
    """Give the ISO 4217 code that a text stands for, "" for none: its three letters in upper case or in lower case.

    Mixed ones stand for none: GBp is a penny.

    >>> currency_code("GBP"), currency_code("gbp"), currency_code("GBp"), currency_code("pound")
    ('GBP', 'GBP', '', '')
    """
    return text.upper() if _CODE.fullmatch(text) else ""


@dataclass
class ShopCurrency:
    """What the partitions of one worker, or a run over event files, take the shop's money to be in.

    code: upper case; "" while unknown: then the first record names it whose currency has no rate. rates: by code, what
    one unit is worth in the shop's currency, above 0 and up to `MAX_RATE`. left_out: refused records by currency.
    `BadSetting` where `rates` contradict `code`.
    """

    code: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    is_set: bool = field(init=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        """Note whether the settings name the currency."""
        self.is_set = bool(self.code)
        own = self.rates.get(self.code, 1.0)
        if own != 1:
            msg = f"SKUTREND_RATES has {self.code} = {own:g}, but SKUTREND_CURRENCY is {self.code} itself: take it out"
            raise BadSetting(msg)

    def agree(self, stored: str, *, where: str) -> str:
        """Take over the currency of a stored state and give its code, "" for none; `StateMismatch` if ours is another.

        Partitions are restored in threads; each of them that knew no currency took that of the first record it saw.
        """
        code = currency_code(stored)
        with self._lock:
            if code and not self.code:
                self.code = code
            if not code or code == self.code:
                return code
        ours = f"SKUTREND_CURRENCY is {self.code}" if self.is_set else f"other partitions have theirs in {self.code}"
        msg = (
            f"the state in {where} has its money in {code}, {ours}: set SKUTREND_CURRENCY to the shop's currency (and "
            "SKUTREND_RATES to a file of rates for others) on all workers; where that is not what the state has, start "
            "with a new SKUTREND_GROUP, so that the inputs are read again"
        )
        raise StateMismatch(msg)

    def worth(self, codes: Sequence[str], keep: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """Say what one unit of each record's money is worth, (n,), NaN where nobody says; None: all is the shop's.

        codes: currencies, (n,). keep: which records count, (n,): only these may name the shop's currency.
        """
        if not self.code:
            self._learn(codes[row] for row in np.flatnonzero(keep).tolist())
        if codes.count(self.code) == len(codes):
            return None
        factors = {text: self._factor(currency_code(text)) for text in set(codes)}
        return np.array([factors[text] for text in codes], np.float64)

    def _learn(self, texts: Iterable[str]) -> None:
        for text in texts:
            code = currency_code(text)
            if code and self.rates.get(code, 1.0) == 1:
                with self._lock:
                    self.code = self.code or code
                return

    def _factor(self, code: str) -> float:
        return 1.0 if code and code == self.code else self.rates.get(code, float("nan"))

    def refuse(self, text: str) -> str:
        """Count a record whose money cannot be converted, and give the sentence that says why."""
        code = currency_code(text)
        self.left_out[code or _OTHER] += 1
        shop = f"the shop's is {self.code or 'not known yet'}"
        if self.code and not self.is_set:
            shop += " (that of the first record seen: SKUTREND_CURRENCY is not set)"
        if not code:
            return f"`currency` must be a currency code of 3 letters (ISO 4217), found {text!r}; {shop}"
        return (
            f"the money is in {code}, {shop}: give {code} a rate in the file that SKUTREND_RATES names, "
            "or let the producer convert it"
        )

    def told(self) -> list[str]:
        """Tell what was left out, a sentence per currency, the most frequent first."""
        return [
            f"{count:,} record{'' if count == 1 else 's'} with money in {code} left out, since the shop's is "
            f"{self.code}: set SKUTREND_CURRENCY, and SKUTREND_RATES to a file of rates for others"
            for code, count in self.left_out.most_common()
        ]


def converted(columns: OrderColumns | PriceColumns, worth: NDArray[np.float64]) -> OrderColumns | PriceColumns:
    """Give the columns with their money times `worth`, (n,); above 0 stays above 0, or a sale would become a gift."""
    if isinstance(columns, OrderColumns):
        return dataclasses.replace(columns, unit_price=_product(columns.unit_price, worth))
    return dataclasses.replace(columns, price=_product(columns.price, worth))


def _product(money: NDArray[np.float64], worth: NDArray[np.float64]) -> NDArray[np.float64]:
    product = money * worth
    np.maximum(product, _LEAST, out=product, where=money > 0)
    return product
