"""Numbers and times as other systems write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schemas.errors import BadInput
from streams.intake.values import Unreadable, as_number, as_text, as_time_ms, minor_units

T = 1_772_730_381_000  # 2026-03-05T17:06:21Z


@pytest.mark.parametrize(
    ("written", "decimal", "thousands", "number"),
    [
        ("16.00", ".", "", 16.0),
        (" -3 ", ".", "", -3.0),
        ("1,234.50", ".", ",", 1234.5),
        ("1.234,50", ",", ".", 1234.5),
        ("10,50", ",", "", 10.5),
        ("1'234.5", ".", "'", 1234.5),
        ("1e3", ".", "", 1000.0),
        (7, ".", "", 7.0),
        (2.5, ",", "", 2.5),
        ("", ".", "", None),
        ("  ", ".", "", None),
        (None, ".", "", None),
    ],
)
def test_numbers_are_read_with_the_signs_they_are_written_with(
    written: object, decimal: str, thousands: str, number: float | None
) -> None:
    assert as_number(written, decimal=decimal, thousands=thousands) == number


@pytest.mark.parametrize(
    ("written", "decimal", "why"),
    [
        ("10,50", ".", 'say decimal = ","'),
        ("1.234,50", ".", 'say decimal = ","'),
        ("1,200", ".", 'say thousands = ","'),
        ("1.5", ",", "has a point"),
        ("€10.00", ".", "such as a currency's"),
        ("10.00 EUR", ".", "is no number"),
        ("six", ".", "is no number"),
        ("1_000", ".", "is no number"),
        (True, ".", "is no number"),
        ("nan", ".", "is no finite number"),
        ("1e999", ".", "is no finite number"),
        (10**400, ".", "is no finite number"),
        ([1], ".", "is no number"),
    ],
)
def test_what_is_no_number_says_what_to_change(written: object, decimal: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        as_number(written, decimal=decimal)


@pytest.mark.parametrize(
    ("written", "form", "zone"),
    [
        ("2026-03-05T21:06:21+04:00", "iso", ""),
        ("2026-03-05 21:06:21 +0400", "iso", ""),
        ("2026-03-05T17:06:21Z", "iso", ""),
        ("2026-03-05 17:06:21 UTC", "iso", ""),
        ("2026-03-05T17:06:21.000Z", "iso", ""),
        ("2026-03-05 18:06:21", "iso", "Europe/Berlin"),
        ("05/03/2026 17:06:21", "%d/%m/%Y %H:%M:%S", "Europe/London"),
        ("1772730381", "s", ""),
        (1772730381, "s", ""),
        (1772730381.0, "s", ""),
        (T, "ms", ""),
        (f"{T}000", "us", ""),
        (T * 1_000_000, "ns", ""),
        (datetime(2026, 3, 5, 17, 6, 21, tzinfo=UTC), "iso", ""),
    ],
)
def test_times_of_all_forms_are_one_moment(written: object, form: str, zone: str) -> None:
    assert as_time_ms(written, form=form, zone=zone) == T


def test_a_date_is_its_first_moment_in_the_shop_s_zone() -> None:
    assert (
        as_time_ms("2026-03-05", zone="Europe/Berlin") == int(datetime(2026, 3, 4, 23, tzinfo=UTC).timestamp()) * 1000
    )


@pytest.mark.parametrize(
    ("written", "form", "why"),
    [
        ("2026-03-05 17:06:21", "iso", "tells no time zone: give --zone"),
        ("14/11/2023 22:13", "iso", "where the day comes first"),
        ("1772730381", "iso", 'say time = "s"'),
        ("yesterday", "iso", "say its form"),
        ("2026-03-05", "%d/%m/%Y", "is no time of the form %d/%m/%Y"),
        ("2023-11-14T22:13:20Z", "ms", 'is no number of milliseconds: say time = "iso"'),
        (10**30, "ms", "lies beyond all time"),
        ("inf", "s", "is no number of seconds"),
        (17, "iso", 'a number of seconds is time = "s"'),
    ],
)
def test_what_is_no_time_says_what_to_change(written: object, form: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        as_time_ms(written, form=form)


def test_a_zone_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="no time zone 'Europe/Brlin'"):
        as_time_ms("2026-03-05", zone="Europe/Brlin")


def test_texts_lose_their_blanks_and_whole_numbers_their_fraction() -> None:
    assert [as_text(each) for each in (" A-1 ", 417, 417.0, 4.5, "", "  ", None)] == ["A-1", "417", "417", "4.5"] + [
        None
    ] * 3
    for odd in (True, [1], {"a": 1}):
        with pytest.raises(Unreadable):
            as_text(odd)


def test_the_smallest_unit_of_a_currency_is_not_always_a_hundredth() -> None:
    assert [minor_units(each) for each in ("EUR", "JPY", "KWD")] == [0.01, 1.0, 0.001]
