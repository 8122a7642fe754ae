"""Closing one window of 100,000 SKUs, from state to the bytes of windows and forecasts, next to bare ONNX Runtime."""

from __future__ import annotations

import time

import numpy as np

from features.cadence import DAY_MS, HORIZON, SUM_WINDOWS
from features.encoding import fingerprint
from features.sku_state import SkuState
from inference import bundle
from inference.pipeline import WindowPipeline
from inference.session import Session
from schemas.encoding import encode_alert, encode_forecasts, encode_windows, openings
from tests.bench.shop import FIRST_MS, session, sku_state_of

SKUS = 100_000
DAYS = 30
ROUNDS = 3


def close(sku_state: SkuState, pipeline: WindowPipeline, day: int) -> tuple[float, int]:
    """Close one day; seconds, and the size of all outputs, which as in the worker go on chunk by chunk."""
    seconds, size = 0.0, 0
    started = time.perf_counter()
    for closed in pipeline.close(sku_state.grid.number(FIRST_MS + day * DAY_MS), emitted_ms=0):
        assert closed.forecasts is not None  # there is a model
        opened = openings(closed.windows)
        records = [encode_windows(closed.windows, opened), encode_forecasts(closed.forecasts, opened)]
        records.append([encode_alert(alert) for alert in closed.alerts])
        seconds += time.perf_counter() - started
        size += sum(len(value) for part in records for value in part)
        started = time.perf_counter()
    return seconds, size


def main() -> None:
    """Print both times and their ratio: the best of three, one thread each; on the GPU too where there is one."""
    shipped = bundle.load(expected_fingerprint=fingerprint())
    measure(session())
    auto = Session(shipped, provider="auto")
    if auto.provider != "CPU":
        measure(auto)


def measure(model: Session) -> None:
    """Close windows with this model, and run it bare."""
    sku_state, pipeline = sku_state_of(SKUS, model, days=DAYS)
    dice = np.random.default_rng(1)
    n, manifest = SKUS, model.bundle.manifest
    x = dice.normal(0, 1, (n, len(manifest.features))).astype(np.float32)
    h = dice.normal(0, 0.3, (n, model.layers, model.hidden)).astype(np.float32)
    calendar = dice.normal(0, 1, len(manifest.calendar)).astype(np.float32)
    shared = {
        "calendar": calendar,
        "season_next": np.ones(HORIZON, np.float32),
        "season_sums": np.array(SUM_WINDOWS, np.float32),
    }
    bare = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        model.run_step(x, h, h, scale=np.ones(n, np.float32), integer_units=np.ones(n, np.bool_), **shared)
        bare.append(time.perf_counter() - started)
    whole = [close(sku_state, pipeline, DAYS + i)[0] for i in range(ROUNDS)]
    size = close(sku_state, pipeline, DAYS + ROUNDS)[1]
    print(
        f"close {n:,} SKUs ({model.provider}): {min(whole):.3f} s from state to {size / 1e6:.0f} MB of outputs "
        f"({n / min(whole):,.0f} SKUs/s); bare ONNX Runtime {min(bare):.3f} s; ratio {min(whole) / min(bare):.2f}"
    )
