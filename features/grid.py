"""Tumbling event-time windows, as integers.

A window is half-open `[start_ms, end_ms)` in epoch milliseconds and has a number; numbers grow by one from window to
window, so that "the next 14 windows" is arithmetic whatever the calendar does. Three families:

* below a day: fixed length, aligned to the epoch plus an offset;
* a day or a week (from Monday): shop-local, so a day has 23, 24 or 25 h where the clocks change;
* a month: shop-local calendar months.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BadSetting

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
MONTH_MS = 30 * DAY_MS
EARLIEST_MS = 946_684_800_000  # 2000-01-01T00:00Z: an older event time is a broken clock
_LAST_YEAR = 2100
LATEST_MS = 4_102_358_400_000  # 2099-12-31T00:00Z: the calendar ends with the year, in every time zone

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class WindowGrid:
    """All windows of one length in one shop's calendar.

    window_ms: nominal length; 86_400_000 means a local day, 604_800_000 a local week, 28 to 31 days a local month,
    and anything below a day must divide it. timezone: IANA name, used from a day up. offset_ms: shifts windows below
    a day.

    >>> grid = WindowGrid(window_ms=DAY_MS, timezone="Europe/London")
    >>> spring = grid.number(datetime(2011, 3, 27, 12, tzinfo=ZoneInfo("UTC")).timestamp() * 1000)
    >>> (grid.end_ms(spring) - grid.start_ms(spring)) // HOUR_MS
    23
    """

    window_ms: int = DAY_MS
    timezone: str = "UTC"
    offset_ms: int = 0

    def __post_init__(self) -> None:
        """Refuse lengths that do not tile the calendar (`BadSetting`)."""
        if self.window_ms < MINUTE_MS or self.window_ms > 31 * DAY_MS:
            msg = (
                f"window of {self.window_ms} ms: expected 60,000 (1 minute) to 2,678,400,000 (1 month); "
                "set SKUTREND_WINDOW_MS"
            )
            raise BadSetting(msg)
        if self.window_ms < DAY_MS and DAY_MS % self.window_ms:
            msg = (
                f"window of {self.window_ms} ms does not divide a day; "
                "set SKUTREND_WINDOW_MS to a divisor of 86,400,000"
            )
            raise BadSetting(msg)
        if self.window_ms > DAY_MS and self.window_ms != WEEK_MS and self.window_ms < 28 * DAY_MS:
            msg = (
                f"window of {self.window_ms} ms: above a day only 604,800,000 (week) and 28 to 31 days (month) are "
                "windows; set SKUTREND_WINDOW_MS"
            )
            raise BadSetting(msg)
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            msg = f"unknown time zone {self.timezone!r}; set SKUTREND_TIMEZONE to an IANA name such as Europe/London"
            raise BadSetting(msg) from error

    @property
    def is_fixed(self) -> bool:
        """Whether every window has the same length, whatever the calendar does."""
        return self.window_ms < DAY_MS

    @cached_property
    def _edges_ms(self) -> Int64:
        """Return the start of every calendar window from 2000 to 2100."""
        return _calendar(self.window_ms, self.timezone)[0]

    def numbers(self, times_ms: Int64) -> Int64:
        """Give the number of the window that holds each time; int64 (n,). Calendar windows exist from 2000 to 2100."""
        if self.is_fixed:
            return (times_ms - self.offset_ms) // self.window_ms
        return np.searchsorted(self._edges_ms, times_ms, side="right") - 1

    def number(self, time_ms: float) -> int:
        """Give the number of the window that holds one time."""
        return int(self.numbers(np.array([time_ms], np.int64))[0])

    def start_ms(self, number: int) -> int:
        """Give the first millisecond of a window."""
        if self.is_fixed:
            return number * self.window_ms + self.offset_ms
        return int(self._edges_ms[number])

    def end_ms(self, number: int) -> int:
        """Give the first millisecond after a window."""
        return self.start_ms(number + 1)

    def starts_ms(self, first: int, count: int) -> tuple[int, ...]:
        """Give the first millisecond of `count` windows in a row, from window number `first` on."""
        return tuple(self.start_ms(number) for number in range(first, first + count))

    @property
    def season(self) -> int:
        """How many windows make one season: a week of days, a day of anything shorter, a year of weeks or months."""
        if self.is_fixed:
            return min(DAY_MS // self.window_ms, 48)
        return 7 if self.window_ms == DAY_MS else 1

    @property
    def season_windows(self) -> int:
        """How many windows later the same phase comes again."""
        return DAY_MS // self.window_ms if self.is_fixed else self.season

    def phase(self, number: int) -> int:
        """Give the position of a window in its season, 0 <= phase < season (day windows: Monday is 0)."""
        if not self.is_fixed:
            return int(_calendar(self.window_ms, self.timezone)[1][number]) if self.window_ms == DAY_MS else 0
        per_day = DAY_MS // self.window_ms
        return int((number % per_day) * self.season // per_day)

    @property
    def signature(self) -> str:
        """What must not change under stored state."""
        if self.is_fixed:
            return f"window_ms={self.window_ms} offset_ms={self.offset_ms % self.window_ms}"
        name = {DAY_MS: "day", WEEK_MS: "week"}.get(self.window_ms, "month")
        return f"{name} timezone={self.timezone}"


def plausible(times_ms: Int64) -> NDArray[np.bool_]:
    """Tell which times a shop can have meant: those of this century; bool (n,)."""
    return (times_ms >= EARLIEST_MS) & (times_ms < LATEST_MS)


@lru_cache(maxsize=8)
def _calendar(window_ms: int, timezone: str) -> tuple[Int64, Int64]:
    """Return the local midnights that start a day, week (Monday) or month, ascending, epoch ms; and their weekdays."""
    zone = ZoneInfo(timezone)
    if window_ms == DAY_MS:
        days = [date(2000, 1, 1) + timedelta(days=i) for i in range(366 * (_LAST_YEAR - 2000))]
    elif window_ms == WEEK_MS:
        days = [date(1999, 12, 27) + timedelta(weeks=i) for i in range(53 * (_LAST_YEAR - 2000))]
    else:  # two years more, for the windows that are forecast from the last ones
        days = [date(year, month, 1) for year in range(1999, _LAST_YEAR + 3) for month in range(1, 13)]
    # start one window early: 2000-01-01T00:00Z is still 1999 in the Americas
    first = days[0] - timedelta(days=1) if window_ms == DAY_MS else days[0]
    days = days if first == days[0] else [first, *days]
    # a day that a zone left out (Samoa, 30 December 2011) starts when the next one does, and gives way to it
    edges = {int(datetime(d.year, d.month, d.day, tzinfo=zone).timestamp() * 1000): d.weekday() for d in days}
    starts_ms = np.array(sorted(edges), np.int64)
    return starts_ms, np.array([edges[start_ms] for start_ms in starts_ms.tolist()], np.int64)
