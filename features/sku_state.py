"""What is known of one partition's SKUs: batches are folded into open windows, closing windows move statistics on.

Pure: time, batches and the partition's geometry are arguments. Everything a record can turn out to be is counted once:
records in = folded + duplicate + late + rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from features import closing, folds, season
from features.admission import Absorbed, Admission, Columns, Owns
from features.cadence import DORMANT_WINDOWS
from features.chunk import ClosingChunk
from features.corrections import Corrections
from features.currency import ShopCurrency
from features.duplicates import SeenIds
from features.grid import EARLIEST_MS, WindowGrid
from features.known_days import known
from features.open_windows import OpenWindow, OpenWindows
from features.table import Column, SkuTable, Slots
from features.watermark import NEVER_MS
from schemas.columns import ClickColumns, OrderColumns
from schemas.inputs import INPUTS

CHUNK = 16_384  # SKUs closed at a time: bounds memory, and is the largest batch the model runs
_NO_EVENT = 1 << 62  # `first_number` of a SKU without any


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
        self.table = SkuTable((*closing.COLUMNS, *extra_columns))
        self.windows = OpenWindows()
        self.seen = tuple(SeenIds() for _ in INPUTS)
        self.season = season.profile_of(grid)
        self.prior_nu = 1.0
        self.money = money or ShopCurrency()
        self.admission = Admission(grid, owns=owns, max_ahead_ms=max_ahead_ms, money=self.money)
        self.currency = ""  # of the money seen in here; "" before there was any
        self.touched: dict[int, list[Slots]] = {}  # by window: slots folded into since the last `take_touched`
        self.corrections: Corrections | None = None  # None: late events change nothing
        self._closing: int | None = None  # the window of which only some chunks are committed

    # ------------------------------------------------------------------ absorb
    def absorb(self, source: int, columns: Columns, *, now_ms: int) -> Absorbed:
        """Fold one decoded batch of input `source`; every row ends up in exactly one count of the result.

        Which one, `Admission` says. Only what is folded makes a SKU known.
        """
        slots = self.table.slots(columns.sku)
        is_unknown = slots < 0
        admitted = self.admission.judge(
            columns,
            self.seen[source],
            is_unknown=is_unknown,
            first_open=self.windows.first_open,
            now_ms=now_ms,
        )
        if admitted.has_money:
            self.currency = self.money.code
        keep, outcome = admitted.keep, admitted.outcome
        self._give_slots(columns, is_unknown & keep, slots)
        at: NDArray[np.intp] | slice = slice(None) if keep.all() else np.flatnonzero(keep)
        outcome.folded = len(slots[at])
        if outcome.folded:
            self._fold(admitted.columns, admitted.numbers[at], slots[at], at)
        if self.corrections is not None and outcome.late:
            outcome.corrected = set(columns.row[self.corrections.fold(source, admitted, self)].tolist())
        return outcome

    def _give_slots(self, columns: Columns, unknown: NDArray[np.bool_], slots: Slots) -> None:
        """Give slots (in `slots`) to the unknown SKUs of the rows that are to be folded."""
        rows = np.flatnonzero(unknown).tolist()
        if rows:
            skus = [columns.sku[row] for row in rows]
            self.table.add(list(dict.fromkeys(skus)))
            slots[rows] = self.table.slots(skus)

    def _fold(self, columns: Columns, numbers: NDArray[np.int64], slots: Slots, at: NDArray[np.intp] | slice) -> None:
        np.minimum.at(self.table["first_number"], slots, numbers)
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

    def close(self, number: int) -> Iterator[ClosingChunk]:
        """Close window `number` (as named by `due`) for every live SKU, also those without events, chunk by chunk.

        The caller commits each chunk before it asks for the next one, and asks until there is none (RuntimeError): a
        SKU state of which a window is half closed closes no other one.
        """
        self._refuse_half_closed()
        self._closing = number
        window = self.windows.pop(number)
        self._forget_ids(number + 1)
        self.touched.pop(number, None)
        context = self._observe(window, number)
        count = len(self.table)
        live = self.table["first_number"][:count] <= number
        for low in range(0, count, CHUNK):
            slots = np.flatnonzero(live[low : low + CHUNK]).astype(np.int32) + np.int32(low)
            if len(slots):
                chunk = ClosingChunk(self.table, slots, window=window, context=context, prior_nu=self.prior_nu)
                if self.corrections is not None:
                    self.corrections.closed(window, chunk, self.table)
                yield chunk
                if not chunk.is_committed:
                    msg = f"{chunk} was left without a commit"
                    raise RuntimeError(msg)
        self._renew_prior(live)
        self._closing = None

    def _forget_ids(self, first_open: int) -> None:
        """Forget the ids of events in windows that have closed; corrections still find them where they are stored."""
        kept = None if self.corrections is None else self.corrections.first_in_reach(first_open)
        for seen in self.seen:
            seen.forget_before(first_open, stored_from=kept)
        if self.corrections is not None:
            self.corrections.forget_before(first_open)

    def _refuse_half_closed(self) -> None:
        if self._closing is not None:
            msg = f"window {self._closing} was left half closed: some SKUs have moved on by it, others have not"
            raise RuntimeError(msg)

    def due_count(self, watermark_ms: int) -> int:
        """Count the windows that are due: whose end the watermark has passed."""
        number = self.due(watermark_ms)
        return 0 if number is None else self.grid.number(watermark_ms) - number

    def nobody_until(self, number: int, watermark_ms: int) -> int:
        """Give the end of the due windows from `number` (as named by `due`) on in which no SKU is live.

        `number` itself where one is live in it: then `close` it, else `cross` to what is returned.
        """
        first = int(self.table["first_number"][: len(self.table)].min(initial=_NO_EVENT))
        return max(number, min(first, self.grid.number(watermark_ms)))

    def cross(self, number: int, stop: int) -> None:
        """Close windows `number` up to `stop`, in which no SKU is live: with the state closing each leaves."""
        self._refuse_half_closed()
        self.windows.first_open = stop
        self._forget_ids(stop)
        self.season.observe_silence(self.grid.phase_counts(number, stop))

    def _observe(self, window: OpenWindow, number: int) -> season.Context:
        """Let the shop's season take the window in."""
        folded = window.folded[: window.count]
        is_open = self.season.observe(
            phase=self.grid.phase(number),
            lines=float(folded["order_lines"].sum()),
            units=float(folded["units"].sum()),
            festival=known(self.grid, number).festival,
        )
        return season.context(self.grid, self.season, number, is_open=is_open)

    def _renew_prior(self, live: NDArray[np.bool_]) -> None:
        """Let the typical scale of grown-up SKUs be the prior of new ones."""
        count = len(live)
        grown = live & (self.table["opens"][:count] >= self.grid.cadence.mature_after)
        if grown.any():
            self.prior_nu = float(np.median(self.table["nu"][:count][grown]))

    def dormant_before(self, closed: int, *, dormant_after_ms: int) -> int:
        """Give the window before which a SKU's newest event must lie for it to be dormant once `closed` has closed."""
        before = closed + 1 - DORMANT_WINDOWS
        limit_ms = self.grid.end_ms(closed) - dormant_after_ms
        return max(before, self.grid.number(limit_ms)) if limit_ms >= EARLIEST_MS else before

    def dormant(self, *, before: int) -> NDArray[np.bool_]:
        """Tell which SKUs have no event in a closed window from `before` on, but had earlier ones; bool (n,).

        Those that came up in windows still open are not dormant, whatever their number. One that was live and has
        events in open windows only since is: it will be back as a new SKU.
        """
        count, first_open = len(self.table), self.windows.first_open
        first_number = self.table["first_number"][:count]
        is_new = (first_number >= (_NO_EVENT if first_open is None else first_open)) & (first_number < _NO_EVENT)
        is_dormant: NDArray[np.bool_] = (self.table["last_number"][:count] < before) & ~is_new
        return is_dormant

    def forget(self, dormant: NDArray[np.bool_]) -> None:
        """Let SKUs, bool (n,), be as if they had come up with their first event in an open window, if they have one."""
        for column in self.table.spec:
            self.table[column.name][: len(self.table)][dormant] = column.fill
        earliest = np.full(len(self.table), _NO_EVENT, np.int64)
        for number in reversed(list(self.windows)):
            window = self.windows.get(number)
            earliest[window.slots[: window.count]] = number
        self.table["first_number"][: len(self.table)][dormant] = earliest[dormant]

    def retire(self, *, before: int) -> list[bytes]:
        """Forget the `dormant` SKUs, and give the slots of those without an event in an open window to others.

        Returns the keys of all that were forgotten. Slots are numbered anew.
        """
        dormant = self.dormant(before=before)
        if not dormant.any():
            return []
        gone = [self.table.keys[slot] for slot in np.flatnonzero(dormant).tolist()]
        self.forget(dormant)
        kept = np.flatnonzero(self.table["first_number"][: len(dormant)] < _NO_EVENT).astype(np.int32)
        if len(kept) == len(dormant):
            return gone
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
