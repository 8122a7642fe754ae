"""Tables of any dialect, numbers of any style and times of any zone come out as what was written into them."""

from __future__ import annotations

import csv
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.inputs import BY_NAME
from streams.intake import convert as conversion
from streams.intake.convert import Local, Source, mapped
from streams.intake.mapper import Event, LeftOut, Mapper
from streams.intake.mapping import InputMapping
from streams.intake.readers import Opened, Record, opened
from streams.intake.report import Report
from streams.intake.values import as_number, as_time_ms
from tests.support.examples import examples

CSV = InputMapping(format="csv", fields={})
NAMES = [field.name for field in BY_NAME["orders"].fields]
cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=12)
ORDERS = InputMapping(
    format="json",
    each="lines",
    fields={
        "order_id": "parent.id",
        "sku": "sku",
        "quantity": "n",
        "unit_price": "price",
        "currency": "parent.currency",
        "event_time_ms": "parent.time",
    },
    time="ms",
)
lines = st.fixed_dictionaries(
    {"sku": st.sampled_from(["A", "B", "", " "]) | st.integers(0, 9), "n": st.integers(-5, 5), "price": st.just(2)}
) | st.sampled_from([{}, 7, None, {"sku": "A", "n": "many", "price": 1}])
orders = st.fixed_dictionaries(
    {
        "id": st.integers(0, 10**6),
        "currency": st.sampled_from(["EUR", "eur", None, "euros"]),
        "time": st.sampled_from([1_700_000_000_000, 1_700_000_000, None, "soon"]),
        "lines": st.lists(lines, max_size=5) | st.none(),
    }
)


@examples(150)
@given(
    st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=20),
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_is_read_as_it_was_written(rows: list[list[str]], delimiter: str, encoding: str, end: str) -> None:
    header = ["first one", "second", "third"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        with path.open("w", newline="", encoding=encoding) as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
            writer.writerow(header)
            writer.writerows(rows)
        found = opened(path, CSV)
        assert found.columns == tuple(header)
        values = [record.values for record in found.records]
    expected = [dict(zip(header, (cell or None for cell in row), strict=True)) for row in rows if any(row)]
    assert values == expected


@given(
    st.decimals(-(10**9), 10**9, places=2), st.sampled_from([(".", ","), (",", "."), (".", "'"), (",", " "), (".", "")])
)
def test_a_number_is_read_as_it_was_written(number: Any, signs: tuple[str, str]) -> None:  # noqa: ANN401 - a Decimal
    decimal, thousands = signs
    text = f"{number:,}".replace(",", "T").replace(".", decimal).replace("T", thousands)
    assert as_number(text, decimal=decimal, thousands=thousands) == float(number)


@given(
    st.integers(946_684_800, 4_000_000_000),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "UTC"]),
)
def test_a_time_is_the_same_moment_however_it_is_written(seconds: int, zone: str) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    local = moment.astimezone(ZoneInfo(zone))
    forms = [
        local.isoformat(),
        f"{local:%Y-%m-%d %H:%M:%S %z}",
        f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        f"{moment:%Y-%m-%d %H:%M:%S} UTC",
    ]
    assert {as_time_ms(form) for form in forms} == {seconds * 1_000}
    is_told_twice = (local + timedelta(hours=1)).replace(fold=1).utcoffset() != local.utcoffset() or local.fold
    if not is_told_twice:
        assert as_time_ms(f"{local:%d.%m.%Y %H:%M:%S}", form="%d.%m.%Y %H:%M:%S", zone=zone) == seconds * 1_000


@examples(150)
@given(st.lists(orders, max_size=8))
def test_of_every_line_there_is_an_event_or_a_reason(documents: list[dict[str, Any]]) -> None:
    mapper = Mapper(ORDERS, "orders", where="mine")
    for number, document in enumerate(documents, 1):
        found = list(mapper.events(Record(f"record {number}", document)))
        listed = document["lines"]
        assert len(found) == (1 if listed is None else len(listed))
        events = [each for each in found if isinstance(each, Event)]
        assert len({event.row[0] for event in events}) == len(events), "every line has its own id"
        for event in events:
            row = dict(zip(NAMES, event.row, strict=True))
            assert row["currency"] == str(document["currency"]).upper()
            assert row["order_id"] == str(document["id"])
            assert isinstance(row["event_time_ms"], int)
        assert all(each.reason for each in found if isinstance(each, LeftOut))


@examples(60)
@given(st.lists(orders, max_size=12), st.integers(1, 5))
def test_a_report_accounts_for_every_line(documents: list[dict[str, Any]], batch_rows: int) -> None:
    records = [Record(f"record {n}", document) for n, document in enumerate(documents, 1)]

    def source() -> Source:
        return Source(Path("a.json"), "orders", ORDERS, Opened((), iter(records)), "mine")

    expected = sum(1 for _ in mapped(source(), Local()))
    report = Report(now_ms=1_800_000_000_000)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "BATCH_ROWS", batch_rows)
        try:
            written = conversion.convert([source()], Path(folder), report, max_errors=1.0)
        except conversion.BadInput:
            assert not report.events.total()
            assert not list(Path(folder).iterdir())
        else:
            assert set(written) == {"orders"}
    assert report.events.total() + report.left_out + report.duplicates == expected
    assert report.records == len(documents)
