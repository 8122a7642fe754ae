"""The life of an alert, per SKU and kind: opened by evidence, updated when it gets much worse, resolved by calm.

Everything is derived from the evidence and the SKU's own columns, so a replay tells the same alerts with the same ids,
whatever the batches. At most one of the three demand kinds is open per SKU. A window without any sale is never a
drop: it is the start of a silence; a silence that opens ends a drop, and while one is open no drop can open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from features.cadence import DAY, Cadence
from features.grid import WindowGrid
from inference import sentences
from inference.arrays import LARGEST, Double, Floats, Rows
from inference.tail_evidence import TailEvidence

KINDS: Final = ("demand_spike", "demand_drop", "silence", "price_jump")
SPIKE, DROP, SILENCE, PRICE = range(4)

CLOSED, TICKET, PAGE = range(3)
SEVERITIES: Final = ("info", "ticket", "page")

COLUMNS: Final[tuple[tuple[str, str, tuple[int, ...], float], ...]] = (
    ("alert_open", "|u1", (len(KINDS),), CLOSED),  # CLOSED, or the class of the open alert
    ("alert_opened_ms", "<i8", (len(KINDS),), -1),  # start of the window that opened it
    ("alert_worst", "<f4", (len(KINDS),), 0.0),  # largest -log10 p told, capped
    ("alert_impact", "<f4", (len(KINDS),), 0.0),  # largest impact, money
    ("alert_calm", "|u1", (len(KINDS),), 0),  # calm windows in a row
)

_LAPLACE_90: Final = float(np.log(10.0))  # 95 % quantile of a Laplace law in mean absolute deviations
_NORMAL_90: Final = 1.645


@dataclass(frozen=True, slots=True)
class AlertRules:
    """When an alert opens, gets worse and ends.

    `ticket_p`, `page_p`: an alert opens at the first and is a page at the second. `min_impact`, `page_impact`: money,
    below the first nothing opens, below the second nothing pages. `min_age`: windows a SKU must have lived: before, too
    little is known of what is usual for it, and only a spike worth `young_impact` is told. `calm_p`, `calm_windows`:
    resolved after so many windows in a row less surprising than this. `update_decades`: an update is told when p has
    fallen by so many powers of ten, up to `certain_decades`, past which it is merely certain. `price_ratio`,
    `price_usual`: a price jump is at least this factor and this many usual moves; `price_page_ratio`: it can page from
    this factor on.
    """

    ticket_p: float = 1e-4
    page_p: float = 1e-6
    min_impact: float = 50.0
    page_impact: float = 500.0
    min_age: int = DAY.alert_age
    young_impact: float = 10_000.0
    calm_p: float = 1e-2
    calm_windows: int = DAY.calm_windows
    update_decades: float = 2.0
    certain_decades: float = 12.0
    price_ratio: float = 1.2
    price_usual: float = 4.0
    price_page_ratio: float = 2.0

    @classmethod
    def of(cls, cadence: Cadence, **given: float) -> Self:
        """Give the rules for windows of a cadence; given: what else is to differ from the defaults."""
        return replace(cls(min_age=cadence.alert_age, calm_windows=cadence.calm_windows), **given)  # type: ignore[arg-type]  # by name


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One closed window of n SKUs as the alerts see it.

    `grid`: the shop's windows, for the sentences. `skus`, `currencies`: n strings. `age`: int (n,), windows since the
    SKU's first. `units`: (n,). `low`, `high`: (n,), 5 % and 95 % quantile that had been forecast for the window; NaN =
    none. `price`: (n,), last known, NaN = none: then the impact is zero and nothing opens. `units7`: (n,), expected
    units of the next 7 windows. `season_index`: the shop's index of the window, 0 = closed.
    """

    grid: WindowGrid
    skus: Sequence[str]
    currencies: Sequence[str]
    window_start_ms: int
    window_end_ms: int
    age: NDArray[np.integer[Any]]
    units: Floats
    low: Floats
    high: Floats
    price: Floats
    units7: Floats
    season_index: float
    tail_evidence: TailEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertChange:
    """One opening, update or end of an alert; the fields of the wire's alert, and `row`, its position in the evidence.

    `alert_key` is the same from open to resolved, and `id` is unique and derived: a replay repeats both.
    """

    row: int
    id: str
    alert_key: str
    status: str
    kind: str
    severity: str
    sku: str
    window_start_ms: int
    window_end_ms: int
    opened_ms: int
    observed: float
    expected: float
    interval: tuple[float, float]
    p_value: float
    impact: float
    currency: str
    summary: str
    contributors: tuple[tuple[str, float], ...]


