"""Tumbling event-time windows, as integers.

A window is half-open `[start_ms, end_ms)` in epoch milliseconds and has a number; numbers grow by one from window to
window, so that "the next 14 windows" is arithmetic whatever the calendar does. Three families:

* below a day: fixed length, aligned to the epoch plus an offset;
* a day or a week: shop-local, so a day has 23, 24 or 25 h where the clocks change; a week starts on the day that the
  shop says (Monday), and a day at the time of day that the shop says (midnight);
* a month: shop-local calendar months, from the start of their first day.

A day that should start at a time its clock leaves out starts as much later as the clock was put forward, and one whose
time comes twice starts at the first of them (RFC 5545, 3.3.5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from features.cadence import DAY_MS, HORIZON, MINUTE_MS, MOST_HOURS, WEEK_MS, Cadence, cadence_of
from schemas.errors import BadSetting

EARLIEST_MS = 946_684_800_000  # 2000-01-01T00:00Z: an older event time is a broken clock
_LAST_YEAR = 2100
_MOST_DAY_PHASES = 48
_WEEK_DAYS = 7
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday
LATEST_MS = 4_102_358_400_000  # 2099-12-31T00:00Z: the calendar ends with the year, in every time zone

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MIDNIGHT = "00:00"
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class WindowGrid:
    """All windows of one length in one shop's calendar.

    window_ms: nominal length; 86_400_000 means a local day, 604_800_000 a local week, 28 to 31 days a local month,
    and anything below a day must divide it. timezone: IANA name, used from a day up. offset_ms: shifts windows below
    a day. day_start: shop-local time, HH:MM, at which days (and the first days of weeks and months) start. week_start:
    the weekday on which weeks start. country: ISO 3166 code (`GB`, `DE-BY`) whose holidays the shop keeps; "": none.
    closing_days: local dates on which it does not sell. These two say what is known of windows, not where they lie:
    `features.known_days` reads them. horizon: windows to be forecast, None for as many as these usually have.

    >>> from features.cadence import HOUR_MS
    >>> grid = WindowGrid(window_ms=DAY_MS, timezone="Europe/London")
    >>> spring = grid.number(datetime(2011, 3, 27, 12, tzinfo=ZoneInfo("UTC")).timestamp() * 1000)
    >>> (grid.end_ms(spring) - grid.start_ms(spring)) // HOUR_MS
    23
    """

    window_ms: int = DAY_MS
    timezone: str = "UTC"
    offset_ms: int = 0
    day_start: str = MIDNIGHT
    week_start: str = WEEKDAYS[0]
    country: str = ""
    closing_days: frozenset[date] = frozenset()
    horizon: int | None = None

    def __post_init__(self) -> None:
        """Refuse what does not tile the calendar, and what these windows could not heed (`BadSetting`)."""
        self._check_length()
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            msg = f"unknown time zone {self.timezone!r}; set SKUTREND_TIMEZONE to an IANA name such as Europe/London"
            raise BadSetting(msg) from error
        self._check_starts()

    def _check_length(self) -> None:
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

        most = MOST_HOURS if self.window_ms < DAY_MS else HORIZON
        if self.horizon is not None and not HORIZON <= self.horizon <= most:
            msg = (
                f"a horizon of {self.horizon} windows of {self.window_ms} ms: expected {HORIZON}, or below a day up to "
                f"{MOST_HOURS}; set SKUTREND_HORIZON"
            )
            raise BadSetting(msg)

    def _check_starts(self) -> None:
        if not _TIME_OF_DAY.fullmatch(self.day_start):
            msg = f"SKUTREND_DAY_START is {self.day_start!r}: expected a time of day from 00:00 to 23:59, such as 04:00"
            raise BadSetting(msg)
        if self.week_start not in WEEKDAYS:
            msg = f"SKUTREND_WEEK_START is {self.week_start!r}: expected one of {', '.join(WEEKDAYS)}"
            raise BadSetting(msg)
        what = f"windows of {self.window_ms} ms (SKUTREND_WINDOW_MS)"
        if self.offset_ms and not self.is_fixed:
            msg = (
                f"SKUTREND_WINDOW_OFFSET_MS is {self.offset_ms}, which {what} cannot heed, as it shifts windows "
                "below a day only; unset it, and set SKUTREND_DAY_START or SKUTREND_WEEK_START"
            )
            raise BadSetting(msg)
        if self.day_start != MIDNIGHT and self.is_fixed:
            msg = (
                f"SKUTREND_DAY_START is {self.day_start}, which {what} cannot heed, as they are shorter than a day; "
                "unset it, and shift them by SKUTREND_WINDOW_OFFSET_MS"
            )
            raise BadSetting(msg)
        if self.week_start != WEEKDAYS[0] and self.window_ms != WEEK_MS:
            msg = (
                f"SKUTREND_WEEK_START is {self.week_start}, which {what} cannot heed, as they are no weeks; unset it, "
                f"or set SKUTREND_WINDOW_MS={WEEK_MS}"
            )
            raise BadSetting(msg)

    @property
    def is_fixed(self) -> bool:
        """Whether every window has the same length, whatever the calendar does."""
        return self.window_ms < DAY_MS

    @cached_property
    def _edges_ms(self) -> Int64:
        """Return the start of every calendar window from 2000 to 2100."""
        return self._windows[0]

    @property
    def _windows(self) -> tuple[Int64, Int64]:
        return _calendar(self.window_ms, self.timezone, self.day_start, self.week_start)

    def date_start_ms(self, day: date) -> int:
        """Give the moment at which a shop-local date starts, epoch ms; for windows below a day that is its midnight."""
        return _start_ms(day, ZoneInfo(self.timezone), _time_of_day(self.day_start))

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
    def cadence(self) -> Cadence:
        """What windows of this length need."""
        return cadence_of(self.window_ms, self.horizon)

    @property
    def season_length(self) -> int:
        """How many phases one season has: a week's days, at most 48 of each of them of anything shorter, else one."""
        phases = self.cadence.phases
        return self.day_phases * self.season_days if phases is None else phases

    @property
    def day_phases(self) -> int:
        """How many phases a day has: at most 48."""
        return min(DAY_MS // self.window_ms, _MOST_DAY_PHASES) if self.is_fixed else 1

    @property
    def season_days(self) -> int:
        """How many days with phases of their own a season has: of windows below a day those of a week, else one."""
        return _WEEK_DAYS if self.is_fixed else 1

    @property
    def season_windows(self) -> int:
        """How many windows later about the same is to be expected: a day of windows below a day, else a season."""
        return DAY_MS // self.window_ms if self.is_fixed else self.season_length

    def phase(self, number: int) -> int:
        """Give the position of a window in its season, 0 <= phase < season_length (Monday comes first)."""
        if not self.is_fixed:
            return int(self._windows[1][number]) if self.window_ms == DAY_MS else 0
        return int(self._phases(np.array([number], np.int64))[0])

    def _phases(self, numbers: Int64) -> Int64:
        """Give those of windows below a day, (n,)."""
        per_day = DAY_MS // self.window_ms
        day, window = np.divmod(numbers, per_day)
        phases: Int64 = (day + _EPOCH_WEEKDAY) % _WEEK_DAYS * self.day_phases + window * self.day_phases // per_day
        return phases

    def phase_counts(self, first: int, stop: int) -> Int64:
        """Count the windows from `first` up to `stop` (without it) by phase; int64 (season,)."""
        if self.window_ms == DAY_MS:
            return np.bincount(self._windows[1][first:stop], minlength=self.season_length)
        if not self.is_fixed:
            return np.array([stop - first], np.int64)
        per_week = self.season_windows * _WEEK_DAYS
        weeks, rest = divmod(stop - first, per_week)
        phases = self._phases(first + np.arange(min(per_week, stop - first)))
        found: Int64 = np.bincount(phases[:rest], minlength=self.season_length)
        return found + weeks * np.bincount(phases, minlength=self.season_length) if weeks else found

    @property
    def signature(self) -> str:
        """What must not change under stored state: grids with equal signatures number and cut time in the same way.

        Two names of one time zone count as two.
        """
        if self.is_fixed:
            # another word where there is an offset: `offset_ms` beside a number is what once was written of the offset
            # modulo the length, in which windows that are numbered differently look alike
            offset = "offset_ms=0" if self.offset_ms == 0 else f"first_window_ms={self.offset_ms}"
            return f"window_ms={self.window_ms} {offset}"
        name = {DAY_MS: "day", WEEK_MS: "week"}.get(self.window_ms, "month")
        week = f" from={self.week_start}" if self.week_start != WEEKDAYS[0] else ""
        day = f" day_start={self.day_start}" if self.day_start != MIDNIGHT else ""
        return f"{name} timezone={self.timezone}{week}{day}"


def plausible(times_ms: Int64) -> NDArray[np.bool_]:
    """Tell which times a shop can have meant: those of this century; bool (n,)."""
    return (times_ms >= EARLIEST_MS) & (times_ms < LATEST_MS)


def _time_of_day(text: str) -> time:
    hour, minute = text.split(":")
    return time(int(hour), int(minute))


def _start_ms(day: date, zone: ZoneInfo, at: time) -> int:
    """Find when a local date starts: `fold=0` is the first of two equal times, and goes on past a time left out."""
    return int(datetime.combine(day, at, tzinfo=zone).timestamp() * 1000)


@lru_cache(maxsize=8)
def _calendar(window_ms: int, timezone: str, day_start: str, week_start: str) -> tuple[Int64, Int64]:
    """Return the local starts of all days, weeks or months, ascending, epoch ms; and the weekdays of their dates."""
    zone, at = ZoneInfo(timezone), _time_of_day(day_start)
    # start early: 2000-01-01T00:00Z is still 1999 in the Americas, and there a late start makes it the day before that
    if window_ms == DAY_MS:
        first = date(1999, 12, 31) if day_start == MIDNIGHT else date(1999, 12, 30)
        days = [first + timedelta(days=i) for i in range(366 * (_LAST_YEAR - 2000) + 1)]
    elif window_ms == WEEK_MS:
        first = date(1999, 12, 27) - timedelta(days=-WEEKDAYS.index(week_start) % 7)
        days = [first + timedelta(weeks=i) for i in range(53 * (_LAST_YEAR - 2000))]
    else:  # two years more, for the windows that are forecast from the last ones
        days = [date(year, month, 1) for year in range(1999, _LAST_YEAR + 3) for month in range(1, 13)]
    # a day that a zone left out (Samoa, 30 December 2011) starts when the next one does, and gives way to it
    edges = {_start_ms(d, zone, at): d.weekday() for d in days}
    starts_ms = np.array(sorted(edges), np.int64)
    return starts_ms, np.array([edges[start_ms] for start_ms in starts_ms.tolist()], np.int64)
