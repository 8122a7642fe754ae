"""The `train` command for windows other than days: what it writes can be checked, measured and served."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from features.cadence import HOUR_MS
from features.encoding import fingerprint
from inference.bundle import load
from schemas.errors import BundleMismatch
from streams.cli import cli
from streams.commands.serve import open_session, with_horizon
from streams.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

FIRST_MS = 1_300_060_800_000  # 2011-03-14


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six days of a shop that is open from 8 to 20, 30 SKUs."""
    rng = np.random.default_rng(5)
    hours = np.repeat([hour for hour in range(6 * 24) if 8 <= hour % 24 < 20], 60)
    table = pd.DataFrame({
        "event_id": [str(i) for i in range(len(hours))],
        "order_id": [str(i) for i in range(len(hours))],
        "sku": [f"S{sku:02d}" for sku in rng.integers(0, 30, len(hours))],
        "quantity": rng.integers(1, 5, len(hours)).astype(float),
        "unit_price": 2.5,
        "currency": "GBP",
        "event_time_ms": FIRST_MS + hours * HOUR_MS + rng.integers(0, HOUR_MS, len(hours)),
        "customer_id": None,
    })  # fmt: skip
    path = tmp_path_factory.mktemp("shop") / "orders.parquet"
    table.to_parquet(path)
    return path