def judge(
    evidence: Evidence, rows: Rows, rules: AlertRules | None = None
) -> tuple[list[AlertChange], dict[str, NDArray[Any]]]:
    """Tell what changed in this window, ordered by row, ends before openings; and the new values of all `COLUMNS`.

    An alert opens where p <= `ticket_p`, the impact is at least `min_impact` and the SKU is old enough (or the impact
    is huge); a spike must also exceed everything the SKU has sold before. It ends after `calm_windows` calm windows, a
    silence at the first sale. Windows in which the shop was closed or the SKU not observed change nothing about the
    demand kinds.
    """
    rules = rules or AlertRules()
    case = _weigh(evidence, rules)
    new = {name: rows[name].copy() for name, *_ in COLUMNS}
    ended = _resolve(new, case, rules)
    opened = _open(new, case, evidence.window_start_ms)
    worse = _worsen(new, case, rules, ~opened)
    changes: list[AlertChange] = []
    touched = ended | opened | worse
    for row in np.flatnonzero(touched.any(axis=1)).tolist():
        for mask, status in ((ended, "resolved"), (worse, "update"), (opened, "open")):
            for kind in np.flatnonzero(mask[row]).tolist():
                # what ended is told with the class that it had: who was called for it is told that it is over
                state = rows if status == "resolved" else new
                changes.append(_change(evidence, case, state, (row, kind, status)))
    for name, empty in (("alert_open", CLOSED), ("alert_opened_ms", -1), ("alert_worst", 0), ("alert_impact", 0)):
        new[name][ended & ~opened] = empty
    return changes, new


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenSkus:
    """SKUs that are forgotten once a window has closed, because they have had no event for long; n of them.

    `number`: the window, of `grid`. `last_number`: int (n,), of the window with the last event. `zero_run`: int (n,),
    open windows without a sale. `price`: (n,), last known, NaN = none. `rows`: of all `COLUMNS`, and `last_sale_ms`.
    """

    grid: WindowGrid
    number: int
    skus: Sequence[str]
    currency: str
    last_number: NDArray[np.integer[Any]]
    zero_run: NDArray[np.integer[Any]]
    price: Floats
    rows: Rows


def end_forgotten(gone: ForgottenSkus) -> list[AlertChange]:
    """Resolve what is open of SKUs that are forgotten: nothing could resolve it afterwards. Ordered by row and kind."""
    changes: list[AlertChange] = []
    for row, kind in np.argwhere(gone.rows["alert_open"] > CLOSED).tolist():
        price = float(np.nan_to_num(gone.price[row])) if kind == PRICE else 0.0
        facts = sentences.AlertFacts(
            grid=gone.grid,
            kind=KINDS[kind],
            status="resolved",
            sku=gone.skus[row],
            currency=gone.currency,
            window_start_ms=gone.grid.start_ms(gone.number),
            window_end_ms=gone.grid.end_ms(gone.number),
            opened_ms=int(gone.rows["alert_opened_ms"][row, kind]),
            since_ms=int(gone.rows["last_sale_ms"][row]),
            zero_run=int(gone.zero_run[row]),
            observed=price,
            expected=price,
            interval=(price, price),
            p_value=1.0,
            impact=float(gone.rows["alert_impact"][row, kind]),
            price_ratio=np.nan,
            price_usual=np.nan,
            views_ratio=np.nan,
            units7=0.0,
            season_index=np.nan,
            dormant_since_ms=gone.grid.start_ms(int(gone.last_number[row])),
        )
        changes.append(_told(facts, row, int(gone.rows["alert_open"][row, kind])))
    return changes


def open_counts(alert_open: NDArray[np.uint8]) -> dict[tuple[str, str], int]:
    """Count the open alerts by kind and severity, zeros included; alert_open: the column of that name, (n, 4)."""
    return {
        (kind, SEVERITIES[rank]): int(np.count_nonzero(alert_open[:, at] == rank))
        for at, kind in enumerate(KINDS)
        for rank in (TICKET, PAGE)
    }


