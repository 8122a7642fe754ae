"""A window closes: judge it against what was expected, step the model, forecast, and say what changed.

The order matters and is the same live, in a replay and in a backtest: first the window is held against the forecasts
made before it (p-values, live losses), then the statistics and the recurrent state move on by one window, then the next
forecast is made from the source that has earned it, then alerts open, update and resolve.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import closing
from features.encoding import encode
from features.horizon import LEVELS, SUM_WINDOWS
from features.season import context
from features.sku_state import Chunk, SkuState
from features.table import Column, Slots
from inference import alerting, baselines, scoring, tail_evidence
from inference.alerting import AlertChange, AlertRules
from inference.session import Session
from inference.trend import Trend, trend
from schemas.alerts import Alert, Contributor
from schemas.columns import ForecastColumns, WindowColumns

JUDGING = tuple(Column(*spec) for module in (tail_evidence, scoring, baselines, alerting) for spec in module.COLUMNS)
_JUDGING_NAMES = tuple(c.name for c in JUDGING)
_NO_CHANGE_MS = -(1 << 62)
_FIRST_SUM = SUM_WINDOWS[0]
_WARM_UP_SKUS = 4_096
_LIVE_KEEP = 2 ** (-1 / 20)


def columns(session: Session | None) -> tuple[Column, ...]:
    """Name the per-SKU columns beside those of the SKU state: none without a model."""
    if session is None:
        return ()
    shape = (session.layers, session.hidden)
    return (*JUDGING, Column("h", "<f4", shape), Column("c", "<f4", shape))


@dataclass(frozen=True)
class WindowOutputs:
    """What one chunk of a closing window has to say. eventful: bool (n,), whether the SKU had an event in it."""

    slots: Slots
    windows: WindowColumns
    eventful: NDArray[np.bool_]
    forecasts: ForecastColumns | None = None
    alerts: list[Alert] = field(default_factory=list)


@dataclass
class LiveLoss:
    """Weighted quantile loss of recent one-step forecasts by source: sums with a half-life of 20 windows."""

    loss: dict[str, float] = field(default_factory=lambda: {"served": 0.0, "lstm": 0.0, "seasonal_naive": 0.0})
    units: float = 0.0

    def fade(self) -> None:
        """Let one more window pass."""
        for name in self.loss:
            self.loss[name] *= _LIVE_KEEP
        self.units *= _LIVE_KEEP

    def add(self, found: scoring.Losses, units: NDArray[np.float64]) -> None:
        """Add the scored forecasts of some SKUs, and what these sold, (n,)."""
        for name, loss in (("served", found.served), ("lstm", found.net), ("seasonal_naive", found.naive)):
            self.loss[name] += float(loss.sum(dtype=np.float64))
        self.units += float(units[found.scored].sum())

    def wql(self, source: str) -> float:
        """Give the loss per unit sold; NaN before anything was."""
        return self.loss[source] / self.units if self.units > 0 else float("nan")


class WindowPipeline:
    """Closes the windows of one SKU state. Without a session there are windows only: no forecasts, no alerts."""

    def __init__(self, sku_state: SkuState, session: Session | None, *, rules: AlertRules | None = None) -> None:
        """Start without expectations; the SKU state must have been made with `columns(session)`."""
        self.sku_state = sku_state
        self.session = session
        self.rules = rules or AlertRules()
        # a net that learnt days knows nothing of hours: then the baseline serves
        self.net_fits = session is not None and session.bundle.manifest.window_ms == sku_state.grid.window_ms
        self.expected_open = False  # whether the forecasts at hand were made for an open window
        self.live = LiveLoss()

    def close(self, number: int, *, emitted_ms: int) -> Iterator[WindowOutputs]:
        """Close window `number` of the SKU state, chunk by chunk; consume it whole."""
        next_open = False
        self.live.fade()
        for chunk in self.sku_state.close(number):
            next_open = bool(chunk.context.season_next[0] > 0)
            if self.session is None:
                self.sku_state.advance(chunk)
                self.sku_state.store(chunk)
                yield WindowOutputs(chunk.slots, self._windows(chunk), chunk.eventful)
            else:
                yield self._forecast(chunk, self.session, emitted_ms)
        self.expected_open = next_open

    def warm_up(self) -> None:
        """Rebuild the recurrent state of every SKU from its ring of windows: the stored one belongs to another model.

        Approximate: prices and clicks of the ring are not kept, and the statistics start where the ring does.
        """
        last = self.sku_state.windows.first_open
        if self.session is None or last is None:
            return
        table = self.sku_state.table
        for low in range(0, len(table), _WARM_UP_SKUS):
            some = slice(low, min(low + _WARM_UP_SKUS, len(table)))
            x = replay_inputs(self.sku_state, some, last)
            zero = np.zeros_like(table["h"][some])
            table["h"][some], table["c"][some] = self.session.run_replay(
                x, zero, zero, lengths=np.minimum(table["age"][some], closing.RING)
            )
            for name in ("next_net", "next_mean"):
                table[name][some] = np.nan

    def _forecast(self, chunk: Chunk, session: Session, emitted_ms: int) -> WindowOutputs:
        rows = self._judge_rows(chunk)
        found, served_before = self._judge(chunk, rows)
        self.sku_state.advance(chunk)
        out = session.run_step(
            encode(chunk.rows, chunk.facts, chunk.context),
            self.sku_state.table["h"][chunk.selection],
            self.sku_state.table["c"][chunk.selection],
            scale=chunk.rows["nu"],
            season=chunk.context.season_next,
            season_sums=chunk.context.season_sums,
            integer_units=chunk.rows["fractional"] == 0,
        )
        self.sku_state.table["h"][chunk.selection] = out.h
        self.sku_state.table["c"][chunk.selection] = out.c
        quantiles, mean, sums = self._choose(chunk, rows, out)
        last7 = np.nansum(closing.last_windows(chunk.rows, chunk.context.number, _FIRST_SUM), axis=1)
        mean7 = mean[:, :_FIRST_SUM].sum(axis=1)
        where_to = trend(sums[:, 0], last7=last7, mean7=mean7)
        changes = self._alert_changes(chunk, rows, found, served_before, mean7)
        self.sku_state.store(chunk)
        for name in _JUDGING_NAMES:
            self.sku_state.table[name][chunk.selection] = rows[name]
        return WindowOutputs(
            slots=chunk.slots,
            windows=self._windows(chunk),
            eventful=chunk.eventful,
            forecasts=self._forecasts(chunk, rows, (quantiles, mean, sums), where_to, emitted_ms),
            alerts=[_alert(change) for change in changes],
        )

    def _judge_rows(self, chunk: Chunk) -> dict[str, NDArray[Any]]:
        return {name: self.sku_state.table[name][chunk.selection] for name in _JUDGING_NAMES}

    def _judge(
        self, chunk: Chunk, rows: dict[str, NDArray[Any]]
    ) -> tuple[tail_evidence.TailEvidence, NDArray[np.float32]]:
        """Hold the window against what was expected of it; returns the tail evidence and the quantiles that were served."""
        around, happened = chunk.context, chunk.facts
        n = len(chunk.slots)
        served = scoring.served_next(rows)
        by_change = chunk.rows["price_ms"] != _NO_CHANGE_MS
        closed = tail_evidence.WindowOutputs(
            start_ms=around.start_ms,
            units=happened.units,
            price=np.where(by_change, happened.price, np.nan),
            views=happened.views.astype(np.float64),
            observed=np.ones(n, np.bool_),
            season=around.index if around.is_open else 0.0,
        )
        expected = rows["next_mean"] if self.expected_open else np.full(n, np.nan, np.float32)
        found, learnt = tail_evidence.observe(rows, closed, expected)
        active = np.full(n, around.is_open and self.expected_open)
        losses = scoring.losses(rows, happened.units, active=active)
        self.live.add(losses, happened.units)
        learnt |= scoring.learn(rows, losses, nu=chunk.rows["nu"])
        before = self._season(chunk, around.number - 1)
        tamed = baselines.tame(happened.units, chunk.rows["nu"])
        learnt |= baselines.update(rows, tamed, before, active=np.full(n, around.is_open))
        rows |= learnt
        return found, served

    def _season(self, chunk: Chunk, number: int) -> NDArray[np.float32]:
        """Return the season up to window `number` as the baseline repeats it; one window where it outlasts the ring."""
        windows = chunk.context.season_windows
        last = closing.last_windows(chunk.rows, number, windows if windows <= closing.RING else 1)
        return baselines.tame(last, chunk.rows["nu"])

    def _choose(
        self,
        chunk: Chunk,
        rows: dict[str, NDArray[Any]],
        out: Any,  # noqa: ANN401 - session.StepOutput
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Serve each SKU from the source that has earned it, and remember both for the next close."""
        integer_units = chunk.rows["fractional"] == 0
        net_ok = scoring.healthy(out.quantiles, out.mean, chunk.rows["ring"])
        rows["source"] = scoring.choose_source(rows, net_ok=net_ok & self.net_fits)
        last = self._season(chunk, chunk.context.number)
        rows["next_net"] = np.where(net_ok[:, None], out.quantiles[:, 0], np.nan).astype(np.float32)
        rows["next_naive"] = baselines.one_step(rows, last, integer_units=integer_units)
        quantiles, mean, sums = out.quantiles, out.mean, out.sums
        at = np.flatnonzero(rows["source"] == scoring.SEASONAL_NAIVE)
        if len(at):
            some = {name: rows[name][at] for name, *_ in baselines.COLUMNS}
            naive = baselines.forecast(some, last[at], chunk.context.season_next, integer_units=integer_units[at])
            quantiles[at], mean[at], sums[at] = naive.quantiles, naive.mean, naive.sums
        rows["next_mean"] = mean[:, 0].copy()
        return quantiles, mean, sums

    def _alert_changes(
        self,
        chunk: Chunk,
        rows: dict[str, NDArray[Any]],
        found: tail_evidence.TailEvidence,
        served: NDArray[np.float32],
        mean7: NDArray[np.float32],
    ) -> list[AlertChange]:
        around = chunk.context
        evidence = alerting.Evidence(
            skus=self._skus(chunk),
            currencies=[self.sku_state.currency] * len(chunk.slots),
            window_start_ms=around.start_ms,
            window_end_ms=around.end_ms,
            age=chunk.rows["age"],
            units=chunk.facts.units,
            low=served[:, 0],
            high=served[:, -1],
            price=chunk.facts.price,
            units7=mean7,
            season=around.index if around.is_open else 0.0,
            tail_evidence=found,
        )
        changes, new = alerting.judge(evidence, rows, self.rules)
        rows |= new
        return changes

    def _skus(self, chunk: Chunk) -> list[str]:
        skus = self.sku_state.table.skus
        if isinstance(chunk.selection, slice):
            return skus[chunk.selection]
        return [skus[slot] for slot in chunk.slots.tolist()]

    def _windows(self, chunk: Chunk) -> WindowColumns:
        f, around = chunk.facts, chunk.context
        return WindowColumns(
            sku=self._skus(chunk),
            window_start_ms=around.start_ms,
            window_end_ms=around.end_ms,
            revision=0,
            order_lines=f.order_lines,
            units=f.units,
            revenue=f.revenue,
            returned_units=f.returned_units,
            free_units=f.free_units,
            views=f.views,
            carts=f.carts,
            price=f.price,
            observed=np.ones(len(chunk.slots), np.bool_),
        )

    def _forecasts(
        self,
        chunk: Chunk,
        rows: dict[str, NDArray[Any]],
        served: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
        where_to: Trend,
        emitted_ms: int,
    ) -> ForecastColumns:
        assert self.session is not None  # noqa: S101 - only called with a model
        quantiles, mean, sums = served
        return ForecastColumns(
            sku=self._skus(chunk),
            window_start_ms=chunk.context.start_ms,
            window_end_ms=chunk.context.end_ms,
            revision=0,
            actual_units=chunk.facts.units,
            step_ms=self.sku_state.grid.window_ms,
            quantile_levels=LEVELS,
            quantiles=quantiles,
            mean=mean,
            sum_windows=SUM_WINDOWS,
            sums=sums,
            direction=where_to.direction,
            change_pct=where_to.change_pct,
            probability=where_to.probability,
            source=rows["source"],
            model=self.session.model,
            provider=self.session.provider,
            emitted_ms=emitted_ms,
        )