def skutrend(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_a_bundle_for_hours_is_trained_checked_measured_and_served(orders: Path, tmp_path: Path) -> None:
    out, forecasts = tmp_path / "bundle", tmp_path / "forecasts.parquet"
    hours = ("--window-ms", str(HOUR_MS), "--iterations", "3")
    skutrend("train", "--orders", str(orders), "--out", str(out), *hours)
    manifest = load(out, expected_fingerprint=fingerprint()).manifest
    assert (manifest.window_ms, manifest.name) == (HOUR_MS, "lstm-1h")
    assert manifest.training_span.end_ms - manifest.training_span.start_ms >= 5 * 24 * HOUR_MS
    assert f"windows of {HOUR_MS} ms" in skutrend("bundle", "check", str(out))
    assert open_session(Settings(bundle=str(out), window_ms=HOUR_MS, provider="cpu")) is not None
    assert (manifest.horizon, manifest.sum_windows) == (24, (7, 14, 24))
    where = ("--first-origin", "2011-03-18", "--every", "6", "--count", "3", "--out", str(forecasts))
    skutrend("backtest", "--orders", str(orders), "--bundle", str(out), *where)
    origins = sorted(set(pq.read_table(forecasts)["origin_ms"].to_pylist()))
    assert origins == [FIRST_MS + (4 * 24 + 6 * i) * HOUR_MS for i in range(3)], "six hours apart, not six days"
    assert set(pq.read_table(forecasts)["step"].to_pylist()) == {*range(1, 25), -7, -14, -24}


@pytest.mark.slow
def test_a_bundle_chooses_how_many_hours_are_forecast(orders: Path, tmp_path: Path) -> None:
    out, forecasts = tmp_path / "bundle", tmp_path / "forecasts.parquet"
    longer = ("--window-ms", str(HOUR_MS), "--iterations", "3", "--horizon", "30")
    skutrend("train", "--orders", str(orders), "--out", str(out), *longer)
    assert "30 steps, sums over 7, 14, 24 windows" in skutrend("bundle", "check", str(out))
    settings = Settings(bundle=str(out), window_ms=HOUR_MS, provider="cpu")
    session = open_session(settings)
    assert session is not None
    assert with_horizon(settings, session).grid.cadence.horizon == 30
    asked = msgspec.structs.replace(settings, horizon=24)
    with pytest.raises(BundleMismatch, match=r"forecasts 30 windows, this worker 24; train one .*--horizon 24"):
        open_session(asked)
    assert with_horizon(asked, session) == asked, "the settings come first"
    where = ("--first-origin", "2011-03-18", "--every", "6", "--count", "3", "--out", str(forecasts))
    skutrend("backtest", "--orders", str(orders), "--bundle", str(out), *where)
    assert set(pq.read_table(forecasts)["step"].to_pylist()) == {*range(1, 31), -7, -14, -24}
    skutrend("backtest", "--orders", str(orders), "--bundle", str(out), "--horizon", "9", *where)
    assert set(pq.read_table(forecasts)["step"].to_pylist()) == {*range(1, 10), -7}
    done = CliRunner().invoke(cli, ["backtest", "--orders", str(orders), "--horizon", "24", *where])
    assert done.exit_code == 1
    assert "--horizon is 24, but 14 of these windows are forecast" in done.output


def test_a_backtest_of_hours_heeds_the_horizon_of_the_settings_and_not_their_start_of_days(
    orders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKUTREND_DAY_START", "04:00")
    monkeypatch.setenv("SKUTREND_WINDOW_MS", "86400000")
    config, out = tmp_path / "skutrend.toml", tmp_path / "forecasts.parquet"
    config.write_text('window_ms = 3600000\nhorizon = 30\nday_start = "00:00"\n')
    where = ("--first-origin", "2011-03-18", "--every", "6", "--count", "1", "--out", str(out))
    hours = ("backtest", "--orders", str(orders), "--window-ms", str(HOUR_MS), *where)
    skutrend(*hours)
    assert set(pq.read_table(out)["step"].to_pylist()) == {*range(1, 25), -7, -14, -24}
    monkeypatch.delenv("SKUTREND_DAY_START")
    monkeypatch.delenv("SKUTREND_WINDOW_MS")
    skutrend("--config", str(config), *hours)
    assert set(pq.read_table(out)["step"].to_pylist()) == {*range(1, 31), -7, -14, -24}


def test_of_days_there_is_one_horizon(orders: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["train", "--orders", str(orders), "--out", str(tmp_path), "--horizon", "24"])
    assert done.exit_code == 2
    assert "of windows of a day and longer 14 are forecast" in done.output


def test_hours_are_backtested_with_a_bundle_of_days_by_plain_forecasts(orders: Path, tmp_path: Path) -> None:
    out, scores = tmp_path / "forecasts.parquet", tmp_path / "scores.json"
    where = ("--first-origin", "2011-03-18", "--every", "6", "--count", "3", "--out", str(out))
    skutrend("backtest", "--orders", str(orders), "--window-ms", str(HOUR_MS), *where, "--scores", str(scores))
    origins = sorted(set(pq.read_table(out)["origin_ms"].to_pylist()))
    assert origins == [FIRST_MS + (4 * 24 + 6 * i) * HOUR_MS for i in range(3)]
    loss = {
        row["source"]: row["wql"] for row in json.loads(scores.read_bytes()) if row["class"] == row["steps"] == "all"
    }
    assert "lstm" not in loss, "the net has learnt days"
    assert loss["served"] <= 1.02 * loss["ewnb"]
    assert loss["ewnb"] < loss["seasonal_naive"]


def test_a_length_that_is_no_window_is_a_sentence(orders: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["train", "--orders", str(orders), "--out", str(tmp_path / "b"), "--window-ms", "7000000"]
    )
    assert done.exit_code == 1
    assert "does not divide a day" in done.stderr


def test_training_without_its_libraries_names_the_extra_before_anything_is_read(
    orders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "inference.training.export", None)  # as where its imports of torch fail
    done = CliRunner().invoke(cli, ["train", "--orders", str(orders), "--out", str(tmp_path / "b")])
    assert (done.exit_code, done.stderr) == (1, "skutrend: training needs PyTorch: install `skutrend[train]`\n")
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_a_backtest_holds_its_forecasts_against_what_was_sold_beside_references(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    days = np.repeat(np.arange(120), 40)
    table = pd.DataFrame({
        "event_id": [str(i) for i in range(len(days))],
        "order_id": [str(i) for i in range(len(days))],
        "sku": [f"S{sku:02d}" for sku in rng.integers(0, 8, len(days))],
        "quantity": rng.integers(1, 5, len(days)).astype(float),
        "unit_price": 2.5,
        "currency": "GBP",
        "event_time_ms": FIRST_MS + days * 24 * HOUR_MS + rng.integers(0, 24 * HOUR_MS, len(days)),
        "customer_id": None,
    })  # fmt: skip
    orders, out, scores = (tmp_path / name for name in ("orders.parquet", "f.parquet", "scores.json"))
    table.to_parquet(orders)
    where = ("--first-origin", "2011-06-01", "--every", "14", "--count", "2", "--out", str(out))
    others = ("--references", "autoets", "--references", "lightgbm")
    printed = skutrend("backtest", "--orders", str(orders), *where, "--scores", str(scores), *others)
    rows = {(row["source"], row["class"], row["steps"]): row for row in json.loads(scores.read_bytes())}
    sources = {"served", "lstm", "ewnb", "ewnb_fast", "window_quantiles", "seasonal_naive", "autoets", "lightgbm"}
    assert {source for source, *_ in rows} == sources
    made = pq.read_table(out).to_pandas()
    sold = table.assign(day=days).groupby(["sku", "day"])["quantity"].sum().unstack(fill_value=0)
    steps = made[made["step"] > 0]
    at = (steps["origin_ms"] - FIRST_MS) // (24 * HOUR_MS) + steps["step"] - 1
    y = np.array([sold.loc[sku, day] for sku, day in zip(steps["sku"], at, strict=True)])
    assert rows["served", "all", "all"]["cells"] == len(y) == 2 * 8 * 14
    assert rows["served", "all", "all"]["mae"] == pytest.approx(np.abs(y - steps["q50"]).mean())
    assert rows["served", "all", "all"]["rmse"] == pytest.approx(np.sqrt(((y - steps["mean"]) ** 2).mean()), rel=1e-5)
    assert rows["autoets", "all", "sum7"]["cells"] == 0
    for source in sources - {"seasonal_naive"}:
        assert rows[source, "all", "all"]["wql"] < rows["seasonal_naive", "all", "all"]["wql"], source
    for name in ("served", "net alone", "AutoETS", "LightGBM", "below 90 %", "10-14", "fast"):
        assert name in printed
