"""What festivals do to a shop: how much more or less it sells on each of the days around one than on other days.

A public holiday is told by its name, so that it is known again where it moves through the year; what its days have done
before is expected of them again, as far as it lies above what single days vary by. It is learnt per partition, by what
all SKUs have sold together. Of windows of a day only: `features.known_days` names no festivals of others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from features.known_days import Festival

_MOST = 1.5  # beyond a factor of 4.5, either way, a day says no more
_FORGET_AFTER = 3  # times that the mean of a festival's day is of
_FIRST_SQUARE = 0.09
_SQUARE_GAIN, _BIAS_GAIN = 1 / 60, 1 / 10
_DOUBT: Final = 6.0
"""Of one day, times the noise of a day: one effect of about 2.4 standard deviations is half believed."""


class Seen(NamedTuple):
    """What a day of a festival has done: how many times it came, and the mean of ln(sold / expected)."""

    times: int
    mean: float


@dataclass
class Festivals:
    """Learned per partition.

    seen: by day of a festival. bias, square: mean of ln(sold / expected) on other days, and mean square about it.
    """

    seen: dict[Festival, Seen] = field(default_factory=dict)
    bias: float = 0.0
    square: float = _FIRST_SQUARE

    def observe(self, festival: Festival | None, *, sold: float, expected: float) -> None:
        """Take in what an open window has sold, and what was expected of it but for any festival; both units > 0."""
        ratio = min(max(math.log(sold) - math.log(expected), -_MOST), _MOST)
        if festival is None:
            off = ratio - self.bias
            self.square += _SQUARE_GAIN * (min(off * off, 1.0) - self.square)
            self.bias += _BIAS_GAIN * off
            return
        times, mean = self.seen.get(festival, Seen(0, 0.0))
        times = min(times + 1, _FORGET_AFTER)
        self.seen[festival] = Seen(times, mean + (ratio - self.bias - mean) / times)

    def effect(self, festival: Festival | None) -> float:
        """Give how many times as much as otherwise is sold on a day; 1 where it is none, or has never been seen.

        The mean shrinks by what it is beside the noise of its own: mean^3 / (mean^2 + _DOUBT * square / times).
        """
        if festival is None or festival not in self.seen:
            return 1.0
        times, mean = self.seen[festival]
        square = mean * mean
        doubt = _DOUBT * self.square / times
        return math.exp(mean * square / (square + doubt)) if square + doubt > 0 else 1.0
