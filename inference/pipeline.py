"""A window closes: judge it against what was expected, step the model, forecast, and say what changed.

The order matters and is the same live, in a replay and in a backtest: first the window is held against the forecasts
made before it (p-values, live losses), then the statistics and the recurrent state move on by one window, then the next
forecast is blended from what has proved good, then alerts open, update and resolve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import closing
from features.cadence import HORIZON, LEVELS, RING, SUM_WINDOWS
from features.chunk import ClosingChunk
from features.corrections import Corrected
from features.encoding import encode, encode_calendar
from features.sku_state import SkuState
from features.table import Column, Slots
from inference import (
    aggregation,
    alerting,
    baselines,
    correcting,
    ew_nb,
    level_shift,
    scoring,
    tail_evidence,
    warm_up,
)
from inference.aggregation import Aggregation
from inference.alerting import AlertChange, AlertRules
from inference.experts import OF_PLAIN, Experts, season_before
from inference.live_loss import LiveLoss
from inference.session import Session, StepOutput
from inference.trend import Trend, trend
from schemas.alerts import Alert, Contributor
from schemas.columns import ForecastColumns, WindowColumns
from schemas.forecasts import SOURCES

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
_SOURCES = np.array([SOURCES.index(name) for name in (*aggregation.EXPERTS, "blend")], np.int8)


def columns(session: Session | None) -> tuple[Column, ...]:
    """Name the per-SKU columns beside those of the SKU state."""
    return (*JUDGING, *model_columns(session))


def model_columns(session: Session | None) -> tuple[Column, ...]:
    """Name those of them that only mean something to one model, its recurrent state: none without a model."""
    if session is None:
        return ()
    shape = (session.layers, session.hidden)
    return (Column("h", "<f4", shape), Column("c", "<f4", shape))


@dataclass(frozen=True)
class WindowOutputs:
    """What one chunk of a closing window has to say.

    eventful: bool (n,), whether the SKU had an event in it. experts: what each one forecast, by name; None where nobody
    wanted to know.
    """

    slots: Slots
    windows: WindowColumns
    eventful: NDArray[np.bool_]
    forecasts: ForecastColumns | None = None
    alerts: list[Alert] = field(default_factory=list)
    experts: Mapping[str, ew_nb.Forecast] | None = None


@dataclass(frozen=True)
class CorrectedOutputs:
    """What late events have changed of n SKUs: their windows or their forecasts. keys: of the SKUs, (n,)."""

    keys: list[bytes]
    windows: WindowColumns | None = None
    forecasts: ForecastColumns | None = None


Closed = ClosingChunk | correcting.Reopened
"""Some SKUs of a window that has closed."""


class WindowPipeline:
    """Closes the windows of one SKU state. Without a session there are windows only: no forecasts, no alerts."""

    def __init__(self, sku_state: SkuState, session: Session | None, *, rules: AlertRules | None = None) -> None:
        """Start without expectations; the SKU state must have been made with `columns(session)`."""
        self.sku_state = sku_state
        self.session = session
        self.rules = rules or AlertRules.of(sku_state.grid.cadence)
        # a net that learnt days knows nothing of hours: then plain forecasts serve
        self.net_fits = session is not None and session.bundle.manifest.window_ms == sku_state.grid.window_ms
        self.shows_experts = False  # whether outputs have what each expert forecast, too
        self.expected_open = False  # whether the forecasts at hand were made for an open window
        self.live = LiveLoss()
        self.aggregation = Aggregation(model="" if session is None else session.model)
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
                yield WindowOutputs(chunk.slots, _windows_of(chunk), chunk.eventful)
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
        levels = ew_nb.levels(columns, table["opens"][:count][live])
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
        return [_alert(change) for change in alerting.end_forgotten(gone)]

    def corrected(self, *, emitted_ms: int) -> Iterator[CorrectedOutputs]:
        """Tell again what late events have changed since the last call: windows, and the newest forecasts."""
        corrections, first_open = self.sku_state.corrections, self.sku_state.windows.first_open
        if corrections is None or first_open is None:
            return
        for found in corrections.take_unpublished():
            for revision, some in found.by("revision"):
                start_ms, end_ms = (self.sku_state.grid.start_ms(number) for number in (some.number, some.number + 1))
                yield CorrectedOutputs(
                    some.keys, windows=_windows(some.skus, some.facts(), start_ms, end_ms, revision=revision)
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
        out = self._step(chunk, session, rows["h"], rows["c"])
        levels = ew_nb.levels(rows, chunk.after["opens"])
        experts = Experts(chunk.context, chunk.after, rows, out, self.sku_state.prior_nu)
        outside_panel = np.ones(len(levels), np.float32)
        served = self._serve(chunk, rows, experts, levels, outside_panel)
        for name in _EXPECTATIONS:
            table[name][chunk.slots] = rows[name]
        return self._forecasts(chunk, served, self._trend(chunk, served, levels), emitted_ms, revision=revision)

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
        out = self._step(chunk, session, before["h"], before["c"])
        rows["h"], rows["c"] = out.h, out.c
        levels = ew_nb.levels(rows, chunk.after["opens"])
        experts = Experts(chunk.context, chunk.after, rows, out, self.sku_state.prior_nu)
        rows["draw"] = _drawn(rows["draw"], chunk.skus)
        served = self._serve(chunk, rows, experts, levels, rows["draw"])
        shown = dict(experts.all()) if self.shows_experts else None
        where_to = self._trend(chunk, served, levels)
        changes = self._alert_changes(chunk, rows, found, served_before, _first_week(served))
        chunk.commit(rows)
        return WindowOutputs(
            slots=chunk.slots,
            windows=_windows_of(chunk),
            eventful=chunk.eventful,
            forecasts=self._forecasts(chunk, served, where_to, emitted_ms),
            alerts=[_alert(change) for change in changes],
            experts=shown,
        )

    def _step(self, chunk: Closed, session: Session, h: NDArray[np.float32], c: NDArray[np.float32]) -> StepOutput:
        """Show the net a window of some SKUs."""
        return session.run_step(
            encode(chunk.after, chunk.facts, chunk.context),
            h,
            c,
            calendar=encode_calendar(chunk.context),
            scale=chunk.after["nu"],
            season_next=chunk.context.season_next,
            season_sums=chunk.context.season_sums,
            integer_units=chunk.after["fractional"] == 0,
        )

    def _trend(self, chunk: Closed, served: aggregation.Served, levels: NDArray[np.float32]) -> Trend:
        """Say where demand goes. levels: (n,), units per open window."""
        return trend(
            served.quantiles[:, HORIZON],
            last7=np.nansum(closing.last_windows(chunk.after, chunk.context.number, _FIRST_SUM), axis=1),
            mean7=_first_week(served),
            usual7=levels * chunk.context.demand_next[:_FIRST_SUM].sum(),
            price=chunk.facts.price,
            slope=self.aggregation.slope_of(levels),
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
        losses = scoring.losses(rows, facts.units, active=active)
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
        skus, n = chunk.skus, len(chunk.slots)
        fractional = experts.after["fractional"] != 0
        may_serve = experts.net_ok & self.net_fits
        served = aggregation.Served.empty(n)
        rows["next_plain"] = np.empty((n, len(LEVELS)), np.float32)
        for low in range(0, n, _BLOCK):
            block = slice(low, low + _BLOCK)
            usual = experts.plain(0, block)
            rows["next_plain"][block] = usual.quantiles[:, 0]

            def ask(expert: int, at: NDArray[np.intp], low: int = low, usual: ew_nb.Forecast = usual) -> ew_nb.Forecast:
                if expert == aggregation.PLAIN:
                    return usual if len(at) == len(usual.mean) else ew_nb.Forecast(usual.quantiles[at], usual.mean[at])
                return experts.forecast(expert, at + low)

            part = self.aggregation.serve(
                levels[block], draw[block], may_serve[block], skus[block], fractional[block], ask
            )
            served.put(block, part)
        np.round(served.mean, 3, out=served.mean)
        rows["next_net"] = np.where(experts.net_ok[:, None], experts.net.quantiles[:, 0], np.nan).astype(np.float32)
        rows["next_naive"] = baselines.one_step(rows, experts.last, integer_units=~fractional)
        rows["next_served"] = served.quantiles[:, 0].copy()
        rows["next_mean"] = served.mean[:, 0].copy()
        return served

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

    def _forecasts(
        self, chunk: Closed, served: aggregation.Served, where_to: Trend, emitted_ms: int, *, revision: int = 0
    ) -> ForecastColumns:
        assert self.session is not None  # noqa: S101 - only called with a model
        quantiles = served.quantiles[:, :HORIZON]
        return ForecastColumns(
            sku=chunk.skus,
            window_start_ms=chunk.context.start_ms,
            window_end_ms=chunk.context.end_ms,
            revision=revision,
            actual_units=chunk.facts.units,
            step_ms=self.sku_state.grid.window_ms,
            step_starts_ms=self.sku_state.grid.starts_ms(chunk.context.number + 1, quantiles.shape[1]),
            quantile_levels=LEVELS,
            quantiles=quantiles,
            mean=served.mean,
            sum_windows=SUM_WINDOWS,
            sums=served.quantiles[:, HORIZON:],
            direction=where_to.direction,
            change_pct=where_to.change_pct,
            change_units=where_to.change_units,
            change_money=where_to.change_money,
            usual_change_units=where_to.usual_change_units,
            usual_change_money=where_to.usual_change_money,
            shift=_shifts(chunk),
            probability=where_to.probability,
            source=_SOURCES[served.source],
            model=self.session.model,
            provider=self.session.provider,
            emitted_ms=emitted_ms,
        )


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


def _shifts(chunk: Closed) -> NDArray[np.int8]:
    """Tell which SKUs sell on another level than before, block by block: what is made on the way stays in the cache."""
    found = np.empty(len(chunk.slots), np.int8)
    for low in range(0, len(found), _BLOCK):
        some = slice(low, low + _BLOCK)
        rows = {"ring": chunk.after["ring"][some]}
        recent = closing.last_windows(rows, chunk.context.number, RING)
        found[some] = level_shift.shifts(recent, age=chunk.after["age"][some])
    return found


def _windows_of(chunk: ClosingChunk) -> WindowColumns:
    return _windows(chunk.skus, chunk.facts, chunk.context.start_ms, chunk.context.end_ms)


def _windows(
    skus: list[str], facts: closing.WindowFacts, start_ms: int, end_ms: int, *, revision: int = 0
) -> WindowColumns:
    return WindowColumns(
        sku=skus,
        window_start_ms=start_ms,
        window_end_ms=end_ms,
        revision=revision,
        order_lines=facts.order_lines,
        units=facts.units,
        revenue=facts.revenue,
        returned_units=facts.returned_units,
        free_units=facts.free_units,
        views=facts.views,
        carts=facts.carts,
        price=facts.price,
        observed=np.ones(len(skus), np.bool_),
    )


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
