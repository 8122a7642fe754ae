"""What is said on the topic `windows`."""

from __future__ import annotations

import msgspec


class WindowClosed(msgspec.Struct, frozen=True, kw_only=True):
    """What one SKU did in one closed window [window_start_ms, window_end_ms), also when that was nothing.

    `id` is `sku/window_start_ms/revision`. `units` (sold, the demand that is forecast), `order_lines` and `revenue`
    count lines with quantity > 0 and unit_price > 0; `returned_units` is minus the sum of negative quantities;
    `free_units` are those at unit_price 0. `price` is the last known one, null if none. `observed` is false where
    demand could not be seen.
    """

    id: str
    sku: str
    window_start_ms: int
    window_end_ms: int
    revision: int
    order_lines: int
    units: float
    revenue: float
    returned_units: float
    free_units: float
    views: int
    carts: int
    price: float | None
    observed: bool
