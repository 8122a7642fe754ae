"""What is said on the topic `orders`."""

from __future__ import annotations

import msgspec

from schemas.fields import Currency, CustomerId, EventId, EventTimeMs, OptionalText, Quantity, Sku, Text, UnitPrice


class OrderLine(msgspec.Struct, frozen=True, gc=False):
    """One line of an order: so many units of one SKU at one price and moment. Unknown further fields are ignored."""

    event_id: EventId
    order_id: Text
    sku: Sku
    quantity: Quantity
    unit_price: UnitPrice
    currency: Currency
    event_time_ms: EventTimeMs
    customer_id: CustomerId = None
    channel: OptionalText = None
    category: OptionalText = None
