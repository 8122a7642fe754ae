"""What is known of days in advance: holidays of the shop's country, their eves, and days on which it does not sell.

Holidays are those of the `holidays` package: public ones, and where it has them unofficial ones (Mother's Day), which
weigh half. A row of days off weighs more than a single one, and a day that such a row and a weekend enclose counts as
half a holiday. Moving festivals (Easter, the Chinese New Year) come with the calendars of the countries that keep them.
The days around a public holiday are named after it, so that they are known again: `features.festivals`.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from features import dates
from features.cadence import DAY_MS
from schemas.errors import BadSetting

if TYPE_CHECKING:
    from features.grid import WindowGrid

EVES: Final = 5
"""Days before a holiday on which it is felt; the last weighs 1, the first 1/5."""

LONG_HOLIDAY: Final = 3
"""Days off in a row that count fully; fewer weigh half."""

DAYS_BEFORE: Final = 7
"""Days before a festival that are named after it; those of the next one come before those after the last."""

DAYS_AFTER: Final = 3

_SATURDAY: Final = 5
_WEEK: Final = 7
_ENGLISH: Final = "en_US"
_ESTIMATED: Final = " (estimated)"
_STANDS_IN: Final = re.compile(r"substitut|observed|\bin lieu\b|\bday off\b|^bridge|^transfer", re.IGNORECASE)


class Festival(NamedTuple):
    """A day of a festival or near it. day: days since the first one of this name in a row, below 0 before it."""

    name: str
    day: int


class KnownWindow(NamedTuple):
    """What is known of a window before it comes.

    is_closed: the shop does not sell on any of its days. holiday, eve: the most that one of its days is, 0 to 1. year:
    where its first day lies in the year, 0 to 1. festival: near which it lies, of windows of a day.
    """

    is_closed: bool
    holiday: float
    eve: float
    year: float
    festival: Festival | None = None


@lru_cache(maxsize=4_096)
def known(grid: WindowGrid, number: int) -> KnownWindow:
    """Say what is known of window `number`."""
    first = dates.local_date(grid.start_ms(number), grid.timezone)
    # a window of a day or less is of the date on which it begins, also where that is at 04:00
    last = first if grid.window_ms <= DAY_MS else dates.local_date(grid.end_ms(number) - 1, grid.timezone)
    if first is None or last is None:
        return KnownWindow(is_closed=False, holiday=0.0, eve=0.0, year=0.0)
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    return KnownWindow(
        is_closed=all(day in grid.closing_days for day in days),
        holiday=max(_holiday(grid.country, day) for day in days),
        eve=max(_eve(grid.country, day) for day in days),
        year=(first.timetuple().tm_yday - 1) / 365.25,
        festival=_festival(grid.country, first) if grid.window_ms == DAY_MS else None,
    )


def check_country(country: str) -> None:
    """Refuse a country, or a part of one, whose holidays nobody knows (`BadSetting`)."""
    if country:
        _calendar(country, 2020)


@lru_cache(maxsize=4_096)
def _holiday(country: str, day: date) -> float:
    """Say how much of a holiday a day is, 0 to 1."""
    weight = _weight(country, day)
    if weight == 1:
        in_a_row = 1 + _days_off(country, day, step=-1) + _days_off(country, day, step=1)
        return 1.0 if in_a_row >= LONG_HOLIDAY else 0.5
    return max(weight, 0.5 * _is_bridge(country, day))


@lru_cache(maxsize=4_096)
def _festival(country: str, day: date) -> Festival | None:
    """Name the festival on a day; if there is none the next, and if that is far the last one."""
    for ahead in range(DAYS_BEFORE + 1):
        if name := _name(country, day + timedelta(days=ahead)):
            return Festival(name, -ahead if ahead else _days_of(country, name, before=day))
    for back in range(1, DAYS_AFTER + 1):
        if name := _name(country, last := day - timedelta(days=back)):
            return Festival(name, back + _days_of(country, name, before=last))
    return None


def _days_of(country: str, name: str, *, before: date) -> int:
    """Count the days of a name in a row that end before a day."""
    back = 0
    while back < _WEEK and _name(country, before - timedelta(days=back + 1)) == name:
        back += 1
    return back


@lru_cache(maxsize=4_096)
def _eve(country: str, day: date) -> float:
    """Say how near the holidays after a day are, 0 to 1, by how much of a holiday they are."""
    if not country or _weight(country, day) == 1:
        return 0.0
    ahead = ((EVES + 1 - i) / EVES * _holiday(country, day + timedelta(days=i)) for i in range(1, EVES + 1))
    return max(ahead)


def _days_off(country: str, day: date, *, step: int) -> int:
    """Count the public holidays in a row beside a day, in one direction, as far as it matters."""
    for i in range(1, LONG_HOLIDAY):
        if _weight(country, day + timedelta(days=step * i)) != 1:
            return i - 1
    return LONG_HOLIDAY - 1


def _is_bridge(country: str, day: date) -> bool:
    """Tell whether a working day lies between a public holiday and a weekend."""
    weekday = day.weekday()
    is_friday = weekday == _SATURDAY - 1 and _weight(country, day - timedelta(days=1)) == 1
    return is_friday or (weekday == 0 and _weight(country, day + timedelta(days=1)) == 1)


def _weight(country: str, day: date) -> float:
    """Weigh a day by what the calendar says: 1 = public holiday, 0.5 = unofficial one, 0 = neither."""
    return _calendar(country, day.year).get(day, 0.0) if country else 0.0


def _name(country: str, day: date) -> str:
    """Name the public holiday on a day; "" where there is none, or one that stands in for another day."""
    return _names(country, day.year).get(day, "") if country else ""


@cache
def _names(country: str, year: int) -> dict[date, str]:
    """Read the names of a year's public holidays; of a festival's days all have one name.

    A day off for a holiday that lies on a weekend, or for a day on which people worked, is no festival: on it people
    rest as on another, and its own festival would be taken to come twice.
    """
    every = _read(country, year)
    if _ENGLISH in every.supported_languages:
        every = _read(country, year, language=_ENGLISH)
    names = {day: [name for name in text.split("; ") if not _STANDS_IN.search(name)] for day, text in every.items()}
    return {day: min(some).removesuffix(_ESTIMATED) for day, some in names.items() if some}


@cache
def _calendar(country: str, year: int) -> dict[date, float]:
    """Read the holidays of a year, {date: weight}; `BadSetting` for an unknown country."""
    try:
        every = _read(country, year)
        found = dict.fromkeys(every, 1.0)
        if "unofficial" in every.supported_categories:
            found = dict.fromkeys(_read(country, year, categories=("unofficial",)), 0.5) | found
    except NotImplementedError as error:
        msg = (
            f"SKUTREND_COUNTRY is {country!r}, whose holidays are not known ({error}); set an ISO 3166 code such as GB "
            "or DE-BY, or leave it empty"
        )
        raise BadSetting(msg) from error
    return found


def _read(country: str, year: int, **how: Any) -> Any:  # noqa: ANN401 - untyped
    """Read a year of a country's calendar; `NotImplementedError` where there is none."""
    import holidays  # noqa: PLC0415 - only where a country is set: it takes a tenth of a second

    code, _, part = country.partition("-")
    return holidays.country_holidays(code, subdiv=part or None, years=year, **how)
