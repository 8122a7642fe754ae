"""Three inputs for some partitions: what shops send, in the order and with the faults in which they send it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from streams.kafka.batch import RecordBatch
from tests.simulation.oracle import INPUTS, LATENESS_MS, MAX_AHEAD_MS, WINDOW_MS, Event, Record
from tests.support.java_murmur2 import java_murmur2
from tests.support.partitions import click, order, price_change

if TYPE_CHECKING:
    import random

RUBBISH: Final = (
    (b"", "empty"),
    (None, "empty"),
    (b"not json", "not_json"),
    (b"\xff\xfe\x00", "not_json"),
    (b"[1, 2]", "wrong_type"),
)
NAMES: Final = ("Größe/7", *(f"sku{n}" for n in range(40)))
QUANTITIES: Final = (1, 1, 1, 2, 5, 0.5, -1, -2)
PRICES: Final = (2.0, 2.5, 0.1, 19.99, 0)


class Inputs:
    """The logs of all inputs. records: by (partition, input) and offset; an offset may hold none. ends: of the logs."""

    def __init__(self, dice: random.Random, *, partitions: int) -> None:
        self.dice = dice
        homes = {name: (java_murmur2(name.encode()) & 0x7FFFFFFF) % partitions for name in NAMES}
        self.at_home = {p: frozenset(name for name in NAMES if homes[name] == p) for p in range(partitions)}
        self.skus = {p: sorted(names)[: dice.randint(1, 5)] for p, names in self.at_home.items()}
        self.records: dict[tuple[int, int], dict[int, Record]] = {
            (p, source): {} for p in range(partitions) for source in range(3)
        }
        self.ends = dict.fromkeys(self.records, 0)
        self._stamp_ms = 0
        self._made = 0

    def write(self, partition: int, source: int, count: int, *, now_ms: int) -> None:
        """Let producers add some records, as they are at this moment."""
        log = self.records[partition, source]
        for _ in range(count):
            self.ends[partition, source] += 1
            if self.dice.random() < 0.05:
                continue  # a marker of somebody's transaction
            log[self.ends[partition, source] - 1] = self._record(partition, source, list(log.values()), now_ms)

    def _record(self, partition: int, source: int, before: list[Record], now_ms: int) -> Record:
        dice = self.dice
        luck = dice.random()
        if luck < 0.06:
            value, code = dice.choice(RUBBISH)
            return Record(value, None, code)
        if luck < 0.16 and before:
            record = dice.choice(before[-20:])
            if record.event is None or luck < 0.12:
                return record  # sent twice
            if luck < 0.14:
                return self._write(source, record.event._replace(time_ms=self._time(now_ms)))  # told again, later
            return self._write(source, self._event(source, record.event.event_id, record.event.sku, self._time(now_ms)))
        skus = self.skus[partition]
        sku = skus[0] if dice.random() < 0.5 else dice.choice(skus)
        if luck < 0.19:
            sku = dice.choice([name for name in NAMES if name not in self.at_home[partition]])
        self._made += 1
        return self._write(source, self._event(source, f"e{self._made}", sku, self._time(now_ms)))

    def _event(self, source: int, event_id: str, sku: str, time_ms: int) -> Event:
        dice = self.dice
        if source == 0:
            return Event(event_id, sku, time_ms, dice.choice(QUANTITIES), dice.choice(PRICES))
        if source == 1:
            return Event(event_id, sku, time_ms, dice.choice(["view", "cart", "purchase"]))
        return Event(event_id, sku, time_ms, dice.choice(PRICES[:4]))

    def _time(self, now_ms: int) -> int:
        """Say when it happened: mostly a while ago, within the lateness; see the branches."""
        dice, luck = self.dice, self.dice.random()
        if luck < 0.15 and self._stamp_ms:
            return self._stamp_ms  # a burst on one stamp
        if luck < 0.20:
            at_ms = now_ms - LATENESS_MS - dice.randrange(3 * WINDOW_MS)  # late, or nearly
        elif luck < 0.24:
            at_ms = now_ms // WINDOW_MS * WINDOW_MS - dice.randint(0, 1)  # on either side of an edge
        elif luck < 0.25:
            at_ms = dice.choice([0, now_ms // 1000])
        elif luck < 0.26:
            at_ms = now_ms + MAX_AHEAD_MS + dice.randint(-60_000, 60_000)  # a wrong clock
        elif luck < 0.28:
            at_ms = now_ms + dice.randrange(MAX_AHEAD_MS // 4)
        else:
            at_ms = now_ms - dice.randrange(LATENESS_MS)
        self._stamp_ms = at_ms
        return at_ms

    def _write(self, source: int, event: Event) -> Record:
        if source == 0:
            value = order(event.event_id, event.sku, event.time_ms, quantity=event.amount, unit_price=event.unit_price)
        elif source == 1:
            value = click(event.event_id, event.sku, event.time_ms, event.amount)
        else:
            value = price_change(event.event_id, event.sku, event.time_ms, event.amount)
        return Record(value, event)

    def between(self, partition: int, source: int, start: int, following: int) -> dict[int, Record]:
        log = self.records[partition, source]
        return {offset: log[offset] for offset in range(start, following) if offset in log}


def batch_of(partition: int, source: int, start: int, following: int, records: dict[int, Any]) -> RecordBatch:
    """What a fetch of these offsets brings."""
    return RecordBatch(
        INPUTS[source],
        partition,
        start,
        following,
        offsets=list(records),
        keys=[b"%d" % offset for offset in records],
        values=[record.value for record in records.values()],
    )