@dataclass(frozen=True, slots=True)
class _Case:
    """Per row and kind, (n, 4): -log10 p, money, and whether an alert may open, may page, is judged at all, is calm."""

    strength: Double
    impact: Double
    rejects: NDArray[np.bool_]
    pages: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    calm: NDArray[np.bool_]


def _weigh(e: Evidence, rules: AlertRules) -> _Case:
    s = e.tail_evidence
    price = np.where(np.isfinite(e.price), np.maximum(e.price, 0.0), 0.0).astype(np.float64)
    sold = e.units > 0
    off = np.abs(e.units - s.expected) * price
    moved = np.abs(np.expm1(-s.price_log)) * price * np.maximum(e.units7, 0.0)
    strength: Double = -np.column_stack((np.log10(s.p_up), np.log10(s.p_down), s.silence_log10p, np.log10(s.price_p)))
    impact = np.nan_to_num(np.column_stack((off, off, s.silence_units * price, moved)), nan=0.0, posinf=LARGEST)
    likely = strength >= -np.log10(rules.ticket_p)
    grown = np.asarray(e.age) >= rules.min_age
    demand = s.active & grown
    spikes = s.active & (grown | (off >= rules.young_impact))
    step = np.abs(s.price_log)
    # the tolerance is for prices that are no binary fractions: 10.00 to 12.00 is 20 %
    jump = (step >= np.log(rules.price_ratio) - 1e-6) & (step >= rules.price_usual * s.price_usual)
    rejects = np.column_stack(
        (
            likely[:, SPIKE] & spikes & s.record,
            likely[:, DROP] & demand & sold,
            likely[:, SILENCE] & demand & ~sold,
            jump & grown,
        )
    )
    pages = strength >= -np.log10(rules.page_p)
    pages[:, PRICE] = step >= np.log(rules.price_page_ratio) - 1e-6
    calm = np.column_stack((s.p_up > rules.calm_p, s.p_down > rules.calm_p, sold, ~jump))
    counts = np.column_stack((s.active, s.active, s.active | sold, np.ones(len(sold), np.bool_)))
    return _Case(
        strength=np.minimum(strength, rules.certain_decades),
        impact=impact,
        rejects=rejects & (impact >= rules.min_impact),
        pages=pages & (impact >= rules.page_impact),
        counts=counts,
        calm=calm,
    )


def _resolve(new: dict[str, NDArray[Any]], case: _Case, rules: AlertRules) -> NDArray[np.bool_]:
    """Count the calm windows of what is open, and mark what ends in this one, bool (n, 4)."""
    is_open = np.asarray(new["alert_open"] > CLOSED, np.bool_)
    counted = np.where(case.calm, np.minimum(new["alert_calm"], 254) + 1, 0)
    calm = np.where(is_open, np.where(case.counts, counted, new["alert_calm"]), 0)
    needed = np.array([rules.calm_windows, rules.calm_windows, 1, rules.calm_windows])
    ended = np.asarray(is_open & (calm >= needed), np.bool_)
    ended[:, DROP] |= is_open[:, DROP] & case.rejects[:, SILENCE]  # the silence takes over
    calm = np.where(ended, 0, calm)
    new["alert_calm"] = calm.astype(np.uint8)
    new["alert_open"][ended] = CLOSED
    return ended


def _open(new: dict[str, NDArray[Any]], case: _Case, start_ms: int) -> NDArray[np.bool_]:
    """Open what may be opened now that the ended are closed, bool (n, 4)."""
    is_open = np.asarray(new["alert_open"] > CLOSED, np.bool_)
    has_demand_alert = np.asarray(is_open[:, :PRICE].any(axis=1))
    opened = np.asarray(case.rejects & ~is_open, np.bool_)
    opened[:, :PRICE] &= ~has_demand_alert[:, None]
    new["alert_open"][opened] = np.where(case.pages, PAGE, TICKET)[opened]
    new["alert_opened_ms"][opened] = start_ms
    new["alert_worst"][opened] = case.strength[opened]
    new["alert_impact"][opened] = np.minimum(case.impact, LARGEST)[opened]
    return opened


