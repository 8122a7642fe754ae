"""Fetched bytes to columns, one reused decoder per topic; the one door by which input messages come in.

Every value ends either in one row of the columns or in one Refusal, and no bytes whatever make these functions raise.
Rules beyond the types: unknown fields are ignored and their content is not looked at; of equal names the last counts;
a whole number may stand for a float, never text for a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import numpy as np

from schemas.clicks import CLICK_KINDS, Click
from schemas.columns import ClickColumns, OrderColumns, PriceColumns, Refusal, Rows
from schemas.fields import MAX_SKU_BYTES
from schemas.orders import OrderLine
from schemas.price_changes import PriceChange
from schemas.refusals import DECODE_ERRORS, MAX_VALUE_BYTES, FieldRule, diagnose, rules_of, sku_complaint

_UTF8_BYTES_PER_CHARACTER: Final = 4
_CLICK_KIND_CODES: Final = {kind: code for code, kind in enumerate(CLICK_KINDS)}


class _AboutSku(Protocol):
    @property
    def sku(self) -> str: ...


M = TypeVar("M", bound=_AboutSku)


class _ColumnDecoder(Generic[M]):
    """The reused decoder of one message type, and its rules for telling why a value is refused."""

    def __init__(self, message: type[M]) -> None:
        self.decode: Callable[[bytes], M] = msgspec.json.Decoder(message).decode
        self.rules: tuple[FieldRule, ...] = rules_of(message)  # type: ignore[arg-type]  # a Struct that has a sku

    def read(self, values: Sequence[bytes | None]) -> tuple[list[M], Rows, list[Refusal]]:
        """Usable messages, the row of each, and the refusals in ascending order of row."""
        messages: list[M] = []
        refusals: list[Refusal] = []
        readable = [v if v is not None and len(v) <= MAX_VALUE_BYTES else b"" for v in values]
        decoded = map(self.decode, readable)
        while True:
            try:
                # An extend that fails keeps what it got, and the map goes on after the value that failed: no value is
                # decoded twice, and a batch without refusals is one call
                messages.extend(decoded)
                break
            except DECODE_ERRORS as error:
                row = len(messages) + len(refusals)
                code, sentence = diagnose(values[row], self.rules, error)
                refusals.append(Refusal(row, code, sentence))
        rows = _rows_left(len(values), refusals)
        return _without_bad_skus(messages, rows, refusals)


def _rows_left(count: int, refusals: list[Refusal]) -> Rows:
    rows = np.arange(count, dtype=np.int32)
    return np.delete(rows, [refusal.row for refusal in refusals]) if refusals else rows


def _without_bad_skus(messages: list[M], rows: Rows, refusals: list[Refusal]) -> tuple[list[M], Rows, list[Refusal]]:
    skus = [message.sku for message in messages]
    longest = max(map(len, skus), default=0)
    joined = "".join(skus)  # searched as one text: one by one would cost a tenth of the decoding
    is_short = longest * _UTF8_BYTES_PER_CHARACTER <= MAX_SKU_BYTES
    if is_short and all(skus) and joined.isprintable() and (" " not in joined or not any(map(str.isspace, skus))):
        return messages, rows, refusals
    complaints = [sku_complaint(sku) for sku in skus]
    good = [i for i, complaint in enumerate(complaints) if complaint is None]
    bad = [Refusal(int(rows[i]), *complaint) for i, complaint in enumerate(complaints) if complaint is not None]
    return [messages[i] for i in good], rows[good], sorted([*refusals, *bad], key=_row_of)


def _row_of(refusal: Refusal) -> int:
    return refusal.row


_ORDERS: Final = _ColumnDecoder(OrderLine)
_CLICKS: Final = _ColumnDecoder(Click)
_PRICE_CHANGES: Final = _ColumnDecoder(PriceChange)


def decode_orders(values: Sequence[bytes | None]) -> tuple[OrderColumns, list[Refusal]]:
    """Values of a batch of `orders` to columns; refusals ascend by row. Never raises for any bytes."""
    lines, rows, refusals = _ORDERS.read(values)
    columns = OrderColumns(
        row=rows,
        event_id=[line.event_id for line in lines],
        sku=[line.sku for line in lines],
        quantity=np.array([line.quantity for line in lines], dtype=np.float64),
        unit_price=np.array([line.unit_price for line in lines], dtype=np.float64),
        event_time_ms=np.array([line.event_time_ms for line in lines], dtype=np.int64),
        currency=[line.currency for line in lines],
    )
    return columns, refusals


def decode_clicks(values: Sequence[bytes | None]) -> tuple[ClickColumns, list[Refusal]]:
    """Values of a batch of `clicks` to columns; refusals ascend by row. Never raises for any bytes."""
    clicks, rows, refusals = _CLICKS.read(values)
    columns = ClickColumns(
        row=rows,
        event_id=[click.event_id for click in clicks],
        sku=[click.sku for click in clicks],
        kind=np.array([_CLICK_KIND_CODES[click.kind] for click in clicks], dtype=np.int8),
        event_time_ms=np.array([click.event_time_ms for click in clicks], dtype=np.int64),
    )
    return columns, refusals


def decode_price_changes(values: Sequence[bytes | None]) -> tuple[PriceColumns, list[Refusal]]:
    """Values of a batch of `price-changes` to columns; refusals ascend by row. Never raises for any bytes."""
    changes, rows, refusals = _PRICE_CHANGES.read(values)
    columns = PriceColumns(
        row=rows,
        event_id=[change.event_id for change in changes],
        sku=[change.sku for change in changes],
        price=np.array([change.price for change in changes], dtype=np.float64),
        event_time_ms=np.array([change.event_time_ms for change in changes], dtype=np.int64),
        currency=[change.currency for change in changes],
    )
    return columns, refusals
