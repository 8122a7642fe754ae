"""What a closed window has to say, in the columns of the output topics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features import closing
from features.cadence import LEVELS, RING
from features.chunk import ClosingChunk
from features.table import Slots
from inference import aggregation, correcting, ew_nb, level_shift
from schemas.alerts import Alert, Contributor
from schemas.columns import ForecastColumns, WindowColumns
from schemas.forecasts import SOURCES

if TYPE_CHECKING:
    from features.grid import WindowGrid
    from inference.alerting import AlertChange
    from inference.session import Session
    from inference.trend import Trend

_BLOCK = 2_048  # SKUs looked at at a time: what is made on the way stays in the cache
_SOURCES = np.array([SOURCES.index(name) for name in (*aggregation.EXPERTS, "blend")], np.int8)


@dataclass(frozen=True)
class WindowOutputs:
    """What one chunk of a closing window has to say.

    eventful: bool (n,), whether the SKU had an event in it. experts: what each one forecast, by name; None where nobody
    wanted to know. shadow: what a shadow forecasts.
    """

    slots: Slots
    windows: WindowColumns
    eventful: NDArray[np.bool_]
    forecasts: ForecastColumns | None = None
    alerts: list[Alert] = field(default_factory=list)
    experts: Mapping[str, ew_nb.Forecast] | None = None
    shadow: ForecastColumns | None = None


@dataclass(frozen=True)
class CorrectedOutputs:
    """What late events have changed of n SKUs: their windows or their forecasts. keys: of the SKUs, (n,)."""

    keys: list[bytes]
    windows: WindowColumns | None = None
    forecasts: ForecastColumns | None = None


Closed = ClosingChunk | correcting.Reopened
"""Some SKUs of a window that has closed."""


def forecasts(  # noqa: PLR0913 - what a forecast is made of
    chunk: Closed,
    served: aggregation.Served,
    where_to: Trend,
    *,
    session: Session,
    grid: WindowGrid,
    emitted_ms: int,
    revision: int = 0,
) -> ForecastColumns:
    """Lay out what is forecast of n SKUs. session: of the net whose name it has."""
    cadence = chunk.context.cadence
    quantiles = served.quantiles[:, : cadence.horizon]
    return ForecastColumns(
        sku=chunk.skus,
        window_start_ms=chunk.context.start_ms,
        window_end_ms=chunk.context.end_ms,
        revision=revision,
        actual_units=chunk.facts.units,
        step_ms=grid.window_ms,
        step_starts_ms=grid.starts_ms(chunk.context.number + 1, quantiles.shape[1]),
        quantile_levels=LEVELS,
        quantiles=quantiles,
        mean=served.mean,
        sum_windows=cadence.spans,
        sums=served.quantiles[:, cadence.horizon :],
        direction=where_to.direction,
        change_pct=where_to.change_pct,
        change_units=where_to.change_units,
        change_money=where_to.change_money,
        usual_change_units=where_to.usual_change_units,
        usual_change_money=where_to.usual_change_money,
        shift=_shifts(chunk),
        probability=where_to.probability,
        source=_SOURCES[served.source],
        model=session.model,
        provider=session.provider,
        emitted_ms=emitted_ms,
    )


def _shifts(chunk: Closed) -> NDArray[np.int8]:
    """Tell which SKUs sell on another level than before, block by block: what is made on the way stays in the cache."""
    found = np.empty(len(chunk.slots), np.int8)
    for low in range(0, len(found), _BLOCK):
        some = slice(low, low + _BLOCK)
        rows = {"ring": chunk.after["ring"][some]}
        recent = closing.last_windows(rows, chunk.context.number, RING)
        found[some] = level_shift.shifts(recent, age=chunk.after["age"][some])
    return found


def windows_of(chunk: ClosingChunk) -> WindowColumns:
    """Lay out what happened to the SKUs of a window that closes."""
    return windows(chunk.skus, chunk.facts, chunk.context.start_ms, chunk.context.end_ms)


def windows(
    skus: list[str], facts: closing.WindowFacts, start_ms: int, end_ms: int, *, revision: int = 0
) -> WindowColumns:
    """Lay out what happened to n SKUs in a window."""
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


def alert(change: AlertChange) -> Alert:
    """Make the message of a change."""
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