def _worsen(new: dict[str, NDArray[Any]], case: _Case, rules: AlertRules, old: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the alerts, open before this window, that are worth telling again, bool (n, 4), and remember by how much."""
    again = old & (new["alert_open"] > CLOSED) & case.rejects
    rank = np.where(case.pages, PAGE, TICKET)
    worse = again & ((case.strength >= new["alert_worst"] + rules.update_decades) | (rank > new["alert_open"]))
    new["alert_open"][worse] = np.maximum(new["alert_open"], rank)[worse]
    new["alert_worst"][worse] = np.maximum(case.strength, new["alert_worst"])[worse]
    new["alert_impact"][again] = np.minimum(np.maximum(case.impact, new["alert_impact"]), LARGEST)[again]
    return np.asarray(worse, np.bool_)


def _change(evidence: Evidence, case: _Case, state: Rows, at: tuple[int, int, str]) -> AlertChange:
    """Put one change into words; `state` holds its opening, class and impact."""
    row, kind, _ = at
    return _told(_facts(evidence, case, state, at), row, int(state["alert_open"][row, kind]))


def change_id(alert_key: str, window_start_ms: int, status: str) -> str:
    """Name one change of an alert; the same again whenever its window is closed again."""
    return f"{alert_key}/{window_start_ms}/{status}"


def _told(facts: sentences.AlertFacts, row: int, rank: int) -> AlertChange:
    key = f"{facts.sku}/{facts.kind}/{facts.opened_ms}"
    return AlertChange(
        row=row,
        id=change_id(key, facts.window_start_ms, facts.status),
        alert_key=key,
        status=facts.status,
        kind=facts.kind,
        severity=SEVERITIES[rank],
        sku=facts.sku,
        window_start_ms=facts.window_start_ms,
        window_end_ms=facts.window_end_ms,
        opened_ms=facts.opened_ms,
        observed=facts.observed,
        expected=facts.expected,
        interval=facts.interval,
        p_value=facts.p_value,
        impact=facts.impact,
        currency=facts.currency,
        summary=sentences.summary(facts),
        contributors=sentences.contributors(facts),
    )


def _facts(e: Evidence, case: _Case, state: Rows, at: tuple[int, int, str]) -> sentences.AlertFacts:
    row, kind, status = at
    s = e.tail_evidence
    observed, expected, interval = _compared(e, row, kind)
    p_values = (s.p_up[row], s.p_down[row], 10.0 ** s.silence_log10p[row], s.price_p[row])
    return sentences.AlertFacts(
        grid=e.grid,
        kind=KINDS[kind],
        status=status,
        sku=e.skus[row],
        currency=e.currencies[row],
        window_start_ms=e.window_start_ms,
        window_end_ms=e.window_end_ms,
        opened_ms=int(state["alert_opened_ms"][row, kind]),
        since_ms=int(s.last_sale_ms[row]),
        zero_run=int(s.zero_run[row]),
        observed=observed,
        expected=expected,
        interval=interval,
        p_value=float(p_values[kind]),
        impact=float(state["alert_impact"][row, kind] if status == "resolved" else case.impact[row, kind]),
        price_ratio=float(np.exp(s.price_log[row])),
        price_usual=float(s.price_usual[row]),
        views_ratio=float(s.views_ratio[row]),
        units7=float(e.units7[row]),
        season_index=float(e.season_index),
    )


def _compared(e: Evidence, row: int, kind: int) -> tuple[float, float, tuple[float, float]]:
    """Observed, expected and the 90 % interval: units of the window, units of the silent run, or prices."""
    s = e.tail_evidence
    if kind == PRICE:
        now = float(e.price[row] if np.isfinite(e.price[row]) else s.price_before[row])
        before, reach = now / float(np.exp(s.price_log[row])), float(np.exp(_LAPLACE_90 * s.price_usual[row]))
        return now, before, (before / reach, before * reach)
    windows, mean = 1.0, float(s.expected[row])
    low, high = float(e.low[row]), float(e.high[row])
    run = kind == SILENCE and s.zero_run[row] > 0
    if run:
        windows, mean = float(s.zero_run[row]), float(s.silence_units[row])
    if run or not low <= mean <= high:  # a baseline that was overruled has an interval of its own, or there is none
        sd = float(np.sqrt(mean + mean * mean / (windows * s.dispersion[row])))
        low, high = max(0.0, mean - _NORMAL_90 * sd), mean + _NORMAL_90 * sd
    return (0.0 if run else float(e.units[row])), mean, (low, high)
