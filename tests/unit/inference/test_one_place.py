"""What is said in one way is written in one place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from features.cadence import LEVELS
from inference.scoring import pinball
from inference.training import loss

ROOT = Path(__file__).parents[3]
SOURCES = [path for room in ("schemas", "features", "inference", "streams") for path in (ROOT / room).rglob("*.py")]


def places(pattern: str) -> set[str]:
    found = {str(path.relative_to(ROOT)) for path in SOURCES if re.search(pattern, path.read_text(), re.MULTILINE)}
    assert len(SOURCES) > 80
    return found


@pytest.mark.parametrize(
    ("what", "pattern", "where"),
    [
        # the two others only ask whether an SKU is printable
        (
            "text of others is made printable",
            r"isprintable\(|unicode_escape",
            {"schemas/printable.py", "schemas/decoding.py", "schemas/refusals.py"},
        ),
        # of Avro as JSON has them, for mappings to read
        (
            "times become text",
            r"strftime|(?<!from)isoformat\(|fromtimestamp|:%[YHdmab]",
            {"features/dates.py", "streams/intake/avro.py"},
        ),
        # training differentiates its own, which is held against this one below
        ("float32 columns are bounded", r"[=(,] ?3e38", {"inference/arrays.py"}),
        ("outliers are bounded by a multiple", r"^[A-Z_]*_MULTIPLE\b.* = ", {"features/outliers.py"}),
        ("no price change is known", r"NO_PRICE_CHANGE_MS = ", {"features/open_windows.py"}),
        ("p-values have a floor", r"\b1e-300\b.*\n", {"inference/negative_binomial.py"}),
        ("quantiles are scored", r"def _?pinball", {"inference/scoring.py", "inference/training/loss.py"}),
        (
            "a quantile loss is computed",
            r"maximum\((tau|_TAU|levels) \*",
            {"inference/scoring.py", "inference/training/loss.py"},
        ),
    ],
)
def test_there_is_one_place_where(what: str, pattern: str, where: set[str]) -> None:
    assert places(pattern) == where, what


def test_training_minds_the_same_loss_as_the_live_score() -> None:
    rng = np.random.default_rng(0)
    y, quantiles = rng.gamma(2, 5, 50), np.sort(rng.gamma(2, 5, (50, len(LEVELS))), axis=1)
    torn = loss.pinball(torch.from_numpy(y), torch.from_numpy(quantiles), torch.tensor(LEVELS, dtype=torch.float64))
    np.testing.assert_allclose(torn.numpy(), pinball(y, quantiles).mean(axis=1))
