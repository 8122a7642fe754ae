"""A window closes: judge it against what was expected, step the model, forecast, and say what changed.

The order matters and is the same live, in a replay and in a backtest: first the window is held against the forecasts
made before it (p-values, live losses), then the statistics and the recurrent state move on by one window, then the next
forecast is blended from what has proved good, then alerts open, update and resolve.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import closing
from features.cadence import LEVELS, SUM_WINDOWS
from features.chunk import ClosingChunk
from features.corrections import Corrected
from features.encoding import encode, encode_calendar
from features.sku_state import SkuState
from features.table import Column
from inference import (
    aggregation,
    alerting,
    baselines,
    correcting,
    ew_nb,
    outputs,
    scoring,
    tail_evidence,
    warm_up,
)
from inference.aggregation import Aggregation
from inference.alerting import AlertChange, AlertRules
from inference.experts import OF_PLAIN, Experts, season_before
from inference.live_loss import LiveLoss
from inference.outputs import Closed, CorrectedOutputs, WindowOutputs
from inference.session import Session, StepOutput
from inference.shadow import ShadowScore
from inference.trend import trend
from schemas.alerts import Alert
from schemas.columns import ForecastColumns

JUDGING = tuple(
    Column(*spec)
    for module in (tail_evidence, scoring, baselines, ew_nb, aggregation, alerting)
    for spec in module.COLUMNS
)
ROW_COLUMNS = (*closing.COLUMNS, *JUDGING)  # what is known of a SKU whichever model there is, or none
_EXPECTATIONS = tuple(name for name, *_ in scoring.COLUMNS)  # of the window to come; NaN: none
_LEARNT = (*(c.name for c in JUDGING), "h", "c")
_ALERT_COLUMNS = tuple(name for name, *_ in alerting.COLUMNS)
_BEFORE = (*tail_evidence.SHARED, "age", "ew_views", "nu", "ring")  # statistics that judging reads, too
_FIRST_SUM = SUM_WINDOWS[0]
_BLOCK = 2_048  # SKUs whose forecasts are blended at a time: what is made on the way stays in the cache


def columns(session: Session | None) -> tuple[Column, ...]:
    """Name the per-SKU columns beside those of the SKU state."""
    return (*JUDGING, *model_columns(session))


def model_columns(session: Session | None) -> tuple[Column, ...]:
    """Name those of them that only mean something to one model, its recurrent state: none without a model."""
    if session is None:
        return ()
    shape = (session.layers, session.hidden)
    return (Column("h", "<f4", shape), Column("c", "<f4", shape))


class WindowPipeline:
    """Closes the windows of one SKU state. Without a session there are windows only: no forecasts, no alerts."""

    def __init__(
        self,
        sku_state: SkuState,
        session: Session | None,
        *,
        rules: AlertRules | None = None,
        shadow: Session | None = None,
    ) -> None:
        """Start without expectations; the SKU state must have been made with `columns(session)`.

        shadow: see shadow.py; its columns must be there, too.
        """
        self.sku_state = sku_state
        self.session = session
        self.rules = rules or AlertRules.of(sku_state.grid.cadence)
        # a net that learnt days knows nothing of hours: then plain forecasts serve
        self.net_fits = session is not None and session.fits(sku_state.grid)
        self.shows_experts = False  # whether outputs have what each expert forecast, too
        self.expected_open = False  # whether the forecasts at hand were made for an open window
        self.live = LiveLoss()
        if not self.net_fits:
            del self.live.loss["lstm"]
        self.shadow, self.shadow_score = shadow, ShadowScore()
        self.aggregation = Aggregation(sku_state.grid.cadence, model="" if session is None else session.model)
        if sku_state.corrections is not None:
            sku_state.corrections.forecasts = session is not None
            sku_state.corrections.moved_units = correcting.learn_late

    def close(self, number: int, *, emitted_ms: int) -> Iterator[WindowOutputs]:
        """Close window `number` of the SKU state, chunk by chunk; consume it whole."""
        next_open = False
        self.live.fade()
        if self.session is not None:
            self._begin(number)
        for chunk in self.sku_state.close(number):
            next_open = bool(chunk.context.season_next[0] > 0)
            if self.session is None:
                chunk.commit(self._nothing_expected(chunk) | self._learn_plain(chunk))
                yield WindowOutputs(chunk.slots, outputs.windows_of(chunk), chunk.eventful)
            else:
                yield self._forecast(chunk, self.session, emitted_ms)
        self.expected_open = next_open
        if self.session is not None:
            self.aggregation.end(number, self.sku_state.table)

    def _begin(self, number: int) -> None:
        """Tell the blend how fast the SKUs sell that were live before window `number`, and how many come up in it."""
        table, count = self.sku_state.table, len(self.sku_state.table)
        first = table["first_number"][:count]
        live = first < number
        columns = {name: table[name][:count][live] for name, *_ in ew_nb.COLUMNS}
        levels = ew_nb.levels(columns, table["opens"][:count][live], self.sku_state.grid.cadence)
        self.aggregation.begin(levels, newcomers=int((first == number).sum()))

    def _nothing_expected(self, chunk: ClosingChunk) -> closing.Rows:
        """Take back the forecasts of a window that a model made, and that has closed without one."""
        before = chunk.before(_EXPECTATIONS)
        return {name: np.full_like(column, np.nan) for name, column in before.items()}

    def _learn_plain(self, chunk: ClosingChunk) -> closing.Rows:
        """Move the plain forecast's statistics on, so that a model that comes later finds them."""
        rows, after = chunk.before(OF_PLAIN), chunk.after
        return ew_nb.update(rows, chunk.facts.units, chunk.context, opens=after["opens"], nu=after["nu"])

    def cross(self, number: int, stop: int) -> None:
        """Close windows `number` up to `stop` (without it), in which no SKU is live, in one step."""
        self.live.fade(stop - number)
        self.aggregation.fade(stop - number)
        self.aggregation.cross(stop)
        self.sku_state.cross(number, stop)
        self.expected_open = False

    def forget(self, dormant: NDArray[np.bool_], *, closed: int) -> list[Alert]:
        """Say what ends with SKUs, bool (n,), that the SKU state is about to retire after window `closed`."""
        table, count = self.sku_state.table, len(dormant)
        slots = np.flatnonzero(dormant & (table["alert_open"][:count] > alerting.CLOSED).any(axis=1))
        gone = alerting.ForgottenSkus(
            grid=self.sku_state.grid,
            number=closed,
            skus=[table.keys[slot].decode() for slot in slots.tolist()],
            currency=self.sku_state.currency,
            last_number=table["last_number"][slots],
            zero_run=table["unsold"][slots],
            price=table["price"][slots],
            rows={name: table[name][slots] for name in (*_ALERT_COLUMNS, "last_sale_ms")},
        )
        return [outputs.alert(change) for change in alerting.end_forgotten(gone)]

    def corrected(self, *, emitted_ms: int) -> Iterator[CorrectedOutputs]:
        """Tell again what late events have changed since the last call: windows, and the newest forecasts."""
        corrections, first_open = self.sku_state.corrections, self.sku_state.windows.first_open
        if corrections is None or first_open is None:
            return
        for found in corrections.take_unpublished():
            for revision, some in found.by("revision"):
                start_ms, end_ms = (self.sku_state.grid.start_ms(number) for number in (some.number, some.number + 1))
                yield CorrectedOutputs(
                    some.keys, windows=outputs.windows(some.skus, some.facts(), start_ms, end_ms, revision=revision)
                )
        newest = corrections.take_to_forecast(first_open - 1)
        if newest is not None and self.session is not None:
            for revision, some in newest.by("forecast_revision"):
                again = self._forecast_again(some, self.session, revision=revision, emitted_ms=emitted_ms)
                yield CorrectedOutputs(some.keys, forecasts=again)

    def _forecast_again(self, found: Corrected, session: Session, *, revision: int, emitted_ms: int) -> ForecastColumns:
        """Forecast SKUs of the newest closed window as they are now; their recurrent state stays as it is."""
        table, chunk = self.sku_state.table, correcting.Reopened.of(self.sku_state, found)
        rows = {name: table[name][chunk.slots] for name in _LEARNT}
        x = encode(chunk.after, chunk.facts, chunk.context)
        out = self._step(chunk, session, x, (rows["h"], rows["c"]))
        levels = ew_nb.levels(rows, chunk.after["opens"], chunk.context.cadence)
        experts = Experts(chunk.context, chunk.after, rows, out, self.sku_state.prior_nu)
        outside_panel = np.ones(len(levels), np.float32)
        served = self._serve(chunk, rows, experts, levels, outside_panel)
        for name in _EXPECTATIONS:
            table[name][chunk.slots] = rows[name]
        return self._said(chunk, served, levels, session, emitted_ms, revision=revision)

    def take_over(self, before: WindowPipeline) -> None:
        """Go on where another model's pipeline stands, between two windows, with a state of the net of our own.

        What was learnt of the experts stays, as far as it holds.
        """
        self.expected_open = before.expected_open
        if aggregation.family(before.aggregation.model) == aggregation.family(self.aggregation.model):
            self.live = before.live
        self.aggregation.take_over(before.aggregation)
        if self.session is not None:  # what was served of the next window stays served
            warm_up.warm_up(self.sku_state, self.session, takes_back=False)

    def warm_up(self) -> None:
        """Rebuild the recurrent state of every SKU: the stored one belongs to another model."""
        if self.session is not None:
            warm_up.warm_up(self.sku_state, self.session)

    def _forecast(self, chunk: ClosingChunk, session: Session, emitted_ms: int) -> WindowOutputs:
        before = chunk.before((*_BEFORE, *_LEARNT))
        rows = {name: before[name] for name in _LEARNT}
        found, served_before = self._judge(chunk, before, rows)
        x = encode(chunk.after, chunk.facts, chunk.context)
        out = self._step(chunk, session, x, (before["h"], before["c"]))
        rows["h"], rows["c"] = out.h, out.c
        levels = ew_nb.levels(rows, chunk.after["opens"], chunk.context.cadence)
        experts = Experts(chunk.context, chunk.after, rows, out, self.sku_state.prior_nu)
        rows["draw"] = _drawn(rows["draw"], chunk.skus)
        served = self._serve(chunk, rows, experts, levels, rows["draw"])
        shown = dict(experts.all()) if self.shows_experts else None
        shadowed = None
        if self.shadow is not None:
            shadowed = self._forecast_shadow(chunk, rows, self.shadow, x, levels, served_before, emitted_ms)
        changes = self._alert_changes(chunk, rows, found, served_before, _first_week(served))
        chunk.commit(rows)
        return WindowOutputs(
            slots=chunk.slots,
            windows=outputs.windows_of(chunk),
            eventful=chunk.eventful,
            forecasts=self._said(chunk, served, levels, session, emitted_ms),
            alerts=[outputs.alert(change) for change in changes],
            experts=shown,
            shadow=shadowed,
        )

    def _forecast_shadow(  # noqa: PLR0913, PLR0917 - what both nets share
        self,
        chunk: ClosingChunk,
        rows: dict[str, NDArray[Any]],
        session: Session,
        x: NDArray[np.float32],
        levels: NDArray[np.float32],
        served_before: NDArray[np.float32],
        emitted_ms: int,
    ) -> ForecastColumns:
        """Forecast with the shadow in the net's place, and hold what both said of this window against it."""
        before = chunk.before(("shadow_h", "shadow_c", "shadow_next"))
        if chunk.context.is_open and self.expected_open:
            self.shadow_score.add(chunk.context.number, chunk.facts.units, before["shadow_next"], served_before)
        out = self._step(chunk, session, x, (before["shadow_h"], before["shadow_c"]))
        experts = Experts(chunk.context, chunk.after, rows, out, self.sku_state.prior_nu)
        served, _ = self._blend(chunk, experts, levels, np.ones(len(levels), np.float32))
        rows |= {"shadow_h": out.h, "shadow_c": out.c, "shadow_next": served.quantiles[:, 0].copy()}
        return self._said(chunk, served, levels, session, emitted_ms)

    def _step(
        self,
        chunk: Closed,
        session: Session,
        x: NDArray[np.float32],
        state: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> StepOutput:
        """Show a net a window of some SKUs; one that learnt others says nothing. x: (n, F). state: h, c before it."""
        if not session.fits(self.sku_state.grid):
            return StepOutput.none(len(x), chunk.context.cadence, state)
        return session.run_step(
            x,
            *state,
            calendar=encode_calendar(chunk.context),
            scale=chunk.after["nu"],
            season_next=chunk.context.season_next,
            season_sums=chunk.context.season_sums,
            integer_units=chunk.after["fractional"] == 0,
        )

    def _said(
        self,
        chunk: Closed,
        served: aggregation.Served,
        levels: NDArray[np.float32],
        session: Session,
        emitted_ms: int,
        *,
        revision: int = 0,
    ) -> ForecastColumns:
        """Say what is forecast, and where demand goes. levels: (n,), units per open window."""
        where_to = trend(
            served.quantiles[:, chunk.context.cadence.horizon],
            last7=np.nansum(closing.last_windows(chunk.after, chunk.context.number, _FIRST_SUM), axis=1),
            mean7=_first_week(served),
            usual7=levels * chunk.context.demand_next[:_FIRST_SUM].sum(),
            price=chunk.facts.price,
            belief=self.aggregation.belief(levels),
        )
        return outputs.forecasts(
            *(chunk, served, where_to),
            session=session,
            grid=self.sku_state.grid,
            emitted_ms=emitted_ms,
            revision=revision,
        )

    def _judge(
        self, chunk: ClosingChunk, before: closing.Rows, rows: dict[str, NDArray[Any]]
    ) -> tuple[tail_evidence.TailEvidence, NDArray[np.float32]]:
        """Hold the window against what was expected of it, and learn (in `rows`) from how far off that was.

        Returns the evidence, and the quantiles that had been served for the window.
        """
        context, facts = chunk.context, chunk.facts
        n = len(chunk.slots)
        served = rows["next_served"]
        closed = tail_evidence.ClosedWindow(
            start_ms=context.start_ms,
            units=facts.units,
            price_before=np.where(facts.listed_before, facts.price_before, np.nan),
            price=np.where(facts.listed, facts.price, np.nan),
            views=facts.views.astype(np.float64),
            usual_views=closing.usual_views(before, context.cadence),
            observed=np.ones(n, np.bool_),
            season_index=context.index if context.is_open else 0.0,
        )
        expected = rows["next_mean"] if self.expected_open else np.full(n, np.nan, np.float32)
        found, learnt = tail_evidence.observe(before, closed, expected)
        active = np.full(n, context.is_open and self.expected_open)
        losses = scoring.losses(rows, facts.units, active=active, sources=self.live.loss)
        self.live.add(losses, facts.units, served)
        last = season_before(before, context, context.number - 1)
        repeatable = baselines.repeatable(facts.units, before["nu"])
        learnt |= baselines.update(rows, repeatable, last, active=np.full(n, context.is_open))
        learnt |= self._learn_plain(chunk)
        rows |= learnt
        return found, served

    def _serve(
        self,
        chunk: Closed,
        rows: dict[str, NDArray[Any]],
        experts: Experts,
        levels: NDArray[np.float32],
        draw: NDArray[np.float32],
    ) -> aggregation.Served:
        """Blend what all experts forecast, and remember what they say of the next window for the next close.

        levels: (n,), units per open window. draw: (n,), says who is of the panel.
        """
        served, rows["next_plain"] = self._blend(chunk, experts, levels, draw)
        whole = experts.after["fractional"] == 0
        rows["next_net"] = np.where(experts.net_ok[:, None], experts.net.quantiles[:, 0], np.nan).astype(np.float32)
        rows["next_naive"] = baselines.one_step(rows, experts.last, integer_units=whole)
        rows["next_served"] = served.quantiles[:, 0].copy()
        rows["next_mean"] = served.mean[:, 0].copy()
        return served

    def _blend(
        self, chunk: Closed, experts: Experts, levels: NDArray[np.float32], draw: NDArray[np.float32]
    ) -> tuple[aggregation.Served, NDArray[np.float32]]:
        """Blend what all experts forecast; returns that, and what the plain one says of the next window, (n, Q)."""
        skus, n = chunk.skus, len(chunk.slots)
        fractional, net_ok = experts.after["fractional"] != 0, experts.net_ok
        served = aggregation.Served.empty(n, chunk.context.cadence)
        next_plain = np.empty((n, len(LEVELS)), np.float32)
        for low in range(0, n, _BLOCK):
            block = slice(low, low + _BLOCK)
            usual = experts.plain(0, block)
            next_plain[block] = usual.quantiles[:, 0]

            def ask(expert: int, at: NDArray[np.intp], low: int = low, usual: ew_nb.Forecast = usual) -> ew_nb.Forecast:
                if expert == aggregation.PLAIN:
                    return usual if len(at) == len(usual.mean) else ew_nb.Forecast(usual.quantiles[at], usual.mean[at])
                return experts.forecast(expert, at + low)

            part = self.aggregation.serve(
                levels[block], draw[block], net_ok[block], skus[block], fractional[block], ask
            )
            served.put(block, part)
        np.round(served.mean, 3, out=served.mean)
        return served, next_plain

    def _alert_changes(
        self,
        chunk: ClosingChunk,
        rows: dict[str, NDArray[Any]],
        found: tail_evidence.TailEvidence,
        served: NDArray[np.float32],
        mean7: NDArray[np.float32],
    ) -> list[AlertChange]:
        context = chunk.context
        evidence = alerting.Evidence(
            grid=self.sku_state.grid,
            skus=chunk.skus,
            currencies=[self.sku_state.currency] * len(chunk.slots),
            window_start_ms=context.start_ms,
            window_end_ms=context.end_ms,
            age=chunk.after["age"],
            units=chunk.facts.units,
            low=served[:, 0],
            high=served[:, -1],
            price=chunk.facts.price,
            units7=mean7,
            season_index=context.index if context.is_open else 0.0,
            tail_evidence=found,
        )
        changes, new = alerting.judge(evidence, rows, self.rules)
        rows |= new
        return changes


def _drawn(draw: NDArray[np.float32], skus: list[str]) -> NDArray[np.float32]:
    """Draw for the SKUs that are new."""
    unknown = np.isnan(draw)
    if not unknown.any():
        return draw
    drawn = draw.copy()
    drawn[unknown] = aggregation.draws([skus[row] for row in np.flatnonzero(unknown).tolist()])
    return drawn


def _first_week(served: aggregation.Served) -> NDArray[np.float32]:
    """Give what the next 7 windows sell on average, (n,)."""
    found: NDArray[np.float32] = served.mean[:, :_FIRST_SUM].sum(axis=1)
    return found
