"""Records that no shop meant to send, each with the code that its dead letter must carry."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

import msgspec

GOOD: Final[dict[str, Any]] = {
    "event_id": "hostile-base",
    "order_id": "o1",
    "sku": "22423",
    "quantity": 1.0,
    "unit_price": 2.5,
    "currency": "GBP",
    "event_time_ms": 1_300_700_000_000,
    "customer_id": None,
}
YEAR_2100_MS: Final = 4_102_444_800_000


@dataclass(frozen=True)
class Hostile:
    """One unusable record of `orders`. partition: None = where its key belongs."""

    code: str
    value: bytes | None
    key: bytes | None = b"22423"
    partition: int | None = None


def order(**changes: Any) -> bytes:  # noqa: ANN401  # JSON values
    return msgspec.json.encode({**GOOD, **changes})


def raw(field: str, text: bytes) -> bytes:
    """Put a piece of text that JSON libraries would not write in the place of a field's value."""
    return order(**{field: "@"}).replace(b'"@"', text)


def without(field: str) -> bytes:
    return msgspec.json.encode({name: value for name, value in GOOD.items() if name != field})


def unusable() -> list[Hostile]:
    """One of each kind that INTERFACES and common sense forbid; the wrong partition is for the caller to place."""
    junk = random.Random(4).randbytes(1_000_000)  # noqa: S311  # reproducible, and nothing that would compress
    return [
        Hostile("empty", b""),
        Hostile("empty", None),
        Hostile("not_json", order()[:-9]),
        Hostile("not_json", b"quantity=3;sku=22423"),
        Hostile("not_json", b"\xff\xfe\x00\x01"),
        Hostile("not_json", raw("quantity", b"NaN")),
        Hostile("not_json", raw("quantity", b"Infinity")),
        Hostile("not_json", raw("unit_price", b"-Infinity")),
        Hostile("out_of_range", raw("quantity", b"1e400")),
        Hostile("out_of_range", order(unit_price=-0.01)),
        Hostile("out_of_range", order(quantity=1e19)),
        Hostile("wrong_type", b"[1, 2, 3]"),
        Hostile("wrong_type", b"null"),
        Hostile("wrong_type", order(quantity="3")),
        Hostile("wrong_type", order(event_time_ms="2011-03-21")),
        Hostile("wrong_type", order(event_time_ms=1_300_700_000_000.5)),
        Hostile("wrong_type", order(sku=22423)),
        Hostile("wrong_type", without("event_id")),
        Hostile("missing_sku", without("sku")),
        Hostile("missing_sku", order(sku="")),
        Hostile("missing_sku", order(sku="  \t")),
        Hostile("missing_sku", order(sku=None)),
        Hostile("missing_sku", order(sku="x" * 5_000)),
        Hostile("control_character", order(sku="22423\x1b[2J")),
        Hostile("control_character", order(sku="22423\nERROR forged")),
        Hostile("control_character", order(sku="\u202e32422")),
        Hostile("too_large", junk),
        Hostile("too_large", order(order_id="y" * 400_000)),
        Hostile("implausible_time", order(event_time_ms=0)),
        Hostile("implausible_time", order(event_time_ms=1_300_700_000)),  # seconds
        Hostile("implausible_time", order(event_time_ms=-(2**63))),
        Hostile("from_the_future", order(event_time_ms=YEAR_2100_MS)),
        Hostile("from_the_future", order(event_time_ms=2**63 - 1)),
        Hostile("wrong_currency", order(currency="GBp")),  # pence: no code, so it cannot become the shop's either
        Hostile("wrong_currency", order(currency="\x1b[2")),
        Hostile("wrong_type", b"[" * 100_000),
        Hostile("not_json", b'{"sku":' * 30_000),
    ]
