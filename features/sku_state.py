"""What is known of one partition's SKUs: batches are absorbed into open windows, windows close into facts and vectors.

Pure: time, batches and the partition's geometry are arguments. Everything a record can turn out to be is counted once:
records in = folded + duplicate + late + rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import closing, folds
from features.currency import ShopCurrency, converted
from features.duplicates import SeenIds
from features.grid import EARLIEST_MS, LATEST_MS, WindowGrid
from features.open_windows import OpenWindow, OpenWindows
from features.season import Context, SeasonProfile, context
from features.table import Column, SkuTable, Slots
from features.watermark import NEVER_MS
from schemas.columns import ClickColumns, InputColumns, OrderColumns, Refusal

ORDERS, CLICKS, PRICES = 0, 1, 2
INPUT_NAMES = ("orders", "clicks", "price-changes")
CHUNK = 16_384  # SKUs closed at a time: bounds memory, and is the largest batch the model runs
_MATURE_OPENS = 28

Columns = InputColumns
Owns = Callable[[Sequence[bytes]], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Late:
    """A record whose window has closed. row: position in its batch."""

    row: int
    sku: str
    late_by_ms: int
    window_start_ms: int


@dataclass
class Absorbed:
    """What became of a batch. max_event_ms: newest folded, duplicate or late event time (NEVER_MS if none)."""

    folded: int = 0
    duplicate: int = 0
    late: list[Late] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    max_event_ms: int = NEVER_MS

    @property
    def misplaced(self) -> int:
        """Records refused because their SKU belongs to another partition."""
        return sum(refusal.code == "wrong_partition" for refusal in self.refused)

    @property
    def placed(self) -> int:
        """Records whose SKU belongs to this partition, whatever became of them."""
        return self.folded + self.duplicate + len(self.late)


@dataclass(frozen=True)
class Chunk:
    """Some SKUs of a closing window.

    selection: how to index the table (slice or slots). rows: their columns, being moved on. eventful: bool (n,),
    whether anything was folded for the SKU.
    """

    slots: Slots
    selection: slice | Slots
    rows: closing.Rows
    facts: closing.WindowFacts
    context: Context
    eventful: NDArray[np.bool_]


class SkuState:
    """The SKUs of one partition.

    owns: tells for UTF-8 SKUs whether they belong to this partition, bool (n,); None: all do. extra_columns: per-SKU
    columns that later stages keep in the same table. max_ahead_ms: how far beyond the clock an event time may lie.
    money: the shop's currency, shared by SKU states of one shop; None: that of the first record.
    """

    def __init__(
        self,
        grid: WindowGrid,
        *,
        extra_columns: Iterable[Column] = (),
        owns: Owns | None = None,
        max_ahead_ms: int = 3_600_000,
        money: ShopCurrency | None = None,
    ) -> None:
        """Start with no SKU and no window."""
        self.grid = grid
        self.owns = owns
        self.max_ahead_ms = max_ahead_ms
        self.table = SkuTable((*closing.COLUMNS, *extra_columns))
        self.windows = OpenWindows()
        self.seen = tuple(SeenIds() for _ in INPUT_NAMES)
        self.season = SeasonProfile(grid.season)
        self.prior_nu = 1.0
        self.money = money or ShopCurrency()
        self.currency = ""  # of the money seen in here; "" before there was any
        self.touched: dict[int, list[Slots]] = {}  # by window: slots folded into since the last `take_touched`
        self._foreign: set[str] = set()

    # ------------------------------------------------------------------ absorb
    def absorb(self, source: int, columns: Columns, *, now_ms: int) -> Absorbed:
        """Fold one decoded batch of input `source`; every row ends up in exactly one count of the result."""
        outcome = Absorbed()
        keep = self._plausible(columns, now_ms, outcome)
        columns = self._in_shop_currency(columns, keep, outcome)
        slots = self._locate(columns, keep, outcome)
        keep &= slots >= 0
        times_ms = columns.event_time_ms
        numbers = self.grid.numbers(times_ms)
        if keep.any():
            outcome.max_event_ms = int(times_ms[keep].max())
        keep &= ~self._late(columns, numbers, keep, outcome)
        self._admit(source, columns, numbers, keep, outcome)
        at: NDArray[np.intp] | slice = slice(None) if keep.all() else np.flatnonzero(keep)
        outcome.folded = len(slots[at])
        if outcome.folded:
            self._fold(columns, numbers[at], slots[at], at)
        return outcome

    def _plausible(self, columns: Columns, now_ms: int, outcome: Absorbed) -> NDArray[np.bool_]:
        """Refuse event times that no shop can have meant; returns which rows remain."""
        times_ms = columns.event_time_ms
        limit_ms = min(now_ms + self.max_ahead_ms, LATEST_MS - 1)
        keep: NDArray[np.bool_] = (times_ms >= EARLIEST_MS) & (times_ms <= limit_ms)
        for row in np.flatnonzero(~keep):
            at = int(times_ms[row])
            if at < EARLIEST_MS:
                code, why = (
                    "implausible_time",
                    f"event_time_ms {at} lies before 2000-01-01: the producer's clock or unit is wrong",
                )
            else:
                code = "from_the_future"
                why = (
                    f"event_time_ms {at} is {at - now_ms} ms ahead of the clock; "
                    f"up to {self.max_ahead_ms} ms are allowed (SKUTREND_MAX_AHEAD_MS)"
                )
            outcome.refused.append(Refusal(int(columns.row[row]), code, why))
        return keep

    def _in_shop_currency(self, columns: Columns, keep: NDArray[np.bool_], outcome: Absorbed) -> Columns:
        """Convert money in other currencies; refuses what nobody gives a rate for (in `keep`)."""
        if isinstance(columns, ClickColumns):
            return columns
        worth = self.money.worth(columns.currency, keep)
        if keep.any():
            self.currency = self.money.code
        if worth is None:
            return columns
        unknown = np.isnan(worth) & keep
        for row in np.flatnonzero(unknown):
            why = self.money.refuse(columns.currency[row])
            outcome.refused.append(Refusal(int(columns.row[row]), "wrong_currency", why))
        keep &= ~unknown
        return converted(columns, worth)

    def _locate(self, columns: Columns, keep: NDArray[np.bool_], outcome: Absorbed) -> Slots:
        """Find or make the slot of every row to keep; -1 for SKUs of other partitions, which are refused."""
        slots = self.table.slots(columns.sku)
        missing = (slots < 0) & keep
        if missing.any():
            rows = np.flatnonzero(missing)
            fresh = [s for s in dict.fromkeys(columns.sku[row] for row in rows) if s not in self._foreign]
            self._add(fresh)
            slots[rows] = self.table.slots([columns.sku[row] for row in rows])
            for row in rows[slots[rows] < 0]:
                why = (
                    f"sku {columns.sku[row]!r} belongs to another partition: partition by murmur2 of the sku "
                    "(librdkafka: partitioner=murmur2_random)"
                )
                outcome.refused.append(Refusal(int(columns.row[row]), "wrong_partition", why))
        return slots

    def _add(self, skus: list[str]) -> None:
        """Give slots to those new SKUs that are ours; remember a bounded number of those that are not."""
        if not skus:
            return
        keys = [sku.encode() for sku in skus]
        if self.owns is not None:
            ours = self.owns(keys)
            if not ours.all():
                if len(self._foreign) > 10_000:  # noqa: PLR2004 - a memory bound, not a rule
                    self._foreign.clear()
                self._foreign.update(sku for sku, own in zip(skus, ours, strict=True) if not own)
                skus = [sku for sku, own in zip(skus, ours, strict=True) if own]
                keys = [key for key, own in zip(keys, ours, strict=True) if own]
        self.table.add(skus, keys)

    def _late(
        self, columns: Columns, numbers: NDArray[np.int64], keep: NDArray[np.bool_], outcome: Absorbed
    ) -> NDArray[np.bool_]:
        """Sort out rows whose window has closed."""
        if self.windows.first_open is None:
            return np.zeros(len(keep), np.bool_)
        late: NDArray[np.bool_] = keep & (numbers < self.windows.first_open)
        if late.any():
            closed_ms = self.grid.start_ms(self.windows.first_open)
            for row in np.flatnonzero(late):
                start_ms = self.grid.start_ms(int(numbers[row]))
                by_ms = closed_ms - int(columns.event_time_ms[row])
                outcome.late.append(Late(int(columns.row[row]), columns.sku[row], by_ms, start_ms))
        return late

    def _admit(
        self,
        source: int,
        columns: Columns,
        numbers: NDArray[np.int64],
        keep: NDArray[np.bool_],
        outcome: Absorbed,
    ) -> None:
        """Drop rows whose event id an open window already holds (in `keep`)."""
        everything = bool(keep.all())
        rows = np.flatnonzero(keep)
        ids = columns.event_id if everything else [columns.event_id[row] for row in rows]
        admitted = self.seen[source].admit(ids, numbers if everything else numbers[rows])
        if admitted is not None:
            keep[rows[~admitted]] = False
            outcome.duplicate = int(len(admitted) - admitted.sum())

    def _fold(self, columns: Columns, numbers: NDArray[np.int64], slots: Slots, at: NDArray[np.intp] | slice) -> None:
        np.minimum.at(self.table["first_number"], slots, numbers)
        np.maximum.at(self.table["last_number"], slots, numbers)
        if isinstance(columns, OrderColumns):
            folds.fold_orders(self.windows, numbers, slots, columns.quantity[at], columns.unit_price[at])
        elif isinstance(columns, ClickColumns):
            folds.fold_clicks(self.windows, numbers, slots, columns.kind[at])
        else:
            folds.fold_prices(self.windows, numbers, slots, columns.price[at], columns.event_time_ms[at])
        for number, rows in folds.by_window(numbers):
            self.touched.setdefault(number, []).append(slots[rows])

    # ------------------------------------------------------------------ close
    def data_end_ms(self) -> int:
        """End of the newest open window that holds data; NEVER_MS when none does."""
        last = self.windows.last
        return NEVER_MS if last is None else self.grid.end_ms(last)

    def due(self, watermark_ms: int) -> int | None:
        """Give the number of the oldest open window if the watermark has passed its end, else None."""
        number = self.windows.first_open
        if number is None:
            number = min(self.windows.by_number, default=None)
        if number is None or self.grid.end_ms(number) > watermark_ms:
            return None
        return number

    def close(self, number: int) -> Iterator[Chunk]:
        """Close window `number` (as named by `due`) for every live SKU, also those without events, chunk by chunk.

        A chunk's `rows` have taken the price in, but not yet the units: judge the window against what was expected of
        it, then call `advance`, encode what a model wants to see, then `store`.
        """
        window = self.windows.pop(number)
        for seen in self.seen:
            seen.forget_before(number + 1)
        self.touched.pop(number, None)
        around = self._observe(window, number)
        count = len(self.table)
        live = self.table["first_number"][:count] <= number
        for low in range(0, count, CHUNK):
            high = min(low + CHUNK, count)
            slots = np.flatnonzero(live[low:high]).astype(np.int32) + np.int32(low)
            if not len(slots):
                continue
            selection: slice | Slots = slice(low, high) if len(slots) == high - low else slots
            rows: dict[str, NDArray[Any]] = {name: self.table[name][selection] for name in closing.NAMES}
            facts = closing.facts(window, slots, rows)
            yield Chunk(slots, selection, rows, facts, around, eventful=window.row_of(slots) >= 0)
        self._renew_prior(live)

    def _observe(self, window: OpenWindow, number: int) -> Context:
        """Let the shop's season take the window in."""
        folded = window.folded[: window.count]
        lines = float(folded["order_lines"].sum())
        is_open = self.season.observe(phase=self.grid.phase(number), lines=lines, units=float(folded["units"].sum()))
        return context(self.grid, self.season, number, is_open=is_open)

    def advance(self, chunk: Chunk) -> None:
        """Move a chunk's statistics on by its window."""
        closing.advance(chunk.rows, chunk.facts, chunk.context, prior_nu=self.prior_nu)

    def store(self, chunk: Chunk) -> None:
        """Write a chunk's columns back."""
        for name, value in chunk.rows.items():
            column = self.table[name][chunk.selection]
            if column is not value:
                self.table[name][chunk.selection] = value

    def _renew_prior(self, live: NDArray[np.bool_]) -> None:
        """Let the typical scale of grown-up SKUs be the prior of new ones."""
        count = len(live)
        grown = live & (self.table["opens"][:count] >= _MATURE_OPENS)
        if grown.any():
            self.prior_nu = float(np.median(self.table["nu"][:count][grown]))

    def retire(self, *, before: int) -> list[bytes]:
        """Forget the SKUs whose newest event lies in a window with a smaller number; returns their keys.

        A SKU with an event in an open window is never forgotten, whatever its number. Slots are numbered anew. One
        that comes back later is a new SKU.
        """
        count = len(self.table)
        dormant = self.table["last_number"][:count] < before
        for number in self.windows:
            window = self.windows.get(number)
            dormant[window.slots[: window.count]] = False
        if not dormant.any():
            return []
        gone = [self.table.keys[slot] for slot in np.flatnonzero(dormant).tolist()]
        kept = np.flatnonzero(~dormant).astype(np.int32)
        for number, parts in self.touched.items():
            self.touched[number] = [np.searchsorted(kept, slots).astype(np.int32) for slots in parts]
        self.table.keep(kept)
        for number in self.windows:
            self.windows.get(number).renumber(kept)
        return gone

    def take_touched(self) -> dict[int, Slots]:
        """Hand over which slots each open window was folded into since the last call: {window: unique slots}."""
        touched = {number: np.unique(np.concatenate(parts)) for number, parts in self.touched.items()}
        self.touched = {}
        return touched
