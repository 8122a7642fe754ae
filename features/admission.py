"""Which rows of a decoded batch may be folded, and what becomes of the others: refused, late or duplicate.

Each row is judged in one order, and the first reason that holds counts: no plausible time, another partition's SKU,
money without a rate, late, duplicate, or an id that another event has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.currency import ShopCurrency, converted
from features.duplicates import SeenIds, contents
from features.grid import EARLIEST_MS, LATEST_MS, WindowGrid
from features.watermark import NEVER_MS
from schemas.columns import ClickColumns, InputColumns, Refusal
from schemas.printable import printable
from schemas.refusals import ID_REUSED

Columns = InputColumns
Owns = Callable[[Sequence[bytes]], NDArray[np.bool_]]
Mask = NDArray[np.bool_]
_MOST_FOREIGN = 10_000  # SKUs of other partitions that are remembered
_SHOWN = 60  # characters of an event id, in sentences


@dataclass(frozen=True, slots=True)
class Late:
    """A record whose window has closed. row: position in its batch."""

    row: int
    sku: str
    late_by_ms: int
    window_start_ms: int


@dataclass
class Absorbed:
    """What became of a batch. on_time_ms, late_ms: newest folded or duplicate, and newest late event time.

    Of a kind that did not occur: NEVER_MS. corrected: rows of late records that have changed their closed window.
    """

    folded: int = 0
    duplicate: int = 0
    late: list[Late] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    corrected: set[int] = field(default_factory=set)
    on_time_ms: int = NEVER_MS
    late_ms: int = NEVER_MS

    @property
    def reused(self) -> int:
        """Records refused because another event has their id."""
        return sum(refusal.code == ID_REUSED for refusal in self.refused)

    @property
    def misplaced(self) -> int:
        """Records refused because their SKU belongs to another partition."""
        return sum(refusal.code == "wrong_partition" for refusal in self.refused)

    @property
    def placed(self) -> int:
        """Records whose SKU belongs to this partition, whatever became of them."""
        return self.folded + self.duplicate + len(self.late)


@dataclass(frozen=True)
class Admitted:
    """The rows of a batch that are to be folded.

    columns: of the whole batch, money in the shop's currency. keep: bool (n,), which rows. late: bool (n,), those that
    would be but for their window, which has closed. numbers: int64 (n,), their windows. has_money: whether a row of
    ours had money, in whatever currency. outcome: what became of the other rows.
    """

    columns: Columns
    keep: Mask
    late: Mask
    numbers: NDArray[np.int64]
    has_money: bool
    outcome: Absorbed


class Admission:
    """The rules by which one partition admits records.

    owns: tells for UTF-8 SKUs whether they belong to this partition, bool (n,); None: all do. max_ahead_ms: how far
    beyond the clock an event time may lie. money: the shop's currency, shared by SKU states of one shop.
    """

    def __init__(self, grid: WindowGrid, *, owns: Owns | None, max_ahead_ms: int, money: ShopCurrency) -> None:
        """Start without knowledge of other partitions' SKUs."""
        self.grid = grid
        self.owns = owns
        self.max_ahead_ms = max_ahead_ms
        self.money = money
        self._foreign: set[str] = set()

    def judge(
        self,
        columns: Columns,
        seen: SeenIds,
        *,
        is_unknown: Mask,
        first_open: int | None,
        now_ms: int,
    ) -> Admitted:
        """Sort the rows of a batch; the ids of those that are admitted are remembered in `seen`.

        is_unknown: bool (n,), rows whose SKU has no slot yet. first_open: the oldest window not closed yet; None before
        the first event.
        """
        outcome = Absorbed()
        keep = self._plausible(columns, now_ms, outcome)
        self._refuse_foreign(columns, is_unknown & keep, keep, outcome)
        has_money, as_told = not isinstance(columns, ClickColumns) and bool(keep.any()), columns
        columns = self._in_shop_currency(columns, keep, outcome)
        times_ms = columns.event_time_ms
        numbers = self.grid.numbers(times_ms)
        late = self._late(columns, numbers, keep, first_open, outcome)
        keep &= ~late
        outcome.on_time_ms, outcome.late_ms = _newest(times_ms[keep]), _newest(times_ms[late])
        _drop_duplicates(as_told, seen, numbers, keep, outcome)
        return Admitted(columns, keep, late, numbers, has_money, outcome)

    def _plausible(self, columns: Columns, now_ms: int, outcome: Absorbed) -> Mask:
        """Refuse event times that no shop can have meant; returns which rows remain."""
        times_ms = columns.event_time_ms
        limit_ms = min(now_ms + self.max_ahead_ms, LATEST_MS - 1)
        keep: Mask = (times_ms >= EARLIEST_MS) & (times_ms <= limit_ms)
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

    def _refuse_foreign(self, columns: Columns, unknown: Mask, keep: Mask, outcome: Absorbed) -> None:
        """Refuse (in `keep`) those of the rows with an unknown SKU whose SKU is another partition's."""
        if self.owns is None or not unknown.any():
            return
        rows = np.flatnonzero(unknown).tolist()
        foreign = self._foreign_among({columns.sku[row] for row in rows}, self.owns)
        for row in rows:
            sku = columns.sku[row]
            if sku in foreign:
                keep[row] = False
                why = (
                    f"sku {sku!r} belongs to another partition: partition by murmur2 of the sku "
                    "(librdkafka: partitioner=murmur2_random)"
                )
                outcome.refused.append(Refusal(int(columns.row[row]), "wrong_partition", why))

    def _foreign_among(self, skus: set[str], owns: Owns) -> set[str]:
        """Give those SKUs that are not ours, and remember a bounded number of them."""
        foreign = skus & self._foreign
        asked = list(skus - foreign)
        if asked:
            ours = owns([sku.encode() for sku in asked])
            found = [sku for sku, own in zip(asked, ours.tolist(), strict=True) if not own]
            if len(self._foreign) > _MOST_FOREIGN:
                self._foreign.clear()
            self._foreign.update(found)
            foreign.update(found)
        return foreign

    def _in_shop_currency(self, columns: Columns, keep: Mask, outcome: Absorbed) -> Columns:
        """Convert money in other currencies; refuses what nobody gives a rate for (in `keep`)."""
        if isinstance(columns, ClickColumns):
            return columns
        worth = self.money.worth(columns.currency, keep)
        if worth is None:
            return columns
        unknown = np.isnan(worth) & keep
        for row in np.flatnonzero(unknown):
            why = self.money.refuse(columns.currency[row])
            outcome.refused.append(Refusal(int(columns.row[row]), "wrong_currency", why))
        keep &= ~unknown
        return converted(columns, worth)

    def _late(
        self, columns: Columns, numbers: NDArray[np.int64], keep: Mask, first_open: int | None, outcome: Absorbed
    ) -> Mask:
        """Find the rows whose window has closed; bool (n,)."""
        if first_open is None:
            return np.zeros(len(keep), np.bool_)
        late: Mask = keep & (numbers < first_open)
        if late.any():
            closed_ms = self.grid.start_ms(first_open)
            for row in np.flatnonzero(late):
                start_ms = self.grid.start_ms(int(numbers[row]))
                by_ms = closed_ms - int(columns.event_time_ms[row])
                outcome.late.append(Late(int(columns.row[row]), columns.sku[row], by_ms, start_ms))
        return late


