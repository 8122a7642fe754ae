"""What late events change: closed windows are told again, with a higher revision, and the newest forecasts with them.

A forecast that is made again reads the corrected statistics. The net is asked once more for the newest window with the
state that it has now, not with the one it had before that window, which nobody keeps: measured over whole shops, that
moves its loss by +0.1 % (gift shop) and -0.4 % (vegetables). Its state stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from features import closing, season
from inference import ew_nb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from features.corrections import Corrected
    from features.season import Context
    from features.sku_state import SkuState
    from features.table import Slots


@dataclass(frozen=True)
class Reopened:
    """Some SKUs of the newest closed window, as they are now; looks like a `ClosingChunk`. slots: int32 (n,)."""

    slots: Slots
    skus: list[str]
    context: Context
    facts: closing.WindowFacts
    after: closing.Rows

    @classmethod
    def of(cls, sku_state: SkuState, found: Corrected) -> Reopened:
        """Look at the SKUs of `found`, which must be of the newest closed window."""
        table = sku_state.table
        slots = table.slots(found.skus)
        is_open = closing.was_open(table["ring"][: len(table)], found.number)
        context = season.context(sku_state.grid, sku_state.season, found.number, is_open=is_open)
        after = {name: table[name][slots] for name in closing.NAMES}
        return cls(slots, found.skus, context, found.facts(), after)


def learn_late(
    sku_state: SkuState, slots: Slots, numbers: NDArray[np.int64], later: NDArray[Any], change: tuple[Any, Any]
) -> None:
    """Put what SKUs had more in closed windows into what is learnt from units beside `closing.COLUMNS`.

    later: open windows since, (n,). change: units before and after, float64 (n,), outliers cut.
    """
    table, (old, new) = sku_state.table, change
    starts_ms = np.array([sku_state.grid.start_ms(number) for number in numbers.tolist()], np.int64)
    sold = new > 0
    table["last_sale_ms"][slots[sold]] = np.maximum(table["last_sale_ms"][slots[sold]], starts_ms[sold])
    demand = {phase: sku_state.season.level_demand(phase) for phase in range(sku_state.season.length)}
    here = np.array([demand[sku_state.grid.phase(number)] for number in numbers.tolist()])
    cadence = sku_state.grid.cadence
    for which, memory in enumerate(cadence.plain_memories):
        gain = 1 / memory
        level = ew_nb.levels({"plain_level": table["plain_level"][slots]}, table["opens"][slots], cadence, which)
        expected = level.astype(np.float64) * here
        squares = ((new - expected) ** 2 - (old - expected) ** 2) / here
        felt = np.power(1 - 1 / cadence.plain_spread_memory, later) / cadence.plain_spread_memory
        spread = table["plain_spread"][slots, which] + (felt * squares).astype(np.float32)
        table["plain_spread"][slots, which] = np.maximum(spread, 0)
        table["plain_level"][slots, which] += (gain * np.power(1 - gain, later) * (new - old) / here).astype(np.float32)
