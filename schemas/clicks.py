"""What is said on the topic `clicks`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from schemas.fields import EventId, EventTimeMs, SessionId, Sku

CLICK_KINDS: Final = ("view", "cart", "purchase")
"""The position of a kind is its number in `ClickColumns.kind`."""

ClickKind = Annotated[
    Literal["view", "cart", "purchase"],
    msgspec.Meta(
        description="seen, put into the cart, or bought",
        extra={"must_be": 'one of "view", "cart", "purchase"', "shape": str},
    ),
]


class Click(msgspec.Struct, frozen=True, gc=False):
    """One thing a visitor did with one SKU. Unknown further fields are ignored."""

    event_id: EventId
    session_id: SessionId
    sku: Sku
    kind: ClickKind
    event_time_ms: EventTimeMs
