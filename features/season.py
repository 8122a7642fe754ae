"""What the whole shop does: its season index, on which phases it is open, and its trend."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.cadence import Cadence
from features.festivals import Festivals
from features.grid import WindowGrid
from features.known_days import Festival, KnownWindow, known

Float32 = NDArray[np.float32]
_PHASE_GAIN = 1 / 6  # a phase (a weekday) forgets with a half-life of about four seasons
_FAST, _SLOW, _SLOWER = 1 / 5, 1 / 40, 1 / 120  # gains of the shop's level, per open window
_NEVER_SELLS_LINES = 0.05
_MUST_SELL_LINES = 8.0  # a Poisson count of this mean is zero once in 3,000
_SHRINK_VISITS = 3.0
_HOLIDAYS_IN_A_ROW = 3
_LEVEL_GAIN = 1 / 28  # of the level against which a phase's demand is held
_RATIO_GAIN = 0.12
_MOST_RATIO = 4.0
_LEAST_DEMAND = 0.2
_FEW_VISITS = 2  # of a phase on one of several days, that say little


@dataclass
class SeasonProfile:
    """Learned per partition: order lines and units of the whole shop by phase of the season.

    lines, units: float64 (m,), exponentially weighted per phase. visits, missed: int64 (m,), windows learnt from, and
    holidays in a row. fast, slow, slower: shop level in units per open window, season taken out. ratio: float64 (m,),
    units of a phase by the shop's running mean of units per open window; level, weight: that mean, not yet corrected
    for its start, and what corrects it. Where the shop grows all ratios lie above one, by as much as a running mean
    lags. days: into so many the phases fall; one that has hardly been seen is taken to be as the others at its time of
    day. level_gain: of that running mean. festivals: what they do; all else is learnt with that taken out.
    """

    length: int
    days: int = 1
    level_gain: float = _LEVEL_GAIN
    lines: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    units: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    visits: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    missed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    fast: float = 0.0
    slow: float = 0.0
    slower: float = 0.0
    open_windows: int = 0
    ratio: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    level: float = 0.0
    weight: float = 0.0
    festivals: Festivals = field(default_factory=Festivals)

    def __post_init__(self) -> None:
        """Give every phase its place."""
        if not len(self.lines):
            self.lines, self.units = np.zeros(self.length), np.zeros(self.length)
            self.visits, self.missed = np.zeros(self.length, np.int64), np.zeros(self.length, np.int64)
            self.ratio = np.ones(self.length)

    def is_open(self, *, phase: int, lines: float) -> bool:
        """Whether a window with so many order lines was open for sale.

        Without a line it was closed when its phase never sells, or sells so much that none is beyond chance (a
        holiday); in between, nothing sold is just nothing sold.
        """
        usual = float(self.lines[phase])
        return lines > 0 or (self.visits[phase] > 0 and _NEVER_SELLS_LINES < usual < _MUST_SELL_LINES)

    def observe(self, *, phase: int, lines: float, units: float, festival: Festival | None = None) -> bool:
        """Take a closed window of the whole partition in; returns whether it was open."""
        was_open = self.is_open(phase=phase, lines=lines)
        if was_open:
            self._observe_festival(festival, phase=phase, units=units)
            units /= self.festivals.effect(festival)
            index = max(float(self.index(np.array([phase]))[0]), 0.2)
            self.open_windows += 1
            level = units / index
            self._move_trend(level)
            self._move_level(units)
            usual = self.level / self.weight
            held = min(units / usual, _MOST_RATIO) if usual > 0 else 0.0
            if self.days > 1 and self.lines[phase] <= _NEVER_SELLS_LINES:
                self.ratio[phase] = self._at_that_time(self.ratio)[phase]
            self.ratio[phase] += max(_RATIO_GAIN, 1 / (self.visits[phase] + 2)) * (held - self.ratio[phase])
        self.missed[phase] = 0 if was_open else self.missed[phase] + 1
        # a holiday says nothing about its weekday, many in a row do; a phase that never sold may start to
        if was_open or self.lines[phase] < _MUST_SELL_LINES or self.missed[phase] > _HOLIDAYS_IN_A_ROW:
            self.visits[phase] += 1
            gain = max(_PHASE_GAIN, 1 / self.visits[phase])
            self.lines[phase] += gain * (lines - self.lines[phase])
            self.units[phase] += gain * (units - self.units[phase])
        return was_open

    def _observe_festival(self, festival: Festival | None, *, phase: int, units: float) -> None:
        """Hold what was sold against the shop's level, once that is known."""
        if units > 0 and self.level > 0 and self.open_windows * self.level_gain >= 1:
            usual = self.level / self.weight
            expected = usual * max(float(self.demand(np.array([phase]))[0]), _LEAST_DEMAND)
            self.festivals.observe(festival, sold=units, expected=expected)

    def observe_silence(self, windows: NDArray[np.int64]) -> None:
        """Take in closed windows in which nothing happened, so many of each phase, int64 (m,).

        The same to the last bit as `observe` for each of them, in whatever order. It goes on one visit of all phases
        after the other only until nothing but the counts changes any more: some thousand times, however many windows.
        """
        left, opened = windows.copy(), 0
        while (at := np.flatnonzero(left)).size:
            lines, units = self.lines[at], self.units[at]
            was_open = (self.visits[at] > 0) & (lines > _NEVER_SELLS_LINES) & (lines < _MUST_SELL_LINES)
            missed = np.where(was_open, 0, self.missed[at] + 1)
            learns = was_open | (lines < _MUST_SELL_LINES) | (missed > _HOLIDAYS_IN_A_ROW)
            visits = self.visits[at] + learns
            gain = np.where(learns, np.maximum(_PHASE_GAIN, 1 / np.maximum(visits, 1)), 0.0)
            self.lines[at], self.units[at] = lines + gain * (0.0 - lines), units + gain * (0.0 - units)
            opened += int(was_open.sum())
            ratio = self.ratio[at]
            ratio_gain = np.maximum(_RATIO_GAIN, 1 / (self.visits[at] + 2))
            self.ratio[at] = np.where(was_open, ratio + ratio_gain * (0.0 - ratio), ratio)
            stands = (self.lines[at] == lines) & ((self.units[at] == units) | np.isnan(units))
            stands &= learns & ~was_open & (visits >= 1 / _PHASE_GAIN)
            more = np.where(stands, left[at] - 1, 0)
            self.visits[at], self.missed[at] = visits + more, missed + more
            left[at] -= 1 + more
        for _ in range(opened):
            self.open_windows += 1
            self._move_trend(0.0)
            self._move_level(0.0)

    def _move_trend(self, level: float) -> None:
        self.fast += max(_FAST, 1 / self.open_windows) * (level - self.fast)
        self.slow += max(_SLOW, 1 / self.open_windows) * (level - self.slow)
        self.slower += max(_SLOWER, 1 / self.open_windows) * (level - self.slower)

    def _move_level(self, units: float) -> None:
        self.level += self.level_gain * (units - self.level)
        self.weight += self.level_gain * (1.0 - self.weight)

    def index(self, phases: NDArray[np.int64]) -> Float32:
        """Give the demand of phases relative to the average open one, float32 (n,): 0 where closed, 1 where unknown."""
        is_open = self.lines > _NEVER_SELLS_LINES
        known = self.visits > 0
        usual = self.units[is_open].mean() if is_open.any() else 0.0
        if usual <= 0:
            return np.ones(len(phases), np.float32)
        trust = self.visits / (self.visits + _SHRINK_VISITS)
        before = 1.0 if self.days == 1 else self._at_that_time(self.units / usual)
        index = np.clip(before + trust * (self.units / usual - before), 0.2, 5.0)
        index[~is_open] = 0.0
        if self.days == 1:
            index[~known] = 1.0
        else:
            hardly = self.visits < _FEW_VISITS
            index[hardly] = self._at_that_time(np.where(is_open, self.units / usual, 0.0))[hardly]
        found: Float32 = index[phases].astype(np.float32)
        return found

    def demand(self, phases: NDArray[np.int64]) -> Float32:
        """Give what phases sell by the running mean, its lag behind a growing shop made up for; float32 (n,).

        0 where the shop is closed, 1 where nothing is known.
        """
        ratio = self.ratio
        if self.days > 1:
            ratio = np.where(self.lines > _NEVER_SELLS_LINES, ratio, self._at_that_time(ratio))
        found: Float32 = np.where(self.index(phases) > 0, ratio[phases], 0.0).astype(np.float32)
        return found

    def _at_that_time(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Average values of phases, (m,), over the days on which the shop has sold at their time of day; (m,).

        1 at a time at which it has on none, and is not known to be closed; 0 where it is.
        """
        shape = (self.days, self.length // self.days)
        by_day, sold = values.reshape(shape), (self.lines > _NEVER_SELLS_LINES).reshape(shape)
        count = sold.sum(axis=0)
        mean = np.where(sold, by_day, 0.0).sum(axis=0) / np.maximum(count, 1)
        is_closed = (self.visits > 0).reshape(shape).any(axis=0)
        return np.tile(np.where(count > 0, mean, np.where(is_closed, 0.0, 1.0)), self.days)

    def level_demand(self, phase: int) -> float:
        """Give what a phase sells relative to the average open one, at least 0.2."""
        is_open = self.index(np.arange(self.length)) > 0
        usual = float(self.ratio[is_open].mean()) if is_open.any() else 1.0
        return max(float(self.ratio[phase]) / max(usual, _LEAST_DEMAND), _LEAST_DEMAND)

    @property
    def trend(self) -> float:
        """Log ratio of the shop's recent level to its slow one, within [-2, 2]."""
        return self._log_ratio(self.fast, self.slow)

    @property
    def slow_trend(self) -> float:
        """Log ratio of the shop's slow level to its slowest one, within [-2, 2]."""
        return self._log_ratio(self.slow, self.slower)

    def _log_ratio(self, recent: float, before: float) -> float:
        return float(np.clip(np.log((recent + 1e-6) / (before + 1e-6)), -2, 2)) if self.open_windows else 0.0


@dataclass(frozen=True)
class Context:
    """One closed window as the whole shop saw it, and the calendar of the windows to come.

    season_length: phases; season_windows: windows until about the same is to be expected. turn: which phase of these it
    has, and of how many.
    season_next: float32 (K,), index of the following windows; season_sums: float32 (S,), its sums. demand: of
    this window by `SeasonProfile.level_demand`; demand_next: float32 (K,), `demand` of the following ones. All of
    these with the effect of festivals. known: what is known in advance of this window and the following ones.
    """

    number: int
    start_ms: int
    end_ms: int
    phase: int
    cadence: Cadence
    season_length: int
    season_windows: int
    turn: tuple[int, int]
    is_open: bool
    index: float
    trend: float
    slow_trend: float
    season_next: Float32
    season_sums: Float32
    demand: float
    demand_next: Float32
    known: tuple[KnownWindow, ...]


def profile_of(grid: WindowGrid) -> SeasonProfile:
    """Make that of a partition with these windows, before the first."""
    return SeasonProfile(grid.season_length, days=grid.season_days, level_gain=1 / grid.cadence.plain_memories[0])


def context(grid: WindowGrid, season: SeasonProfile, number: int, *, is_open: bool) -> Context:
    """Describe window `number`, after `season` has observed it."""
    phase, cadence = grid.phase(number), grid.cadence
    ahead = np.array([grid.phase(number + k) for k in range(1, cadence.horizon + 1)])
    days = tuple(known(grid, number + k) for k in range(cadence.horizon + 1))
    effect = season.festivals.effect
    factors = np.array([0.0 if day.is_closed else effect(day.festival) for day in days[1:]], np.float32)
    season_next = season.index(ahead) * factors
    sums = np.array([season_next[:n].sum() for n in cadence.spans], np.float32)
    return Context(
        number=number,
        start_ms=grid.start_ms(number),
        end_ms=grid.end_ms(number),
        phase=phase,
        cadence=cadence,
        season_length=season.length,
        season_windows=grid.season_windows,
        turn=(phase % grid.day_phases, grid.day_phases) if grid.is_fixed else (phase, max(season.length, 1)),
        is_open=is_open,
        index=float(season.index(np.array([phase]))[0]) * effect(days[0].festival),
        trend=season.trend,
        slow_trend=season.slow_trend,
        season_next=season_next,
        season_sums=sums,
        demand=season.level_demand(phase) * effect(days[0].festival),
        demand_next=season.demand(ahead) * factors,
        known=days,
    )