def replay_inputs(sku_state: SkuState, some: slice, end: int) -> NDArray[np.float32]:
    """Encode the RING windows before window `end` of some SKUs anew: float32 (RING, n, F)."""
    table = sku_state.table
    n = some.stop - some.start
    kept = {name: table[name][some].copy() for name in closing.NAMES}
    scratch = {c.name: np.full((n, *c.shape), c.fill, c.dtype) for c in closing.COLUMNS}
    for name in ("price", "price_ms", "log_price_usual", "fractional", "nu"):
        scratch[name] = kept[name]
    nothing, whole = np.zeros(n), np.zeros(n, np.int64)
    inputs = []
    for number in range(end - closing.RING, end):
        units = kept["ring"][:, number % closing.RING].astype(np.float64)
        around = context(sku_state.grid, sku_state.season, number, is_open=bool(np.isfinite(units).any()))
        happened = closing.WindowFacts(
            order_lines=whole,
            units=np.nan_to_num(units),
            revenue=nothing,
            returned_units=nothing,
            free_units=nothing,
            views=whole,
            carts=whole,
            price_before=kept["price"],
            price=kept["price"],
            price_changed=np.zeros(n, np.bool_),
        )
        closing.advance(scratch, happened, around, prior_nu=sku_state.prior_nu)
        inputs.append(encode(scratch, happened, around))
    return np.stack(inputs)


def _alert(change: AlertChange) -> Alert:
    return Alert(
        id=change.id,
        alert_key=change.alert_key,
        status=change.status,  # type: ignore[arg-type]  # the alerts' words are the wire's
        kind=change.kind,  # type: ignore[arg-type]
        severity=change.severity,  # type: ignore[arg-type]
        sku=change.sku,
        window_start_ms=change.window_start_ms,
        window_end_ms=change.window_end_ms,
        opened_ms=change.opened_ms,
        observed=change.observed,
        expected=change.expected,
        interval=change.interval,
        p_value=change.p_value,
        impact=change.impact,
        currency=change.currency,
        summary=change.summary,
        contributors=tuple(Contributor(name=name, value=value) for name, value in change.contributors),
    )
