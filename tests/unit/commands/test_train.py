"""The `train` command for windows other than days: what it writes can be checked, measured and served."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from features.cadence import HOUR_MS
from features.encoding import fingerprint
from inference.bundle import load
from streams.cli import cli
from streams.commands.serve import open_session
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
    where = ("--first-origin", "2011-03-18", "--every", "6", "--count", "3", "--out", str(forecasts))
    skutrend("backtest", "--orders", str(orders), "--bundle", str(out), *where)
    origins = sorted(set(pq.read_table(forecasts)["origin_ms"].to_pylist()))
    assert origins == [FIRST_MS + (4 * 24 + 6 * i) * HOUR_MS for i in range(3)], "six hours apart, not six days"


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
