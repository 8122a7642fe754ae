"""Files in, event files and a report out."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from schemas.errors import BadInput
from schemas.inputs import BY_NAME
from streams.events.files import read, survey
from streams.intake import convert as module
from streams.intake.convert import Local, convert
from streams.intake.mapping import MappingFile, parse
from streams.intake.recognise import recognised, source_for
from streams.intake.report import Report

if TYPE_CHECKING:
    from pathlib import Path

NOW_MS = 1_800_000_000_000
HEADER = "event_id,order_id,sku,quantity,unit_price,currency,event_time_ms,customer_id"
T0 = 1_700_000_000_000


def table(folder: Path, *rows: str, name: str = "orders.csv", header: str = HEADER) -> Path:
    path = folder / name
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def row(n: int, **changes: object) -> str:
    fields = {"event_id": f"e{n}", "order_id": f"o{n}", "sku": "A", "quantity": 1, "unit_price": 10.0,
              "currency": "EUR", "event_time_ms": T0 + n, "customer_id": "c1"}  # fmt: skip
    return ",".join(map(str, (fields | changes).values()))


def converted(path: Path, out: Path, **how: Any) -> tuple[list[dict[str, Any]], Report]:  # noqa: ANN401 - as `convert`
    report = Report(NOW_MS)
    written = convert([recognised(path)], out, report, **how)
    return pq.read_table(written["orders"]).to_pylist(), report


def mine(**more: str) -> MappingFile:
    added = "\n".join(f"{key} = {value}" for key, value in more.items())
    return parse(
        f"""
