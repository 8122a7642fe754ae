"""Events that come after their window closed, but within reach, still change it: its sums, and the SKU's statistics.

What each SKU had in a closed window stays stored as long as the window is within reach, as do the ids of its events. A
late event is folded into that row; whoever publishes takes the row from here, with the number of late events that it
holds as its revision, so that a revision says the same however the records came in batches.

The running means are linear in the windows: what an event adds to a window is added to each of them as far as it would
still be felt. What the shop as a whole sold stays as it was, and so does what nobody can tell any more: how the SKU's
forecasts would have been judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from features import closing, folds
from features.cadence import RING, SCALE
from features.duplicates import contents
from features.id_table import HASH_BYTES, as_hashes, entries
from features.open_windows import BLANK, FOLDED, NO_PRICE_CHANGE_MS, OpenWindows
from features.outliers import cap_clicks, cap_squarable, cap_units
from features.table import cut
from schemas.columns import OrderColumns, PriceColumns, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from features.admission import Admitted, Columns
    from features.chunk import ClosingChunk
    from features.duplicates import SeenIds
    from features.grid import WindowGrid
    from features.open_windows import OpenWindow
    from features.sku_state import SkuState
    from features.table import SkuTable, Slots

CLOSED: Final = np.dtype(
    [
        *FOLDED.descr,
        ("price_before", "<f8"),  # known before the window; NaN: none
        ("price_before_ms", "<i8"),  # since when, as column "price_ms"
        ("revision", "<i8"),  # late events folded into it
        ("forecast_revision", "<i8"),  # late events of the SKU since the window closed, while it was the newest
    ]
)
"""What a SKU had in a closed window; also its binary layout in the store (little-endian)."""

NOWHERE: Final = -(1 << 62)
_SUMS: Final = list(FOLDED.names or ())
Rows = dict[bytes, bytes]


class Stored(Protocol):
    """Where closed windows are kept once they are flushed."""

    def closed_rows(self, number: int, skus: Sequence[bytes]) -> list[bytes | None]:
        """Give the rows of SKUs in a closed window, as `CLOSED`."""

    def closed_ids(self, number: int, source: int) -> bytes:
        """Give the entries of the ids of an input in a closed window, 16 bytes each."""


class Nothing:
    """Where nothing is stored."""

    def closed_rows(self, number: int, skus: Sequence[bytes]) -> list[bytes | None]:
        """Give none."""
        return [None] * len(skus)

    def closed_ids(self, number: int, source: int) -> bytes:
        """Give none."""
        return b""


@dataclass(frozen=True)
class Corrected:
    """Rows of one closed window that are to be published again. keys: of n SKUs, ascending; rows: `CLOSED` (n,)."""

    number: int
    keys: list[bytes]
    rows: NDArray[Any]

    @property
    def skus(self) -> list[str]:
        """Names of the SKUs."""
        return [key.decode() for key in self.keys]

    def by(self, revision: str) -> Iterator[tuple[int, Corrected]]:
        """Split them by a revision, ascending: field "revision" or "forecast_revision"."""
        revisions = self.rows[revision]
        for each in np.unique(revisions).tolist():
            at = np.flatnonzero(revisions == each)
            yield each, Corrected(self.number, [self.keys[i] for i in at.tolist()], self.rows[at])

    def facts(self) -> closing.WindowFacts:
        """Read what happened to them."""
        before = {
            "price": self.rows["price_before"].copy(),
            "price_ms": self.rows["price_before_ms"].copy(),
            "fractional": np.zeros(len(self.rows), np.uint8),
        }
        return closing.facts_of(self.rows[_SUMS], before)


class Corrections:
    """The closed windows of a partition that late events can still change.

    within_ms: how long after its end a window is within reach, in event time. stored: what was flushed. forecasts:
    whether SKUs are forecast, so that a forecast has revisions, too.
    """

    def __init__(self, grid: WindowGrid, *, within_ms: int, stored: Stored | None = None) -> None:
        """Start where nothing has been corrected."""
        self.grid, self.within_ms, self.stored = grid, within_ms, stored or Nothing()
        self.floor = NOWHERE  # window before which nothing is ever corrected
        self.forecasts = False
        self.moved_units: Callable[..., None] = lambda *_: None  # what else is learnt from units, see `_move`
        self._rows: dict[int, Rows] = {}  # not yet taken to be stored
        self._unpublished: dict[int, dict[bytes, None]] = {}
        self._to_forecast: dict[bytes, None] = {}
        self._moved: dict[bytes, None] = {}  # SKUs whose statistics are to be stored
        # first halves of ids by window and input, ascending
        self._known: dict[tuple[int, int], NDArray[np.uint64]] = {}
        self._added: dict[tuple[int, int], set[int]] = {}  # likewise, of late events

    def first_in_reach(self, first_open: int) -> int:
        """Give the oldest window that an event can still change; `first_open` where none can be."""
        if self.within_ms <= 0:
            return first_open
        first = self.grid.number(self.grid.start_ms(first_open) - self.within_ms)
        return min(max(first, self.floor), first_open)

    # ------------------------------------------------------------------ close
    def closed(self, window: OpenWindow, chunk: ClosingChunk, table: SkuTable) -> None:
        """Keep what some SKUs had in a window that closes. table: as it was before."""
        at = np.flatnonzero(chunk.eventful)
        slots = chunk.slots[at]
        rows = np.zeros(len(at), CLOSED)
        folded = window.folded[window.row_of(slots)] if len(at) else np.empty(0, FOLDED)
        for name in _SUMS:
            rows[name] = folded[name]
        rows["price_before"], rows["price_before_ms"] = chunk.facts.price_before[at], table["price_ms"][slots]
        into = self._rows.setdefault(chunk.context.number, {})
        into.update(zip([table.keys[slot] for slot in slots.tolist()], cut(rows), strict=True))

    def forget_before(self, first_open: int) -> None:
        """Let go of the windows that are out of reach once all before `first_open` have closed."""
        first = self.first_in_reach(first_open)
        for kept in (self._rows, self._unpublished):
            for number in [number for number in kept if number < first]:
                del kept[number]
        for ids in (self._known, self._added):
            for at in [at for at in ids if at[0] < first]:
                del ids[at]

    # ------------------------------------------------------------------ fold
    def fold(self, source: int, admitted: Admitted, state: SkuState) -> NDArray[np.intp]:
        """Fold the late rows of a batch whose window is within reach and whose id is new; returns which these are."""
        columns, numbers, late = admitted.columns, admitted.numbers, np.flatnonzero(admitted.late)
        first_open = state.windows.first_open
        if first_open is None:
            return late[:0]
        late = late[numbers[late] >= self.first_in_reach(first_open)]
        if not len(late):
            return late
        late = self._admit(source, admitted, late, state.seen[source], first_open)
        events = take(columns, late)
        keys = [sku.encode() for sku in events.sku]
        for some in _rounds(keys):
            self._fold(take(events, some), [keys[i] for i in some.tolist()], numbers[late[some]], state)
        return late

    def _admit(
        self, source: int, admitted: Admitted, late: NDArray[np.intp], seen: SeenIds, first_open: int
    ) -> NDArray[np.intp]:
        """Leave out events whose id an open window, one within reach, or an event before it has; note the others'."""
        events, numbers = take(admitted.columns, late), admitted.numbers
        hashes = entries(events.event_id, contents(events))
        halves = hashes[:, 0]
        is_known = seen.holds(hashes) & ~_comes_later(admitted, events.event_id, late)
        for number in range(self.first_in_reach(first_open), first_open):
            is_known |= self._has(number, source, halves, seen)
        _, first = np.unique(halves, return_index=True)
        is_first = np.zeros(len(late), np.bool_)
        is_first[first] = True
        new = np.flatnonzero(~is_known & is_first)
        seen.add_late(hashes[new], numbers[late[new]])
        for number, half in zip(numbers[late[new]].tolist(), halves[new].tolist(), strict=True):
            self._added.setdefault((number, source), set()).add(half)
        return late[new]

    def _has(self, number: int, source: int, halves: NDArray[np.uint64], seen: SeenIds) -> NDArray[np.bool_]:
        """Tell which ids a closed window has; bool (n,)."""
        known = self._known.get((number, source))
        if known is None:
            raw = self.stored.closed_ids(number, source) + seen.fresh(number)
            known = np.sort(as_hashes(raw)[:, 0]) if len(raw) >= HASH_BYTES else np.empty(0, np.uint64)
            self._known[number, source] = known
        at = np.searchsorted(known, halves)
        inside = at < len(known)
        found: NDArray[np.bool_] = np.zeros(len(halves), np.bool_)
        found[inside] = known[at[inside]] == halves[inside]
        added = self._added.get((number, source))
        if added:
            found |= np.fromiter((half in added for half in halves.tolist()), np.bool_, len(halves))
        return found

    def _fold(self, events: Columns, keys: list[bytes], numbers: NDArray[np.int64], state: SkuState) -> None:
        """Fold n events of n different SKUs."""
        n, table = len(keys), state.table
        slots = table.slots(events.sku)
        rows = self._rows_of(numbers, keys, slots, state)
        before = rows.copy()
        windows = OpenWindows()
        window, own = windows.get(0), np.arange(n, dtype=np.int32)
        into = window.rows(own)  # before `folded` is looked at: a new row may need a longer one
        window.folded[into] = rows[_SUMS].astype(FOLDED)
        zero = np.zeros(n, np.int64)
        if isinstance(events, OrderColumns):
            folds.fold_orders(windows, zero, own, events.quantity, events.unit_price)
        elif isinstance(events, PriceColumns):
            folds.fold_prices(windows, zero, own, events.price, events.event_time_ms)
        else:
            folds.fold_clicks(windows, zero, own, events.kind)
        folded = window.folded[window.row_of(own)]
        for name in _SUMS:
            rows[name] = folded[name]
        rows["revision"] += 1
        self._put(numbers, keys, rows)
        for number, key in zip(numbers.tolist(), keys, strict=True):
            self._unpublished.setdefault(number, {})[key] = None
        # of others nothing is stored yet
        first_open = state.windows.first_open or 0
        known = np.flatnonzero(slots >= 0)
        known = known[table["first_number"][slots[known]] < first_open]
        _note_prices(state, slots[known], events, known)
        lived = known[table["first_number"][slots[known]] <= numbers[known]]
        if len(lived):
            _move(state, slots[lived], numbers[lived], before[lived], rows[lived])
            self._note_forecasts([keys[i] for i in lived.tolist()], slots[lived], state)
        self._moved.update(dict.fromkeys(keys[i] for i in known.tolist()))

    def _note_forecasts(self, keys: list[bytes], slots: Slots, state: SkuState) -> None:
        """Let the newest forecast of SKUs be made again."""
        first_open = state.windows.first_open
        if not self.forecasts or first_open is None:
            return
        newest = np.full(len(keys), first_open - 1, np.int64)
        rows = self._rows_of(newest, keys, slots, state)
        rows["forecast_revision"] += 1
        self._put(newest, keys, rows)
        self._to_forecast.update(dict.fromkeys(keys))

    def _put(self, numbers: NDArray[np.int64], keys: list[bytes], rows: NDArray[Any]) -> None:
        for number, key, row in zip(numbers.tolist(), keys, cut(rows), strict=True):
            self._rows.setdefault(number, {})[key] = row

    def rows(self, number: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give the rows of SKUs in a closed window, None where they had no event in it."""
        fresh = self._rows.get(number, {})
        found = [fresh.get(key) for key in keys]
        missing = [i for i, row in enumerate(found) if row is None]
        if missing:
            for i, row in zip(missing, self.stored.closed_rows(number, [keys[i] for i in missing]), strict=True):
                found[i] = row
        return found

    def _rows_of(
        self, numbers: NDArray[np.int64], keys: Sequence[bytes], slots: Slots, state: SkuState
    ) -> NDArray[Any]:
        """Give the rows of n SKUs, each in its window; blank ones where they had no event in it."""
        rows = np.zeros(len(keys), CLOSED)
        for number in np.unique(numbers).tolist():
            some = np.flatnonzero(numbers == number)
            for i, row in zip(some.tolist(), self.rows(number, [keys[i] for i in some.tolist()]), strict=True):
                rows[i] = np.frombuffer(row, CLOSED)[0] if row else self._blank(number, keys[i], int(slots[i]), state)
        return rows

    def _blank(self, number: int, key: bytes, slot: int, state: SkuState) -> NDArray[Any]:
        """Make the row of a SKU without an event in a window: its price is that before its next event, or today's."""
        row = np.zeros(1, CLOSED)
        for name in _SUMS:
            row[name] = BLANK[name]
        row["price_before"], row["price_before_ms"] = np.nan, NO_PRICE_CHANGE_MS
        if slot >= 0:
            row["price_before"], row["price_before_ms"] = state.table["price"][slot], state.table["price_ms"][slot]
        # of what has no event later there is nothing to find
        newest = int(state.table["last_number"][slot]) if slot >= 0 else number
        for later in range(number + 1, min(newest + 1, state.windows.first_open or 0)):
            (raw,) = self.rows(later, [key])
            if raw:
                following = np.frombuffer(raw, CLOSED)
                row["price_before"], row["price_before_ms"] = following["price_before"], following["price_before_ms"]
                break
        return row[0]  # type: ignore[no-any-return]  # a record

    # ------------------------------------------------------------------ hand over
    def put_back(self, number: int, keys: Sequence[bytes], rows: Sequence[bytes]) -> None:
        """Let `take_rows` hand over stored rows once more."""
        self._rows.setdefault(number, {}).update(zip(keys, rows, strict=True))

    def take_rows(self) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        """Take the rows that are to be stored: (window, keys of SKUs, ascending, their rows)."""
        taken, self._rows = self._rows, {}
        for number in sorted(taken):
            keys = sorted(taken[number])
            yield number, keys, [taken[number][key] for key in keys]

    def take_moved(self) -> list[bytes]:
        """Take the keys of SKUs whose statistics have changed, ascending."""
        moved, self._moved = sorted(self._moved), {}
        return moved

    def take_unpublished(self) -> Iterator[Corrected]:
        """Take the rows that are to be published again, oldest window first."""
        taken, self._unpublished = self._unpublished, {}
        for number in sorted(taken):
            yield self._corrected(number, sorted(taken[number]))

    def take_to_forecast(self, newest: int) -> Corrected | None:
        """Take the SKUs that are to be forecast again, with their rows in the newest closed window, if there are."""
        taken, self._to_forecast = sorted(self._to_forecast), {}
        return self._corrected(newest, taken) if taken else None

    def _corrected(self, number: int, keys: list[bytes]) -> Corrected:
        rows = [row or b"" for row in self.rows(number, keys)]
        return Corrected(number, keys, np.frombuffer(b"".join(rows), CLOSED))


def _comes_later(admitted: Admitted, ids: list[str], late: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell which ids the batch itself has brought into an open window, but behind the late row; bool (n,)."""
    wanted, all_ids = set(ids), admitted.columns.event_id
    at = {all_ids[row]: row for row in np.flatnonzero(admitted.keep).tolist() if all_ids[row] in wanted}
    return np.array([at.get(each, -1) > row for each, row in zip(ids, late.tolist(), strict=True)], np.bool_)


def _rounds(keys: Sequence[bytes]) -> Iterator[NDArray[np.intp]]:
    """Split rows so that no SKU comes twice in a part: its first events, its second ones, and so on."""
    counts: dict[bytes, int] = {}
    nth = np.empty(len(keys), np.intp)
    for row, key in enumerate(keys):
        nth[row] = counts[key] = counts.get(key, -1) + 1
    for each in range(int(nth.max(initial=-1)) + 1):
        yield np.flatnonzero(nth == each)


def _note_prices(state: SkuState, slots: Slots, events: Columns, known: NDArray[np.intp]) -> None:
    """Let a price change that is newer than all that were taken set the price, and what was paid one where none is."""
    table = state.table
    if isinstance(events, PriceColumns):
        newer = events.event_time_ms[known] >= table["price_ms"][slots]
        table["price"][slots[newer]] = events.price[known][newer]
        table["price_ms"][slots[newer]] = events.event_time_ms[known][newer]
    elif isinstance(events, OrderColumns):
        paid = np.isnan(table["price"][slots]) & (events.quantity[known] > 0) & (events.unit_price[known] > 0)
        table["price"][slots[paid]] = events.unit_price[known][paid]


def _move(state: SkuState, slots: Slots, numbers: NDArray[np.int64], before: NDArray[Any], after: NDArray[Any]) -> None:
    """Put what n different SKUs had more in a closed window into their statistics."""
    table, cadence = state.table, state.grid.cadence
    first_open = state.windows.first_open or 0
    table["last_number"][slots] = np.maximum(table["last_number"][slots], numbers)
    table["fractional"][slots] |= (after["fractional"] != 0).astype(np.uint8)
    views = cap_clicks(after["views"]) - cap_clicks(before["views"])
    gain = 1 / cadence.views_memory
    table["ew_views"][slots] += (gain * np.power(1 - gain, first_open - 1 - numbers) * views).astype(np.float32)

    ring = table["ring"][slots]
    at = np.arange(len(slots))
    # of older windows the ring knows nothing, and of those in which the shop was closed no statistic does
    counts = np.flatnonzero((first_open - numbers <= RING) & np.isfinite(ring[at, numbers % RING]))
    if not len(counts):
        return
    slots, numbers, ring = slots[counts], numbers[counts], ring[counts]
    before, after = before[counts], after[counts]
    units = np.round(after["units"], 6).astype(np.float32)
    table["ring"][slots, numbers % RING] = units
    back = (first_open - 1 - np.arange(RING))[None, :]  # windows of the ring, newest first
    later = (np.isfinite(ring[:, (first_open - 1 - np.arange(RING)) % RING]) & (back > numbers[:, None])).sum(axis=1)
    nu = table["nu"][slots]
    new, old = (
        cap_squarable(cap_units(np.round(part["units"], 6).astype(np.float32), nu)).astype(np.float64)
        for part in (after, before)
    )
    gains = closing.gains(cadence).astype(np.float64)
    felt = gains * np.power(1 - gains, later[:, None])  # (n, memories)
    table["ew"][slots] += (felt * (new - old)[:, None]).astype(np.float32)
    at_scale = felt[:, SCALE]
    table["ew_square"][slots] += (at_scale * (new * new - old * old)).astype(np.float32)
    table["ew_sold"][slots] += (at_scale * ((new > 0).astype(np.float64) - (old > 0))).astype(np.float32)
    table["unsold"][slots] = np.where(new > 0, np.minimum(table["unsold"][slots], later), table["unsold"][slots])
    rows = {name: table[name][slots] for name in ("ew", "opens")}
    table["nu"][slots] = closing.scale(rows, cadence, prior_nu=state.prior_nu)
    if state.corrections is not None:
        state.corrections.moved_units(state, slots, numbers, later, (old, new))
