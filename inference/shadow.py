"""A second net beside the one that serves: it is shown every window, blended in the other's place, and held to it.

Its forecasts go to a topic of their own, and nobody is served by them. Its state and the comparison are stored with the
partition, so that restarts and rebalances do not make it begin again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy import stats

from features.cadence import LEVELS
from features.table import Column
from inference import scoring

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from inference.arrays import Floats
    from inference.session import Session

WINDOWS: Final = 14
"""Windows over which the two are compared."""

MARGIN: Final = 0.01
"""Not worse is: a loss that is higher by no more than this share, with confidence."""

CONFIDENCE: Final = 0.95


def columns(session: Session | None) -> tuple[Column, ...]:
    """Name the columns of a shadow: its state, and the quantiles that it would have served for the next window."""
    if session is None:
        return ()
    shape = (session.layers, session.hidden)
    return (
        Column("shadow_h", "<f4", shape),
        Column("shadow_c", "<f4", shape),
        Column("shadow_next", "<f4", (len(LEVELS),), float("nan")),
    )


class Verdict(NamedTuple):
    """By how much the shadow's loss differs, as a share of what is served: the mean and its confidence interval."""

    windows: int
    mean: float
    low: float
    high: float

    @property
    def is_not_worse(self) -> bool:
        """Whether enough windows say, with confidence, that it is not worse."""
        return self.windows >= WINDOWS and self.high <= MARGIN

    def __str__(self) -> str:
        """Say it."""
        return f"{self.mean:+.1%} ({self.low:+.1%} to {self.high:+.1%}) over {self.windows} windows"


class ShadowScore:
    """Losses of the last windows: of the shadow, of what was served, and the units sold, by window."""

    def __init__(self) -> None:
        """Start with nothing compared."""
        self.by_window: dict[int, NDArray[np.float64]] = {}

    def add(self, number: int, sold: Floats, shadow: Floats, served: Floats) -> None:
        """Hold both against what n SKUs sold in a window. sold: (n,). shadow, served: (n, Q), NaN: there is none."""
        known = np.isfinite(shadow).all(axis=1) & np.isfinite(served).all(axis=1)
        units = sold[known].astype(np.float32)
        losses = [scoring.wql_parts(units, each[known])[0].sum(dtype=np.float64) for each in (shadow, served)]
        row = self.by_window.setdefault(number, np.zeros(3))
        row += [*losses, units.sum(dtype=np.float64)]
        for old in sorted(self.by_window)[:-WINDOWS]:
            del self.by_window[old]

    def rows(self) -> list[tuple[int, float, float, float]]:
        """Write it down: (window, loss of the shadow, loss of what was served, units sold), ascending."""
        return [(number, *map(float, self.by_window[number])) for number in sorted(self.by_window)]  # type: ignore[misc]

    def restore(self, rows: Iterable[tuple[int, float, float, float]]) -> None:
        """Go on where `rows` stood."""
        self.by_window = {number: np.array(losses) for number, *losses in rows}


def verdict(scores: Iterable[ShadowScore]) -> Verdict | None:
    """Pool partitions: windows that all of them have compared count; None where there are fewer than two.

    The interval is Student's, of the mean of paired differences by window.
    """
    found = [score.by_window for score in scores]
    if not found:
        return None
    common = set.intersection(*(set(each) for each in found))
    rows = np.array([np.sum([each[number] for each in found], axis=0) for number in sorted(common)])
    rows = rows[rows[:, 1] > 0] if len(rows) else rows
    if len(rows) < 2:  # noqa: PLR2004 - of one there is no spread
        return None
    difference = (rows[:, 0] - rows[:, 1]) / rows[:, 1].mean()
    mean, error = float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(rows)))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(rows) - 1)) * error
    return Verdict(len(rows), mean, mean - reach, mean + reach)
