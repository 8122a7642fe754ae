"""Times as people read them: in the calendar of the shop, the same in every locale of the machine.

A window of a day is that day, a week and a month are named by their first day, and anything shorter is told by the
clock, with its time zone. Where the clock shows the same time twice, or jumps, the offset from UTC stands beside it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from features.cadence import DAY_MS, HOUR_MS, MINUTE_MS, WEEK_MS

if TYPE_CHECKING:
    from features.grid import WindowGrid

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_LENGTHS: Final = ((HOUR_MS, "hour"), (MINUTE_MS, "minute"), (1_000, "second"))


def day(time_ms: int, timezone: str) -> str:
    """Name the day of a moment; one that no calendar has stays a number.

    >>> day(1_312_326_000_000, "Europe/London"), day(1_312_326_000_000, "UTC")
    ('Wednesday 3 August 2011', 'Tuesday 2 August 2011')
    """
    local = _local(time_ms, timezone)
    return f"{time_ms} ms" if local is None else _day(local)


def local_date(time_ms: int, timezone: str) -> date | None:
    """Give the date of a moment; None where no calendar has it.

    >>> local_date(1_312_326_000_000, "Europe/London"), local_date(1 << 60, "UTC")
    (datetime.date(2011, 8, 3), None)
    """
    local = _local(time_ms, timezone)
    return None if local is None else local.date()


def stamp(time_ms: int, timezone: str = "UTC") -> str:
    """Write a moment to the second, with its offset from UTC, for lists and logs.

    >>> stamp(1_312_380_005_000, "Europe/London"), stamp(1_312_380_005_000)
    ('2011-08-03 15:00:05 UTC+01:00', '2011-08-03 14:00:05 UTC')
    """
    local = _local(time_ms, timezone)
    return f"{time_ms} ms" if local is None else f"{local:%Y-%m-%d %H:%M:%S} {_offset(local)}"


def short_day(time_ms: int, timezone: str) -> str:
    """Write the day of a moment in ten characters, for progress bars.

    >>> short_day(1_312_326_000_000, "Europe/London")
    '2011-08-03'
    """
    local = _local(time_ms, timezone)
    return f"{time_ms} ms" if local is None else f"{local:%Y-%m-%d}"


def window(grid: WindowGrid, start_ms: int) -> str:
    """Name the window that starts at a moment, as what follows "since".

    >>> from features.grid import WindowGrid
    >>> window(WindowGrid(window_ms=WEEK_MS, timezone="Europe/London"), 1_312_153_200_000)
    'the week from Monday 1 August 2011'
    """
    local = _local(start_ms, grid.timezone)
    if local is None:
        return f"{start_ms} ms"
    if grid.is_fixed:
        return f"{_day(local)} at {_clock(local, with_offset=_is_ambiguous(local))} ({grid.timezone})"
    if grid.window_ms == DAY_MS:
        return _day(local)
    return f"the week from {_day(local)}" if grid.window_ms == WEEK_MS else f"{_MONTHS[local.month - 1]} {local.year}"


def at_start(grid: WindowGrid, start_ms: int) -> str:
    """Say when something began, by the window it began with.

    >>> from features.grid import WindowGrid
    >>> at_start(WindowGrid(timezone="Europe/London"), 1_312_326_000_000)
    'on Wednesday 3 August 2011'
    """
    by_day = grid.is_fixed or grid.window_ms == DAY_MS
    return f"{'on' if by_day else 'in'} {window(grid, start_ms)}"


def during(grid: WindowGrid, start_ms: int, end_ms: int) -> str:
    """Say in which window something happened.

    >>> from features.grid import WindowGrid
    >>> during(WindowGrid(window_ms=HOUR_MS, timezone="Europe/London"), 1_312_376_400_000, 1_312_380_000_000)
    'on Wednesday 3 August 2011 from 14:00 to 15:00 (Europe/London)'
    """
    start, end = _local(start_ms, grid.timezone), _local(end_ms, grid.timezone)
    if not grid.is_fixed or start is None or end is None:
        return at_start(grid, start_ms)
    with_offset = start.utcoffset() != end.utcoffset() or _is_ambiguous(start) or _is_ambiguous(end)
    first, last = _clock(start, with_offset=with_offset), _clock(end, with_offset=with_offset)
    if end.date() == start.date():
        return f"on {_day(start)} from {first} to {last} ({grid.timezone})"
    if end.date() == start.date() + timedelta(days=1) and last.startswith("00:00") and not last.startswith("00:00:"):
        return f"on {_day(start)} from {first} to 24{last.removeprefix('00')} ({grid.timezone})"
    return f"from {_day(start)} at {first} to {_day(end)} at {last} ({grid.timezone})"


def windows(grid: WindowGrid, count: str, *, adjective: str = "") -> str:
    """Join a number, as text, and what the windows of a grid are called.

    >>> from features.grid import WindowGrid
    >>> windows(WindowGrid(), "1", adjective="open"), windows(WindowGrid(window_ms=15 * MINUTE_MS), "7")
    ('1 open day', '7 windows of 15 minutes')
    """
    plural = "" if count == "1" else "s"
    if grid.is_fixed and grid.window_ms != HOUR_MS:
        size, unit = next((ms, unit) for ms, unit in (*_LENGTHS, (1, "ms")) if grid.window_ms % ms == 0)
        length = grid.window_ms // size
        noun = f"window{plural} of {length:,} {unit}{'' if length == 1 or unit == 'ms' else 's'}"
    else:
        noun = {HOUR_MS: "hour", DAY_MS: "day", WEEK_MS: "week"}.get(grid.window_ms, "month") + plural
    return " ".join(filter(None, (count, adjective, noun)))


def _local(time_ms: int, timezone: str) -> datetime | None:
    """Give a moment on the shop's clock; None where no calendar has it."""
    try:
        return (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(ZoneInfo(timezone))
    except OverflowError:
        return None


def _day(local: datetime) -> str:
    return f"{_WEEKDAYS[local.weekday()]} {local.day} {_MONTHS[local.month - 1]} {local.year}"


def _clock(local: datetime, *, with_offset: bool) -> str:
    shown = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    return f"{shown} {_offset(local)}" if with_offset else shown


def _offset(local: datetime) -> str:
    minutes = (local.utcoffset() or timedelta(0)) // timedelta(minutes=1)
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}" if minutes else "UTC"


def _is_ambiguous(local: datetime) -> bool:
    """Whether the clock shows this time twice."""
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
