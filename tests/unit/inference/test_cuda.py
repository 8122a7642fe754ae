"""The same numbers on a GPU as on the CPU; only where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from features.cadence import HORIZON, SUM_WINDOWS
from features.encoding import fingerprint
from inference import bundle
from inference.session import Session, StepOutput
from schemas.errors import BadSetting

WITHIN = 2e-3  # outputs are rounded to three decimals: one more or less where a sum lies between two
STATE_WITHIN = 5e-6


@pytest.fixture(scope="module")
def pair() -> tuple[Session, Session]:
    """Return the shipped model on CUDA and on the CPU."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime knows no CUDA")
    shipped = bundle.load(expected_fingerprint=fingerprint())
    try:
        return Session(shipped, provider="cuda"), Session(shipped, provider="cpu")
    except BadSetting as error:
        pytest.skip(str(error))


def inputs(session: Session, n: int, seed: int = 1) -> dict[str, Any]:
    dice = np.random.default_rng(seed)
    state = (n, session.layers, session.hidden)
    return {
        "x": dice.normal(0, 1, (n, len(session.bundle.manifest.features))).astype(np.float32),
        "h": dice.normal(0, 0.3, state).astype(np.float32),
        "c": dice.normal(0, 0.3, state).astype(np.float32),
        "calendar": dice.normal(0, 1, len(session.bundle.manifest.calendar)).astype(np.float32),
        "scale": dice.lognormal(0, 1, n).astype(np.float32),
        "season_next": dice.uniform(0.5, 1.5, HORIZON).astype(np.float32),
        "season_sums": np.array(SUM_WINDOWS, np.float32),
        "integer_units": dice.random(n) < 0.7,
    }


def assert_equal(one: StepOutput, other: StepOutput) -> None:
    for name in ("quantiles", "sums", "mean"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=WITHIN, atol=WITHIN, err_msg=name)
    for name in ("h", "c"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=STATE_WITHIN, atol=STATE_WITHIN)


@pytest.mark.parametrize("n", [1, 255, 256, 257, 5_000, 40_000])
def test_a_step_is_the_same_whatever_the_bucket(pair: tuple[Session, Session], n: int) -> None:
    gpu, cpu = pair
    given = inputs(gpu, n)
    assert_equal(gpu.run_step(**given), cpu.run_step(**given))


def test_a_year_of_steps_does_not_drift_apart(pair: tuple[Session, Session]) -> None:
    gpu, cpu = pair
    given = inputs(gpu, 500)
    on_gpu = on_cpu = None
    for day in range(365):
        x = inputs(gpu, 500, seed=day)["x"]
        before = ({}, {}) if on_gpu is None or on_cpu is None else tuple({"h": o.h, "c": o.c} for o in (on_gpu, on_cpu))
        on_gpu = gpu.run_step(**{**given, "x": x, **before[0]})
        on_cpu = cpu.run_step(**{**given, "x": x, **before[1]})
    assert on_gpu is not None
    assert on_cpu is not None
    assert_equal(on_gpu, on_cpu)


def test_a_step_repeats_bit_for_bit(pair: tuple[Session, Session]) -> None:
    given = inputs(pair[0], 3_000)
    once, again = (pair[0].run_step(**given) for _ in range(2))
    for name, one, other in zip(StepOutput._fields, once, again, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
