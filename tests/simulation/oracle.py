"""What must become of one partition's records: plain dicts and loops, no code shared with what is tested.

It is told what the worker is told (records, ticks, the clock) and says what must be counted, published, and remembered.
A copy of it stands for each life of a partition: what a crash takes from the worker is taken from the copy as well.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

WINDOW_MS: Final = 3_600_000
LATENESS_MS: Final = 600_000
IDLE_MS: Final = 300_000
MAX_AHEAD_MS: Final = 3_600_000
CENTURY_MS: Final = 946_684_800_000
INPUTS: Final = ("orders", "clicks", "price-changes")


class Event(NamedTuple):
    """What a record says. quantity: units, or for a click `amount` is its kind, or for a price change the price."""

    event_id: str
    sku: str
    time_ms: int
    amount: Any
    unit_price: float = 0.0


class Record(NamedTuple):
    """One record of an input: its bytes, and what they mean. event: None where they mean nothing, for this `code`."""

    value: bytes | None
    event: Event | None
    code: str = ""


Said = tuple[Any, ...]
"""One output: its topic and what it says."""


@dataclass
class Sums:
    """What happened to one SKU in one window."""

    order_lines: int = 0
    units: float = 0.0
    revenue: float = 0.0
    returned_units: float = 0.0
    free_units: float = 0.0
    views: int = 0
    carts: int = 0
    price: float | None = None
    price_ms: int | None = None


@dataclass
class Closed:
    """What one SKU had in a closed window. before: its price, and since when. revision: late events in the sums."""

    sums: Sums
    before: tuple[float | None, int | None]
    revision: int = 0


def window_of(time_ms: int) -> int:
    return time_ms // WINDOW_MS


@dataclass
class Oracle:
    """One partition. skus: those that belong to it. within_ms: for which late events change closed windows."""

    number: int
    skus: frozenset[str]
    skips_silence: bool = False
    within_ms: int = 0
    offsets: dict[int, int] = field(default_factory=dict)
    counts: dict[int, Counter[str]] = field(default_factory=lambda: {i: Counter() for i in range(3)})
    newest_ms: dict[int, int] = field(default_factory=dict)
    quiet_since_ms: dict[int, int] = field(default_factory=dict)
    read: dict[int, bool] = field(default_factory=dict)  # whether to its end, as of the last tick
    all_idle: tuple[int, int] | None = None
    watermark_ms: int | None = None
    seen: dict[int, dict[str, int]] = field(default_factory=lambda: {i: {} for i in range(3)})
    contents: dict[tuple[int, str], Event] = field(default_factory=dict)  # that came first with an id
    windows: dict[int, dict[str, Sums]] = field(default_factory=dict)
    rows: dict[int, dict[str, Closed]] = field(default_factory=dict)  # of closed windows that can still change
    closed_ids: dict[int, dict[str, int]] = field(default_factory=lambda: {i: {} for i in range(3)})
    corrected: set[tuple[int, int]] = field(default_factory=set)  # late records that changed a window
    untold: set[tuple[int, str]] = field(default_factory=set)  # windows and SKUs they changed since it was told
    first_open: int | None = None
    closed: int = 0
    commits: int = 0  # that it has seen
    inherited: int = 0  # of those, in lives before this one
    born: dict[str, int] = field(default_factory=dict)
    prices: dict[str, tuple[float, int | None]] = field(default_factory=dict)
    fates: dict[tuple[int, int], str] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)  # since the last commit
    journal: list[Said] = field(default_factory=list)  # all that moved it, for a run without disturbance

    def copy(self) -> Oracle:
        twin = copy.copy(self)
        twin.counts = {i: Counter(c) for i, c in self.counts.items()}
        twin.seen = {i: dict(s) for i, s in self.seen.items()}
        twin.contents = dict(self.contents)
        twin.closed_ids = {i: dict(s) for i, s in self.closed_ids.items()}
        twin.rows = copy.deepcopy(self.rows)
        twin.corrected, twin.untold = set(self.corrected), set(self.untold)
        twin.windows = {n: {s: copy.copy(sums) for s, sums in w.items()} for n, w in self.windows.items()}
        for name in ("offsets", "newest_ms", "quiet_since_ms", "read", "born", "prices", "fates"):
            setattr(twin, name, dict(getattr(self, name)))
        twin.said, twin.journal = list(self.said), list(self.journal)
        return twin

    def reborn(self) -> Oracle:
        """What a new owner knows: all that was committed, but not since when the inputs have been silent."""
        twin = self.copy()
        twin.quiet_since_ms, twin.read, twin.all_idle, twin.said, twin.untold = {}, {}, None, [], set()
        twin.inherited = self.commits
        return twin

    # ------------------------------------------------------------------ records
    def take(self, source: int, records: dict[int, Record], following: int, *, now_ms: int, up_ms: int) -> None:
        """Take the records of one batch, by offset; late is what lies before the windows open when it comes."""
        counts = self.counts[source]
        for offset, record in records.items():
            fate = self._fate(source, offset, record, now_ms)
            counted = "rejected" if fate == "reused" else fate  # which happened at its time, as a duplicate did
            self.fates[source, offset] = counted
            counts["records"] += 1
            counts[counted] += 1
            if record.event is None or fate == "rejected":
                continue
            if record.event.time_ms > self.newest_ms.get(source, -1):
                self.newest_ms[source] = record.event.time_ms
                if fate != "late":
                    self.quiet_since_ms.pop(source, None)
                    self.all_idle = None
        self.offsets[source] = following
        self.journal.append(("take", source, dict(records), following, now_ms))
        self._move_watermark(now_ms, up_ms)

    def _fate(self, source: int, offset: int, record: Record, now_ms: int) -> str:
        where = f"{INPUTS[source]}[{self.number}]@{offset}"
        event, code = record.event, record.code
        if event is not None and event.time_ms < CENTURY_MS:
            code = "implausible_time"
        elif event is not None and event.time_ms > now_ms + MAX_AHEAD_MS:
            code = "from_the_future"
        elif event is not None and event.sku not in self.skus:
            code = "wrong_partition"
        if code or event is None:
            self.said.append(("dead-letters", where, code, record.value))
            return "rejected"
        number = window_of(event.time_ms)
        if self.first_open is not None and number < self.first_open:
            start_ms = number * WINDOW_MS
            late_by_ms = self.first_open * WINDOW_MS - event.time_ms
            changes = self._correct(source, event, number)
            if changes:
                self.corrected.add((source, offset))
            self.said.append(("late-events", where, start_ms, late_by_ms, int(changes), record.value))
            return "late"
        content = event._replace(time_ms=0)
        if event.event_id in self.seen[source]:
            if self.contents[source, event.event_id] == content:
                return "duplicate"
            self.said.append(("dead-letters", where, "id_reused", record.value))
            return "reused"
        self.seen[source][event.event_id] = number
        self.contents[source, event.event_id] = content
        self.born[event.sku] = min(number, self.born.get(event.sku, number))
        self._fold(source, event, self.windows.setdefault(number, {}).setdefault(event.sku, Sums()))
        return "folded"

    def _fold(self, source: int, event: Event, sums: Sums) -> None:
        if source == 0:
            if event.amount < 0:
                sums.returned_units -= event.amount
            elif event.unit_price == 0:
                sums.free_units += event.amount
            else:
                sums.order_lines += 1
                sums.units += event.amount
                sums.revenue += event.amount * event.unit_price
        elif source == 1:
            sums.views += event.amount == "view"
            sums.carts += event.amount == "cart"
        elif sums.price_ms is None or event.time_ms >= sums.price_ms:
            sums.price, sums.price_ms = event.amount, event.time_ms

    # ------------------------------------------------------------------ late events
    def _reach(self, first_open: int) -> int:
        return first_open - -(-self.within_ms // WINDOW_MS)

    def _correct(self, source: int, event: Event, number: int) -> bool:
        """Let a late event change its window, if that is within reach and nobody has seen its id."""
        assert self.first_open is not None
        if number < self._reach(self.first_open):
            return False
        if event.event_id in self.seen[source] or event.event_id in self.closed_ids[source]:
            return False
        self.closed_ids[source][event.event_id] = number
        row = self.rows.setdefault(number, {}).get(event.sku)
        if row is None:
            later = [n for n in sorted(self.rows) if n > number and event.sku in self.rows[n]]
            before = self.rows[later[0]][event.sku].before if later else self.prices.get(event.sku, (None, None))
            row = self.rows[number][event.sku] = Closed(Sums(), before)
        self._fold(source, event, row.sums)
        row.revision += 1
        self.untold.add((number, event.sku))
        if self.born.get(event.sku, self.first_open) < self.first_open:
            known, since_ms = self.prices.get(event.sku, (None, None))
            if source == 2 and (since_ms is None or event.time_ms >= since_ms):
                self.prices[event.sku] = event.amount, event.time_ms
            elif source == 0 and known is None and event.amount > 0 and event.unit_price > 0:
                self.prices[event.sku] = event.unit_price, None
        return True

    def tell_corrected(self) -> None:
        """Publish the windows that late events have changed."""
        for number, sku in sorted(self.untold):
            row = self.rows[number][sku]
            price, _ = self._price_after(row.before, row.sums)
            self.said.append(("windows", f"{sku}/{number * WINDOW_MS}/{row.revision}", copy.copy(row.sums), price))
        self.untold.clear()

    # ------------------------------------------------------------------ time
    def tick(self, lags: dict[int, bool | None], *, now_ms: int, up_ms: int) -> None:
        """Look at each input: whether it has anything unread, None where it is paused. up_ms: a clock nobody sets."""
        self.read = {source: lag is False for source, lag in lags.items()}
        for source, lag in lags.items():
            if lag is None:
                self.quiet_since_ms.pop(source, None)
            elif not lag:
                self.quiet_since_ms.setdefault(source, up_ms)
        self._move_watermark(now_ms, up_ms)

    def missed(self, for_ms: int) -> None:
        """Nobody listened for so long: that was no silence."""
        if for_ms > IDLE_MS / 2:
            self.quiet_since_ms.clear()

    def _move_watermark(self, now_ms: int, up_ms: int) -> None:
        since = {s: at_ms for s, at_ms in self.quiet_since_ms.items() if self.read.get(s)}
        active = [s for s in range(3) if up_ms - since.get(s, up_ms) < IDLE_MS]
        newest = [self.newest_ms.get(source) for source in active]
        if active:
            self.all_idle = None
            if None not in newest:
                self._raise_to(min(ms for ms in newest if ms is not None) - LATENESS_MS)
        elif self.newest_ms:
            if self.all_idle is None:
                reached = max(self.newest_ms.values()) - LATENESS_MS
                self.all_idle = up_ms, reached if self.watermark_ms is None else max(reached, self.watermark_ms)
            since_ms, from_ms = self.all_idle
            paced = from_ms + up_ms - since_ms
            end_ms = (max(self.windows) + 1) * WINDOW_MS if self.windows else paced
            self._raise_to(min(now_ms - LATENESS_MS, max(paced, end_ms)))

    def _raise_to(self, ms: int) -> None:
        self.watermark_ms = ms if self.watermark_ms is None else max(ms, self.watermark_ms)

    # ------------------------------------------------------------------ windows
    def close_next(self) -> bool:
        """Close the oldest window, if the watermark has passed it."""
        number = self.first_open if self.first_open is not None else min(self.windows, default=None)
        if number is None or self.watermark_ms is None or (number + 1) * WINDOW_MS > self.watermark_ms:
            return False
        self.tell_corrected()
        window = self.windows.pop(number, {})
        self.first_open = number + 1
        self.closed += 1
        reach = self._reach(number + 1)
        self.rows = {at: rows for at, rows in self.rows.items() if at >= reach}
        for source, seen in self.seen.items():
            self.closed_ids[source] |= {event_id: at for event_id, at in seen.items() if at <= number}
            self.closed_ids[source] = {i: at for i, at in self.closed_ids[source].items() if at >= reach}
            self.seen[source] = {event_id: at for event_id, at in seen.items() if at > number}
        if reach <= number:
            before = {sku: self.prices.get(sku, (None, None)) for sku in window}
            self.rows[number] = {sku: Closed(copy.copy(sums), before[sku]) for sku, sums in window.items()}
        for sku in sorted(sku for sku, born in self.born.items() if born <= number):
            price = self._price(sku, window.get(sku, Sums()))
            if sku in window or not self.skips_silence:
                self.said.append(("windows", f"{sku}/{number * WINDOW_MS}/0", window.get(sku, Sums()), price))
        self.journal.append(("close", number, self.watermark_ms))
        return True

    def _price(self, sku: str, sums: Sums) -> float | None:
        """Last known price after a window."""
        known, since_ms = self._price_after(self.prices.get(sku, (None, None)), sums)
        if known is not None:
            self.prices[sku] = known, since_ms
        return known

    def _price_after(self, before: tuple[float | None, int | None], sums: Sums) -> tuple[float | None, int | None]:
        """Give the price of a price change, or before the first one what was paid; and since when."""
        known, since_ms = before
        if sums.price is not None and (since_ms is None or (sums.price_ms or 0) >= since_ms):
            known, since_ms = sums.price, sums.price_ms
        elif since_ms is None and sums.units > 0:
            known = sums.revenue / sums.units
        return known, since_ms


def grouped(oracle: Oracle, records: dict[int, dict[int, Record]]) -> dict[str, tuple[float, ...]]:
    """Sums of the records that count, by SKU and window: the group-by that all of it comes down to."""
    found: dict[str, list[float]] = {}
    for (source, offset), fate in sorted(oracle.fates.items()):
        event = records[source][offset].event
        if (fate != "folded" and (source, offset) not in oracle.corrected) or event is None:
            continue
        sums = found.setdefault(f"{event.sku}/{event.time_ms // WINDOW_MS * WINDOW_MS}", [0.0] * 5)
        if source == 0 and event.amount > 0 and event.unit_price > 0:
            sums[0] += 1
            sums[1] += event.amount
        elif source == 0 and event.amount < 0:
            sums[2] -= event.amount
        elif source == 1:
            sums[3] += event.amount == "view"
            sums[4] += event.amount == "cart"
    return {name: tuple(sums) for name, sums in found.items()}
