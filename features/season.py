"""What the whole shop does: its season index, on which phases it is open, and its trend."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.grid import WindowGrid
from features.horizon import HORIZON, SUM_WINDOWS

Float32 = NDArray[np.float32]
_PHASE_GAIN = 1 / 6  # a phase (a weekday) forgets with a half-life of about four seasons
_FAST, _SLOW = 1 / 5, 1 / 40  # gains of the shop's level, per open window
_NEVER_SELLS_LINES = 0.05
_MUST_SELL_LINES = 8.0  # a Poisson count of this mean is zero once in 3,000
_SHRINK_VISITS = 3.0
_HOLIDAYS_IN_A_ROW = 3


@dataclass
class SeasonProfile:
    """Learned per partition: order lines and units of the whole shop by phase of the season.

    lines, units: float64 (m,), exponentially weighted per phase. visits, missed: int64 (m,), windows learnt from, and
    holidays in a row. fast, slow: shop level in units per open window, season taken out.
    """

    length: int
    lines: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    units: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    visits: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    missed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    fast: float = 0.0
    slow: float = 0.0
    open_windows: int = 0

    def __post_init__(self) -> None:
        """Give every phase its place."""
        if not len(self.lines):
            self.lines, self.units = np.zeros(self.length), np.zeros(self.length)
            self.visits, self.missed = np.zeros(self.length, np.int64), np.zeros(self.length, np.int64)

    def is_open(self, *, phase: int, lines: float) -> bool:
        """Whether a window with so many order lines was open for sale.

        Without a line it was closed when its phase never sells, or sells so much that none is beyond chance (a
        holiday); in between, nothing sold is just nothing sold.
        """
        usual = float(self.lines[phase])
        return lines > 0 or (self.visits[phase] > 0 and _NEVER_SELLS_LINES < usual < _MUST_SELL_LINES)

    def observe(self, *, phase: int, lines: float, units: float) -> bool:
        """Take a closed window of the whole partition in; returns whether it was open."""
        was_open = self.is_open(phase=phase, lines=lines)
        if was_open:
            index = max(float(self.index(np.array([phase]))[0]), 0.2)
            self.open_windows += 1
            level = units / index
            self.fast += max(_FAST, 1 / self.open_windows) * (level - self.fast)
            self.slow += max(_SLOW, 1 / self.open_windows) * (level - self.slow)
        self.missed[phase] = 0 if was_open else self.missed[phase] + 1
        # a holiday says nothing about its weekday, many in a row do; a phase that never sold may start to
        if was_open or self.lines[phase] < _MUST_SELL_LINES or self.missed[phase] > _HOLIDAYS_IN_A_ROW:
            self.visits[phase] += 1
            gain = max(_PHASE_GAIN, 1 / self.visits[phase])
            self.lines[phase] += gain * (lines - self.lines[phase])
            self.units[phase] += gain * (units - self.units[phase])
        return was_open

    def index(self, phases: NDArray[np.int64]) -> Float32:
        """Give the demand of phases relative to the average open one, float32 (n,): 0 where closed, 1 where unknown."""
        is_open = self.lines > _NEVER_SELLS_LINES
        known = self.visits > 0
        usual = self.units[is_open].mean() if is_open.any() else 0.0
        if usual <= 0:
            return np.ones(len(phases), np.float32)
        trust = self.visits / (self.visits + _SHRINK_VISITS)
        index = np.clip(1 + trust * (self.units / usual - 1), 0.2, 5.0)
        index[~is_open] = 0.0
        index[~known] = 1.0
        found: Float32 = index[phases].astype(np.float32)
        return found

    @property
    def trend(self) -> float:
        """Log ratio of the shop's recent level to its slow one, within [-2, 2]."""
        return float(np.clip(np.log((self.fast + 1e-6) / (self.slow + 1e-6)), -2, 2)) if self.open_windows else 0.0


@dataclass(frozen=True)
class Context:
    """One closed window as the whole shop saw it, and the calendar of the windows to come.

    season_length: phases; season_windows: windows until the same phase comes again.
    season_next: float32 (HORIZON,), index of the following windows; season_sums: float32 (S,), its sums.
    """

    number: int
    start_ms: int
    end_ms: int
    phase: int
    season_length: int
    season_windows: int
    is_open: bool
    index: float
    trend: float
    season_next: Float32
    season_sums: Float32


def context(grid: WindowGrid, season: SeasonProfile, number: int, *, is_open: bool) -> Context:
    """Describe window `number`, after `season` has observed it."""
    phase = grid.phase(number)
    ahead = np.array([grid.phase(number + k) for k in range(1, HORIZON + 1)])
    season_next = season.index(ahead)
    sums = np.array([season_next[:n].sum() for n in SUM_WINDOWS], np.float32)
    return Context(
        number=number,
        start_ms=grid.start_ms(number),
        end_ms=grid.end_ms(number),
        phase=phase,
        season_length=season.length,
        season_windows=grid.season_windows,
        is_open=is_open,
        index=float(season.index(np.array([phase]))[0]),
        trend=season.trend,
        season_next=season_next,
        season_sums=sums,
    )
