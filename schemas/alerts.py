"""What is said on the topic `alerts`."""

from __future__ import annotations

from typing import Literal

import msgspec

AlertStatus = Literal["open", "update", "resolved"]
AlertKind = Literal["demand_spike", "demand_drop", "silence", "price_jump"]
AlertSeverity = Literal["page", "ticket", "info"]


class Contributor(msgspec.Struct, frozen=True):
    """One reason that moved the observed value; `value` is in the unit that `name` says."""

    name: str
    value: float


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an alert about the window [window_start_ms, window_end_ms) of a SKU, or of a group of them.

    `alert_key` stays the same from open to resolved, `id` is new with every change. `observed`, `expected` and
    `interval` (lower, upper) are in the unit of the kind: units for demand and silence, money for a price. `p_value`
    is the chance of something as extreme if nothing were wrong; `impact` is the money at stake in `currency`. What is
    not known is null.
    """

    id: str
    alert_key: str
    status: AlertStatus
    kind: AlertKind
    severity: AlertSeverity
    sku: str | None
    window_start_ms: int
    window_end_ms: int
    observed: float
    expected: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    impact: float | None
    currency: str | None
    summary: str
    contributors: tuple[Contributor, ...]
    opened_ms: int
    group: str | None = None
