"""The measurements that need no Kafka run, on a hundredth of their sizes; what they measure is no matter of a test."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.kafka_broker import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (("state", "--skus", "100"), r"100 SKUs: row [\d,]+ B; .* flush [\d.]+ s, restore [\d.]+ s"),
        (("ingest",), r"ingest, flat JSON: [\d,]+ lines/s a core at once, [\d,]+ one by one"),
        (("tombstones", "--tombstones", "1000"), r"recovery of 1,000 tombstones: \d+ MB of memory"),
    ],
)
def test_a_measurement_runs(what: tuple[str, ...], said: str) -> None:
    done = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-m", "tests.bench", *what], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120
    )
    assert re.search(said, done.stdout), done.stdout