def _drop_duplicates(
    columns: Columns, seen: SeenIds, numbers: NDArray[np.int64], keep: Mask, outcome: Absorbed
) -> None:
    """Drop rows whose event id an open window already holds (in `keep`); with other contents they are refused."""
    everything = bool(keep.all())
    rows = np.flatnonzero(keep)
    ids = columns.event_id if everything else [columns.event_id[row] for row in rows]
    said = contents(columns)
    admitted = seen.admit(ids, numbers if everything else numbers[rows], said if everything else said[rows])
    if admitted is None:
        return
    repeated = rows[~admitted]
    keep[repeated] = False
    is_reused = seen.reused([columns.event_id[row] for row in repeated], said[repeated])
    outcome.duplicate = len(repeated) - int(is_reused.sum())
    for row in repeated[is_reused]:
        why = (
            f"event_id {printable(columns.event_id[row], _SHOWN)!r} was there with another SKU, quantity, price or "
            "kind: it must be of one event, such as the order and its line"
        )
        outcome.refused.append(Refusal(int(columns.row[row]), ID_REUSED, why))


def _newest(times_ms: NDArray[np.int64]) -> int:
    """Give the newest of some event times, NEVER_MS where there is none."""
    return int(times_ms.max()) if len(times_ms) else NEVER_MS
