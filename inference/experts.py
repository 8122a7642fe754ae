"""All that forecasts the SKUs of a closing window: the net, two plain forecasts, window quantiles, seasonal naive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from features import closing
from features.cadence import RING
from inference import aggregation, baselines, ew_nb, scoring, window_quantiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from features.closing import Rows
    from features.season import Context
    from inference.session import StepOutput

    At = NDArray[np.intp] | slice

OF_PLAIN: Final = tuple(name for name, *_ in ew_nb.COLUMNS)
_OF_NAIVE: Final = tuple(name for name, *_ in baselines.COLUMNS)


@dataclass(frozen=True)
class Experts:
    """The forecasts of n SKUs, each made when it is asked for.

    context: the window that closed. after: columns of `closing.COLUMNS`, moved on by it. rows: those of the experts,
    likewise. net: what the net said. prior_nu: typical units per open window of the shop.
    """

    context: Context
    after: Rows
    rows: Rows
    net: StepOutput
    prior_nu: float

    @cached_property
    def net_ok(self) -> NDArray[np.bool_]:
        """Where what the net says can be served at all, bool (n,)."""
        return scoring.healthy(self.net.quantiles, self.net.mean, self.after["ring"])

    @cached_property
    def last(self) -> NDArray[np.float32]:
        """Give the season up to the window that closed, float32 (n, m)."""
        return season_before(self.after, self.context, self.context.number)

    def forecast(self, expert: int, at: At) -> ew_nb.Forecast:
        """Ask one of `aggregation.EXPERTS` for some SKUs."""
        if expert == aggregation.NET:
            return self._of_net(at)
        if expert == aggregation.WINDOWS:
            some = {name: self.after[name][at] for name in ("ring", "age", "nu")}
            return window_quantiles.forecast(some, self.context)
        if expert == aggregation.NAIVE:
            return self._of_naive(at)
        return self.plain(expert - aggregation.PLAIN, at)

    def all(self) -> Iterator[tuple[str, ew_nb.Forecast]]:
        """Ask all of them for all SKUs, by name."""
        for expert, name in enumerate(aggregation.EXPERTS):
            yield name, self.forecast(expert, slice(None))

    def plain(self, which: int, at: At) -> ew_nb.Forecast:
        """Ask a plain forecast for some SKUs. which: position in `Cadence.plain_memories`."""
        return ew_nb.forecast(
            {name: self.rows[name][at] for name in OF_PLAIN},
            which,
            self.context,
            opens=self.after["opens"][at],
            prior_nu=self.prior_nu,
            fractional=self.after["fractional"][at] != 0,
        )

    def _of_net(self, at: At) -> ew_nb.Forecast:
        """Give what the net says; nothing where it is out of its mind."""
        quantiles = np.concatenate([self.net.quantiles[at], self.net.sums[at]], axis=1)
        bad, mean = ~self.net_ok[at], self.net.mean[at].copy()
        quantiles[bad] = mean[bad] = 0
        return ew_nb.Forecast(quantiles, mean)

    def _of_naive(self, at: At) -> ew_nb.Forecast:
        some, whole = {name: self.rows[name][at] for name in _OF_NAIVE}, self.after["fractional"][at] == 0
        naive = baselines.forecast(some, self.last[at], self.context.season_next, integer_units=whole)
        return ew_nb.Forecast(np.concatenate([naive.quantiles, naive.sums], axis=1), naive.mean)


def season_before(rows: Rows, context: Context, number: int) -> NDArray[np.float32]:
    """Return the season up to window `number` as seasonal naive repeats it; one window where it outlasts the ring."""
    windows = context.season_windows
    last = closing.last_windows(rows, number, windows if windows <= RING else 1)
    return baselines.repeatable(last, rows["nu"])
