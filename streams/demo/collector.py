"""What the demo remembers of the outputs: every actual and forecast, as arrays, and every alert."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer
from numpy.typing import NDArray

from features.grid import WindowGrid
from features.horizon import LEVELS

_AT_A_TIME = 4_000
_WAIT_S = 0.05
_FIRST_SKUS = 1_024


class TrendSeen(msgspec.Struct):
    """The part of a forecast's trend that the demo shows."""

    direction: str
    change_pct: float | None
    probability: float


class ForecastSeen(msgspec.Struct):
    """The part of a forecast that the demo needs; the rest of the record is skipped."""

    sku: str
    window_start_ms: int
    actual_units: float
    quantiles: list[list[float]]
    sums: dict[str, list[float]]
    trend: TrendSeen
    source: str


class Collector:
    """Reads `forecasts` and `alerts` in a thread of its own.

    actual: float32 (skus, windows), NaN before a SKU's first window. next_day, next_week: float32 (skus, windows, Q),
    the quantiles made at the close of each window for the next window and for the sum of the next seven.
    """

    def __init__(self, brokers: str, grid: WindowGrid, *, first_ms: int, last_ms: int, out: Path) -> None:
        """first_ms, last_ms: span of the events; out: where alerts are written as they come."""
        self.grid = grid
        self.first = grid.number(first_ms)
        self.windows = grid.number(last_ms) - self.first + 2
        self.skus: dict[str, int] = {}
        self.latest: dict[str, bytes] = {}
        self.alerts: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self._columns: dict[int, int] = {}
        self._reserve(_FIRST_SKUS)
        self._decode = msgspec.json.Decoder(ForecastSeen).decode
        self._alert_file = (out / "alerts.jsonl").open("wb")
        self._consumer = Consumer(
            {"bootstrap.servers": brokers, "group.id": "demo", "auto.offset.reset": "earliest", "log_level": 0}
        )
        self._consumer.subscribe(["forecasts", "alerts", "dead-letters", "late-events"])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._thread.start()

    def _reserve(self, count: int) -> None:
        old = len(self.skus)
        for name, shape in (("actual", ()), ("next_day", (len(LEVELS),)), ("next_week", (len(LEVELS),))):
            grown = np.full((count, self.windows, *shape), np.nan, np.float32)
            if old:
                grown[:old] = getattr(self, name)[:old]
            setattr(self, name, grown)

    actual: NDArray[np.float32]
    next_day: NDArray[np.float32]
    next_week: NDArray[np.float32]

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(_AT_A_TIME, _WAIT_S):
                if message.error() is None:
                    self._take(message.topic(), message.value())

    def _take(self, topic: str, value: bytes) -> None:
        self.counts[topic] += 1
        if topic == "forecasts":
            self._remember(self._decode(value), value)
        elif topic == "alerts":
            self._alert_file.write(value + b"\n")
            self.alerts.append(msgspec.json.decode(value))

    def _remember(self, seen: ForecastSeen, value: bytes) -> None:
        row = self.skus.get(seen.sku)
        if row is None:
            row = len(self.skus)
            if row == len(self.actual):
                self._reserve(2 * row)
            self.skus[seen.sku] = row
        at = self._column(seen.window_start_ms)
        if 0 <= at < self.windows:
            self.actual[row, at] = seen.actual_units
            self.next_day[row, at] = seen.quantiles[0]
            self.next_week[row, at] = seen.sums["7"]
        self.latest[seen.sku] = value
        self.sources[seen.source] += 1

    def _column(self, start_ms: int) -> int:
        column = self._columns.get(start_ms)
        if column is None:
            column = self._columns[start_ms] = self.grid.number(start_ms) - self.first
        return column

    def finish(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        self._alert_file.close()
