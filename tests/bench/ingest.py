"""How many order lines a core maps: messages made into events, many at once beside one by one. No Kafka."""

from __future__ import annotations

import gc
import json
import time
from typing import TYPE_CHECKING

from streams.ingest.stage import Stage
from streams.intake.convert import Local
from streams.intake.mapping import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

LINES = 60_000
LINES_OF_AN_ORDER = 3
BATCH = 5_000
ROUNDS = 3
T0 = 1_700_000_000_000
HEAD = '\nname = "bus"\ntitle = "orders"\n[orders]\nformat = "json"\ntopics = ["bus"]\n'
FLAT = f"""{HEAD}time = "ms"
[orders.fields]
event_id = "line_id"
order_id = "order"
sku = "sku"
quantity = "quantity"
unit_price = "price"
currency = "currency"
event_time_ms = "at"
customer_id = "customer"
"""
NESTED = f"""{HEAD}each = "lines"
[orders.fields]
order_id = "parent.id"
sku = "sku"
quantity = "pieces"
unit_price = {{ from = "cents", minor_units = true }}
currency = "parent.currency"
event_time_ms = "parent.at"
customer_id = "parent.customer"
"""


class Message:
    """A message of the bus."""

    def __init__(self, value: dict[str, object], offset: int) -> None:
        self._value, self._offset = json.dumps(value).encode(), offset

    def topic(self) -> str:
        return "bus"

    def value(self) -> bytes:
        return self._value

    def headers(self) -> None:
        return None

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset


def flat() -> list[Message]:
    """A message a line."""
    return [
        Message(
            {
                "line_id": f"l{n}",
                "order": f"o{n // LINES_OF_AN_ORDER}",
                "sku": f"SKU-{n % 300}",
                "quantity": 1 + n % 5,
                "price": 2.5,
                "currency": "EUR",
                "at": T0 + n,
                "customer": f"c{n % 1_000}",
            },
            n,
        )
        for n in range(LINES)
    ]


def nested() -> list[Message]:
    """A message an order."""
    made = []
    for n in range(LINES // LINES_OF_AN_ORDER):
        lines = [{"sku": f"SKU-{(n + k) % 300}", "pieces": 1 + k, "cents": 250} for k in range(LINES_OF_AN_ORDER)]
        at = f"2026-03-{1 + n % 28:02d}T08:00:00Z"
        made.append(Message({"id": f"o{n}", "currency": "eur", "at": at, "customer": f"c{n}", "lines": lines}, n))
    return made


def lines_a_second(stage: Stage, messages: Sequence[Message]) -> float:
    """Best of three, by the processor's time."""
    gc.collect()
    gc.freeze()  # a stage never holds so many messages
    best = float("inf")
    for _ in range(ROUNDS):
        started, lines = time.process_time(), 0
        for low in range(0, len(messages), BATCH):
            lines += len(stage.run(messages[low : low + BATCH]).records["orders"][0])
        best = min(best, time.process_time() - started)
        if lines != LINES:
            msg = f"{lines} of {LINES} lines came out"
            raise RuntimeError(msg)
    return LINES / best


def main() -> None:
    """Print lines a second and core of both shapes, mapped at once and one by one."""
    one_by_one = '[[orders.leave_out]]\nwhen = "is_test"\nreason = "test order"\n'
    for name, text, messages in (("flat", FLAT, flat()), ("nested", NESTED, nested())):
        whole, single = (lines_a_second(Stage(parse(t, name), Local()), messages) for t in (text, text + one_by_one))
        rates = f"{whole:,.0f} lines/s a core at once, {single:,.0f} one by one; {whole / single:.1f} x"
        print(f"ingest, {name} JSON: {rates}")
