"""What is said on the topic `price-changes`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from schemas.fields import Currency, EventId, EventTimeMs, PreviousPrice, Price, Sku

PriceChangeKind = Annotated[
    Literal["list", "promotion", "markdown"],
    msgspec.Meta(
        description="a new list price, a price for a while, or a clearance",
        extra={"must_be": 'one of "list", "promotion", "markdown"', "shape": str},
    ),
]


class PriceChange(msgspec.Struct, frozen=True, gc=False):
    """A new price of one SKU; `event_time_ms` is when it takes effect. Unknown further fields are ignored."""

    event_id: EventId
    sku: Sku
    price: Price
    currency: Currency
    kind: PriceChangeKind
    event_time_ms: EventTimeMs
    previous_price: PreviousPrice = None
