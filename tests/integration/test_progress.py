"""Commands that take long say how far they are, also where nobody sits at a terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.topics import names

if TYPE_CHECKING:
    from pathlib import Path

DAY_MS = 86_400_000
T0 = 1_680_307_200_000  # 2023-04-01T00:00Z
LINE = r"^{what}: [\d,]+ of [\d,]+, [\d.,]+/s, (\d+ (d|h|min|s) ?)+left(; .*)?$"


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40,000 order lines of 8 SKUs over 120 days."""
    rng = np.random.default_rng(0)
    count = 40_000
    lines = pd.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(count)],
            "order_id": "o",
            "sku": [f"sku{n}" for n in rng.integers(0, 8, count)],
            "quantity": rng.integers(1, 5, count).astype(float),
            "unit_price": 2.0,
            "currency": "GBP",
            "event_time_ms": np.sort(T0 + rng.integers(0, 120 * DAY_MS, count)),
            "customer_id": pd.Series([None] * count, dtype="string"),
        }
    )
    path = tmp_path_factory.mktemp("events") / "orders.parquet"
    lines.to_parquet(path, index=False)
    return path


def said(*arguments: str, every_s: float = 0.01, **environment: str) -> str:
    """Run a command with stderr in a pipe, and give what it said there; lines come more often than in real life."""
    code = (
        "import sys; from streams.observe import progress; "
        f"progress.EVERY_S = {every_s}; from streams.cli import cli; cli(sys.argv[1:])"
    )
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", code, *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", **environment},  # noqa: S108 - nothing is written there
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    assert "\x1b" not in done.stderr, "a pipe is no terminal"
    return done.stderr


def told(text: str, what: str) -> list[str]:
    return [match.group() for match in re.finditer(LINE.format(what=what), text, re.MULTILINE)]


def test_replay_says_how_far_it_is(orders: Path) -> None:
    with EmbeddedBroker() as broker:
        broker.make(names())
        text = said(
            "replay", "--orders", str(orders), SKUTREND_BROKERS=broker.bootstrap, SKUTREND_TIMEZONE="Asia/Tokyo"
        )
    assert told(text, "replaying events")
    assert all(re.search(r"; 2023-\d\d-\d\d$", line) for line in told(text, "replaying events"))


def test_training_says_how_far_it_is(orders: Path, tmp_path: Path) -> None:
    text = said("train", "--orders", str(orders), "--out", str(tmp_path / "bundle"), "--iterations", "3")
    assert told(text, "reading events")
    assert told(text, "replaying windows through the serving code")
    assert all("; loss " in line for line in told(text, "training, iterations"))
    assert told(text, "training, iterations")
    assert "exporting and checking: " in text


def test_a_backtest_says_how_far_it_is(orders: Path, tmp_path: Path) -> None:
    text = said(
        *("backtest", "--orders", str(orders), "--out", str(tmp_path / "f.parquet")),
        *("--first-origin", "2023-05-15", "--every", "7", "--count", "2"),
        every_s=0.005,
    )
    assert told(text, "reading events")
    assert told(text, "closing windows")
