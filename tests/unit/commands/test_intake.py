"""`skutrend convert` and `skutrend mapping`, and exports given to the other commands, as a user types them."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from streams.cli import cli
from streams.intake.mapping import preset_texts
from tests.support.service import environment

if TYPE_CHECKING:
    from pathlib import Path

START, DAYS = datetime(2026, 1, 1, tzinfo=UTC), 60


def skutrend(*arguments: object, **settings: object) -> Result:
    wanted = environment(**settings)
    env = {name: wanted.get(name) for name in {*os.environ, *wanted} if name.startswith("SKUTREND_")}
    return CliRunner().invoke(cli, [str(each) for each in arguments], env=env, prog_name="skutrend")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A Shopify export of two months: three orders a day of two lines each."""
    rows = [
        "Name,Financial Status,Currency,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,"
        "Cancelled at,Source"
    ]
    for order in range(3 * DAYS):
        time = f"{START + timedelta(days=order // 3):%Y-%m-%d} 1{order % 3}:00:00 +0100"
        rows.append(f"#{order},paid,EUR,{time},{1 + order % 2},Fern,16.00,FERN,,web")
        rows.append(f"#{order},,,,1,Moss,5.00,MOSS-{order % 4},,")
    path = tmp_path / "orders_export_1.csv"
    path.write_text("\n".join(rows) + "\n", "utf-8-sig")
    return path


@pytest.mark.parametrize("how", [("--yes",), ("--preset", "shopify"), ("--preset", "shopify-orders")], ids=" ".join)
def test_an_export_becomes_event_files_with_a_report(export: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    done = skutrend("convert", export, "--out", tmp_path / "events", *how)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{6 * DAYS} records: {6 * DAYS} orders"
    assert lines[1] == "from 2026-01-01 to 2026-03-01, 5 SKUs"
    assert lines[-1] == f"{tmp_path / 'events' / 'orders.parquet'}: {6 * DAYS} orders"
    assert pq.read_metadata(tmp_path / "events" / "orders.parquet").num_rows == 6 * DAYS


def test_a_mapping_of_one_s_own_starts_from_a_preset(export: Path, tmp_path: Path) -> None:
    shown = skutrend("mapping", "show", "shopify-orders")
    assert shown.stdout == dict(preset_texts())["shopify-orders"]
    mine = tmp_path / "mine.toml"
    mine.write_text(shown.stdout.replace('name = "shopify-orders"', 'name = "mine"'))
    checked = skutrend("mapping", "check", mine, "--sample", export)
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert checked.stdout.startswith("mine: Shopify: orders export (CSV) -> orders\n")
    assert f"{6 * DAYS} records make {6 * DAYS} orders, 0 left out" in checked.stdout
    events = [line for line in checked.stdout.splitlines() if line.startswith("line ")]
    assert len(events) == 10
    assert events[0].split()[:6] == ["line", "2", "#0/1", "#0", "FERN", "1.0"]
    assert skutrend("convert", export, "--mapping", mine, "--out", tmp_path / "events").exit_code == 0


def test_a_file_that_looks_like_something_is_not_taken_for_it_unasked(export: Path, tmp_path: Path) -> None:
    done = skutrend("convert", export, "--out", tmp_path / "events")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        f"skutrend: {export} looks like shopify-orders (Shopify: orders export (CSV)): say --preset shopify-orders, or "
        "--yes\n"
    )


def test_the_presets_are_listed_with_what_they_read() -> None:
    done = skutrend("mapping", "list")
    assert done.exit_code == 0
    assert "shopify-orders " in done.stdout
    assert "price-changes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["convert", "EXPORT", "--out", "OUT", "--preset", "shop"], 1, "no preset 'shop'; there are amazon-orders, "),
        (["convert", "EXPORT", "--out", "OUT", "--preset", "a", "--mapping", "EXPORT"], 2, "exclude each other"),
        (["convert", "EXPORT", "--out", "/proc/x", "--yes"], 1, r"the directory /proc/x \(--out\)"),
        (["convert", "EXPORT", "--out", "OUT", "--mapping", "EXPORT"], 1, "orders_export_1.csv: "),
        (["convert", "EXPORT", "--out", "OUT", "--preset", "plain"], 1, "is no file of plain"),
        (["convert", "EXPORT", "--out", "OUT", "--preset", "online-retail"], 1, "is no file of online-retail"),
        (["mapping", "show", "shop"], 1, "no preset 'shop'"),
        (["mapping", "check", "none.toml"], 1, "none.toml does not exist"),
        (["replay"], 2, "Missing option '--orders', or an export"),
        (["replay", "EXPORT", "--orders", "EXPORT", "--yes"], 1, "orders are given twice"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_misuse_is_one_sentence(export: Path, tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    names = {"EXPORT": str(export), "OUT": str(tmp_path / "out")}
    done = skutrend(*(names.get(each, each) for each in arguments))
    assert done.exit_code == code, done.output
    assert re.search(said, done.stderr), done.stderr
    assert not list(tmp_path.glob("out/*"))


def test_a_conversion_that_fails_shows_what_it_found_before_the_sentence(export: Path, tmp_path: Path) -> None:
    export.write_text(export.read_text("utf-8-sig").replace(",16.00,", ',"16,00",'))
    done = skutrend("convert", export, "--preset", "shopify-orders", "--out", tmp_path / "out")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[0] == f"{6 * DAYS} records: {3 * DAYS} orders"
    assert lines[-1].startswith("skutrend: 50% of the events cannot be used")
    assert 'say decimal = ","' in lines[-1]
    assert skutrend("convert", export, "--preset", "shopify-orders", "--decimal", ",", "--out", tmp_path).exit_code == 1


def test_an_export_is_backtested_in_one_step(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "forecasts.parquet"
    arguments = ["--out", out, "--first-origin", "2026-02-10", "--every", 7, "--count", 1, "--horizon", 3]
    done = skutrend("backtest", "--preset", "shopify", export, *arguments, timezone="Europe/Berlin")
    assert done.exit_code == 0, done.output
    assert f"{6 * DAYS} records: {6 * DAYS} orders" in done.stderr
    assert set(pq.read_table(out)["sku"].to_pylist()) == {"FERN", "MOSS-0", "MOSS-1", "MOSS-2", "MOSS-3"}
