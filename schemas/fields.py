"""The field types that the input messages share: what each may hold, and how a refusal names it to a person.

`extra` holds things for schemas/refusals.py: `must_be` completes the sentence "`field` must be ...", and `shape` is the
JSON form (str, float or int) that separates a value of the wrong type from one that is only out of range. What is found
in a field that is `personal` is never quoted.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_SKU_BYTES = 512
MAX_MONEY = 1e12
MAX_QUANTITY = 1e18

EventId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        description="unique per event; a second record with it in an open window is a duplicate",
        extra={"must_be": "text of 1 to 512 characters", "shape": str},
    ),
]
Sku = Annotated[
    str,
    Meta(
        max_length=MAX_SKU_BYTES,
        description=f"the article, not blank, without control characters, at most {MAX_SKU_BYTES} bytes of UTF-8; "
        "also the record's key",
        # decoding.py checks all of this: a pattern here would double the decoder's time
        extra_json_schema={
            "minLength": 1,
            "pattern": r"^(?![\s\S]*[\u0000-\u001F\u007F-\u009F\u2028-\u202E\u2066-\u2069])[\s\S]*\S",
        },
        extra={"must_be": "text", "shape": str},
    ),
]
Currency = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=3,
        description="ISO 4217 code",
        extra={"must_be": "a currency code of 3 letters", "shape": str},
    ),
]
EventTimeMs = Annotated[
    int,
    Meta(
        ge=-(2**63),
        le=2**63 - 1,
        description="epoch milliseconds, UTC",
        extra={"must_be": "a whole number of epoch milliseconds that fits 64 bits", "shape": int},
    ),
]
Quantity = Annotated[
    float,
    Meta(
        ge=-MAX_QUANTITY,
        le=MAX_QUANTITY,
        description="units; may be fractional; negative is a return or a cancellation",
        extra={"must_be": "a number from -1e18 to 1e18", "shape": float},
    ),
]
UnitPrice = Annotated[
    float,
    Meta(
        ge=0,
        le=MAX_MONEY,
        description="money per unit; 0 is a free unit",
        extra={"must_be": "a number from 0 to 1e12", "shape": float},
    ),
]
Price = Annotated[
    float,
    Meta(
        gt=0,
        le=MAX_MONEY,
        description="money per unit",
        extra={"must_be": "a number above 0 and up to 1e12", "shape": float},
    ),
]
PreviousPrice = Annotated[
    float | None,
    Meta(
        description="money per unit before the change; null if not known",
        extra={"must_be": "a number or null", "shape": float},
    ),
]
SessionId = Annotated[str, Meta(extra={"must_be": "text", "shape": str, "personal": True})]
CustomerId = Annotated[str | None, Meta(extra={"must_be": "text or null", "shape": str, "personal": True})]
Text = Annotated[str, Meta(extra={"must_be": "text", "shape": str})]
OptionalText = Annotated[str | None, Meta(extra={"must_be": "text or null", "shape": str})]