name = "mine"
title = "a till"
[orders]
format = "csv"
{added}
[orders.fields]
order_id = "receipt"
sku = "article"
quantity = "pieces"
unit_price = {{ from = "cents", scale = 0.01 }}
currency = {{ constant = "EUR" }}
event_time_ms = {{ from = "when", time = "s" }}
""",
        "mine.toml",
    )


def test_events_are_written_as_the_other_commands_read_them(tmp_path: Path) -> None:
    events, report = converted(table(tmp_path, *map(row, range(50))), tmp_path)
    assert survey(tmp_path / "orders.parquet", "orders").rows == 50
    assert [event for batch in read(tmp_path / "orders.parquet", "orders") for event in batch.to_pylist()] == events
    assert events[3] == {
        "event_id": "e3", "order_id": "o3", "sku": "A", "quantity": 1.0, "unit_price": 10.0, "currency": "EUR",
        "event_time_ms": T0 + 3, "customer_id": "c1", "channel": None, "category": None,
    }  # fmt: skip
    assert list(report.lines("Europe/Berlin")) == [
        "50 records: 50 orders", "from 2023-11-14 to 2023-11-14, 1 SKU", "currencies: EUR 50",
    ]  # fmt: skip


def test_what_a_worker_would_refuse_is_left_out_with_its_reason_and_first_place(tmp_path: Path) -> None:
    """Three quarters of such a file were left out without a word."""
    bad = [row(1, sku=""), row(2, currency="€"), row(3, unit_price=-10), row(4, quantity="2e18"), row(5, sku="A\x07")]
    path = table(tmp_path, *map(row, range(10, 100)), *bad)
    events, report = converted(path, tmp_path, max_errors=0.1)
    assert len(events) == 90
    assert list(report.lines())[3:] == [
        "left out 3: out_of_range (first orders.csv, line 93: `currency` must be a currency code of 3 letters, "
        'found "€")',
        "left out 1: no sku (first orders.csv, line 92)",
        "left out 1: control_character (first orders.csv, line 96: `sku` must hold no control character, line "
        r"separator or override of text direction, found U+0007 as character 2: A\x07)",
    ]


def test_too_much_that_cannot_be_used_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    path = table(tmp_path, *map(row, range(18)), row(18, sku=""), row(19, sku=""))
    with pytest.raises(BadInput, match=r"10% of the events cannot be used, more than 5% .*no sku, 2 times, first .*20"):
        converted(path, tmp_path)
    assert not (tmp_path / "orders.parquet").exists()
    assert len(converted(path, tmp_path, max_errors=0.1)[0]) == 18
    with pytest.raises(BadInput, match="nothing became an event"):
        converted(table(tmp_path), tmp_path)


def test_the_same_event_twice_is_taken_once_also_from_two_files(tmp_path: Path) -> None:
    first = table(tmp_path, *map(row, range(40)), name="a.csv")
    second = table(tmp_path, *map(row, range(30, 60)), row(59), name="b.csv")
    report = Report(NOW_MS)
    written = convert([recognised(first), recognised(second)], tmp_path, report)
    assert pq.read_table(written["orders"])["event_id"].to_pylist() == [f"e{n}" for n in range(60)]
    assert report.duplicates == 11
    assert "11 events were there twice and were taken once" in list(report.lines())


def test_an_id_that_comes_again_with_other_contents_is_an_error(tmp_path: Path) -> None:
    """An order number as event_id of three lines: two thirds of the demand went as duplicates, without a word."""
    lines = [row(n, event_id=f"#{n}", sku=sku) for n in range(40) for sku in ("TEE", "MUG", "CAP")]
    with pytest.raises(BadInput, match=r"67% .*id_reused, 80 times, first orders.csv, line 3: event_id '#0' was"):
        converted(table(tmp_path, *lines), tmp_path)


def test_batches_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)  # noqa: S311
    rows = [row(rng.randrange(60), sku=rng.choice("AB")) if rng.random() < 0.5 else row(n) for n in range(100)]
    path = table(tmp_path, *rows)
    found = []
    for size in (1, 7, 16_384):
        monkeypatch.setattr(module, "BATCH_ROWS", size)
        events, report = converted(path, tmp_path, max_errors=1.0)
        found.append((events, list(report.lines())))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (1_700_000_000, 'would be one in seconds: say time = "s"'),
        (T0 * 1_000, 'microseconds: say time = "us"'),
        (5, "reason"),
    ],
)
def test_times_out_of_all_reason_say_which_unit_they_are_in(tmp_path: Path, time: int, said: str) -> None:
    with pytest.raises(BadInput, match=rf"implausible_time: .*{said}"):
        converted(table(tmp_path, row(1, event_time_ms=time)), tmp_path)


def test_a_mapping_of_one_s_own(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "7;A;2;1999;1700000000",
        "7;B;1;500;1700000000",
        "8;A;-1;1999;1700003600",
        header="receipt;article;pieces;cents;when",
    )
    report = Report(NOW_MS)
    written = convert([source_for(path, mine())], tmp_path, report)
    found = pq.read_table(written["orders"]).to_pylist()
    assert [(each["event_id"], each["sku"], each["unit_price"]) for each in found] == [
        ("7/1", "A", 19.99), ("7/2", "B", 5.0), ("8/1", "A", 19.99),
    ]  # fmt: skip
    assert next(iter(report.lines())) == "3 records: 3 orders (1 returns)"


def test_a_mapping_that_speaks_of_a_column_the_file_lacks_names_it(tmp_path: Path) -> None:
    path = table(tmp_path, "7;A;2;1999", header="receipt;article;pieces;cents")
    with pytest.raises(BadInput, match=r"mine \[orders\]: there is no column when; the file has receipt, article, pie"):
        convert([source_for(path, mine())], tmp_path, Report(NOW_MS))
    with pytest.raises(BadInput, match=r"is no file of mine \(a till\): it lacks receipts; it has receipt, article"):
        source_for(path, mine(known_by='["receipts"]'))


def test_what_looks_wrong_is_told(tmp_path: Path) -> None:
    rows = [row(1, sku="A-1"), row(2, sku="a-1", unit_price=0), row(3, sku="007"), row(4, sku="7")]
    rows += [row(5, sku="B", unit_price=1_999), row(6, sku="B", unit_price=19.99), row(7, event_time_ms=NOW_MS + 1)]
    rows += [row(8, currency="USD")]
    report = converted(table(tmp_path, *rows), tmp_path)[1]
    assert [line.removeprefix("suspicious: ") for line in report.lines() if line.startswith("suspicious")] == [
        "1 events lie in the future, which a worker refuses",
        "more than one currency; set SKUTREND_CURRENCY and SKUTREND_RATES, or convert apart",
        "1 SKUs have prices 50 times apart, such as B: some in cents, perhaps",
        "2 groups of SKUs differ only by case, blanks or leading zeros: 'A-1' and 'a-1'; '007' and '7'",
    ]


def test_a_shape_that_is_not_known_shows_the_columns_the_closest_preset_and_where_to_start(tmp_path: Path) -> None:
    path = table(tmp_path, "1;A;3", header="date;sku;count")
    with pytest.raises(BadInput) as raised:
        recognised(path)
    assert str(raised.value) == (
        f"{path} is of no known shape. It has the columns date, sku, count. The closest preset is plain (it lacks "
        "quantity). Write a mapping: `skutrend mapping show plain > mine.toml`, change it, and try it with "
        f"`skutrend mapping check mine.toml --sample {path}`"
    )
    with pytest.raises(BadInput, match=r"is of no known format: expected a name ending in .parquet, .csv"):
        recognised(tmp_path / "orders.xlsx")


def test_memory_of_what_was_seen_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Only 16-byte hashes of ids and contents stay, besides what is known by SKU."""
    report = Report(NOW_MS)
    names = [field.name for field in BY_NAME["orders"].fields]
    for n in range(3):
        report.add("orders", [tuple({"sku": "A", "currency": "EUR", "quantity": 1.0, "unit_price": 2.0,
                                     "event_time_ms": T0 + n}.get(name) for name in names)] * 1_000)  # fmt: skip
    assert report.events["orders"] == 3_000
    assert len(report.skus.prices) == len(report.currencies) == 1
    assert Local() == ("", "")
    assert tmp_path.exists()
