"""Values as other systems write them, read as what an event needs: text, a number, epoch milliseconds."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schemas.errors import BadInput
from streams.events.files import number_shape

_UNITS: Final = {"s": 1_000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_INT64: Final = 2.0**63
_UNIT_NAMES: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_GAP_BEFORE_OFFSET: Final = re.compile(r"(\d) ([+-]\d\d:?\d\d|Z)$")
_UTC_NAMES: Final = re.compile(r"\s*(UTC|GMT)$")


_NO_MINOR_UNITS: Final = frozenset("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split())
_THOUSANDTHS: Final = frozenset("BHD IQD JOD KWD LYD OMR TND".split())


def minor_units(currency: str) -> float:
    """Give the value of a currency's smallest unit in that currency, by ISO 4217.

    >>> minor_units("EUR"), minor_units("JPY")
    (0.01, 1.0)
    """
    if currency in _NO_MINOR_UNITS:
        return 1.0
    return 0.001 if currency in _THOUSANDTHS else 0.01


class Unreadable(ValueError):  # noqa: N818 - what it says of a value
    """A value that is not what was expected of it; `str()` completes "the value ... "."""


def as_text(value: object) -> str | None:
    """Give a text as it is, and a whole number as one writes it; blanks around it go. None where nothing is left."""
    if value is None:
        return None
    if isinstance(value, bool | list | dict):
        what = {bool: "true or false", list: "a list", dict: "an object"}[type(value)]
        msg = f"is {what}, expected text"
        raise Unreadable(msg)
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text.strip() or None


def as_number(value: object, *, decimal: str = ".", thousands: str = "") -> float | None:
    """Read a number; None where there is none.

    decimal, thousands: the signs that a text uses.

    >>> as_number("1.234,50", decimal=",", thousands=".")
    1234.5
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value)
    if not isinstance(value, str):
        msg = "is no number"
        raise Unreadable(msg)
    text = value.strip()
    if not text:
        return None
    plain = text.replace(thousands, "") if thousands else text
    if decimal != ".":
        if "." in plain:
            msg = f"has a point, expected the decimal sign {decimal!r}"
            raise Unreadable(msg)
        plain = plain.replace(decimal, ".")
    try:
        if "_" in plain:
            raise ValueError
        number = float(plain)
    except ValueError:
        raise Unreadable(_no_number(text, decimal)) from None
    return _finite(number)


def _finite(number: float) -> float:
    """Give a number as a float; `Unreadable` where that is not finite."""
    try:
        found = float(number)
    except OverflowError:  # of a whole number
        found = math.inf
    if not math.isfinite(found):
        msg = "is no finite number, or too large a one"
        raise Unreadable(msg)
    return found


def _no_number(text: str, decimal: str) -> str:
    shape = number_shape(text)
    if decimal != "." and shape in ("decimal comma", "thousands"):
        return "is no number"
    return _SHAPES.get(shape, "is no number")


_SHAPES: Final = {
    "decimal comma": 'is no number with a decimal point: say decimal = ","',
    "thousands": 'has signs for thousands: say thousands = ","',
    "currency": "has a sign that is no part of a number, such as a currency's",
}


def as_time_ms(value: object, *, form: str = "iso", zone: str = "") -> int | None:
    """Read a time as epoch milliseconds; None where there is none.

    form: "iso", "s", "ms", "us" or "ns" since 1970, or a format of strptime. zone: IANA name, for times without one.

    >>> as_time_ms("2026-03-05 21:06:21 +0400")
    1772730381000
    """
    if value is None or value == "":
        return None
    if form in _UNITS:
        try:
            number = as_number(value)
        except Unreadable:
            msg = f'is no number of {_UNIT_NAMES[form]}: say time = "iso", or its form as strptime has them'
            raise Unreadable(msg) from None
        if number is not None and abs(number * _UNITS[form]) >= _INT64:
            msg = "lies beyond all time"
            raise Unreadable(msg)
        return None if number is None else round(number * _UNITS[form])
    if isinstance(value, datetime):  # of a Parquet file
        return _epoch_ms(value, zone)
    if not isinstance(value, str):
        msg = 'is no text; a number of seconds is time = "s", of milliseconds "ms"'
        raise Unreadable(msg)
    return _parsed_ms(value.strip(), form, zone)


@lru_cache(maxsize=65_536)  # the lines of one order have one time
def _parsed_ms(text: str, form: str, zone: str) -> int | None:
    if not text:
        return None
    if form != "iso":
        try:
            return _epoch_ms(datetime.strptime(text, form), zone)  # noqa: DTZ007 - the zone comes with `_epoch_ms`
        except ValueError:
            msg = f"is no time of the form {form}"
            raise Unreadable(msg) from None
    try:
        return _epoch_ms(datetime.fromisoformat(_GAP_BEFORE_OFFSET.sub(r"\1\2", _UTC_NAMES.sub("Z", text))), zone)
    except ValueError as error:
        if isinstance(error, Unreadable):
            raise
        if re.fullmatch(r"\d{9,20}", text):
            msg = 'is no ISO time but a number: say time = "s" for seconds, "ms" for milliseconds'
        elif re.match(r"\d{1,2}[/.]\d{1,2}[/.]\d{2,4}", text):
            msg = 'is no ISO time: say its form, such as time = "%d/%m/%Y %H:%M" where the day comes first'
        else:
            msg = "is no ISO time: say its form, as strptime has them (time = ...)"
        raise Unreadable(msg) from None


def _epoch_ms(time: datetime, zone: str) -> int:
    if time.tzinfo is None:
        if not zone:
            msg = 'tells no time zone: give --zone, or zone = "Europe/London" in the mapping'
            raise Unreadable(msg)
        time = time.replace(tzinfo=zone_of(zone))
    return int((time - _EPOCH).total_seconds() * 1_000)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache
def zone_of(name: str) -> ZoneInfo:
    """Give a time zone by its IANA name; `BadInput` where there is none of it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"there is no time zone {name!r}; an IANA name is expected, such as Europe/London"
        raise BadInput(msg) from error
