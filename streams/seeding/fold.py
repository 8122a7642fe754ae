"""History goes through the fold of the worker, window by window, and only what holds at its end is published."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from features.offline import rows_by_window
from inference.alerting import change_id
from schemas.columns import take

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from features.admission import Columns
    from inference.outputs import CorrectedOutputs, WindowOutputs
    from schemas.alerts import Alert
    from streams.partition.partition import Partition
    from streams.seeding.cut import Cut


@dataclass
class Tally:
    """What became of the events of a history: how many, by outcome; `refused` by code, with the first sentence each.

    left: not taken, since they happened after the cut.
    """

    folded: int = 0
    duplicate: int = 0
    left: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    sentences: dict[str, str] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Count what became of those of another partition, too."""
        self.folded += other.folded
        self.duplicate += other.duplicate
        self.left += other.left
        self.refused += other.refused
        self.sentences = other.sentences | self.sentences


class UnpublishedOutputs:
    """Takes the outputs of windows that closed long ago: nobody is told of them, but for alerts that are still open."""

    def __init__(self) -> None:
        """No alert is open."""
        self._open: dict[str, Alert] = {}

    def publish(self, closed: WindowOutputs, keys: Sequence[bytes]) -> None:
        """Take those of some SKUs of a window."""
        del keys
        self.publish_alerts(closed.alerts)

    def publish_alerts(self, alerts: Sequence[Alert]) -> None:
        """Remember what opens, as its latest message tells it, and forget what ends."""
        for alert in alerts:
            if alert.status == "resolved":
                self._open.pop(alert.alert_key, None)
            else:
                self._open[alert.alert_key] = alert

    def publish_corrected(self, corrected: CorrectedOutputs) -> None:
        """Take what late events have changed."""

    def still_open(self) -> list[Alert]:
        """Give what is open, as opened, so that its end is not the first that is heard of it; it calls nobody."""
        return [
            msgspec.structs.replace(
                alert,
                id=change_id(alert.alert_key, alert.window_start_ms, "open"),
                status="open",
                severity="info",
            )
            for alert in self._open.values()
        ]


def fold(
    partition: Partition,
    events: Mapping[int, Columns],
    cut: Cut,
    *,
    now_ms: int,
    closed: Callable[[int], object] = lambda _: None,
) -> Tally:
    """Put history behind a partition that has absorbed nothing; flushes nothing.

    events: {input: columns}, of this partition's SKUs, in any order. Windows before `cut.first_open` close; of the last
    of them, and of no other, the outputs are published, after the alerts that were open by then (as `info`). closed: is
    told how many windows more have closed.
    """
    grid, tally = partition.settings.grid, Tally()
    by_input = {source: rows_by_window(grid, columns, cut.until_ms[source]) for source, columns in events.items()}
    taken = sum(len(rows) for groups in by_input.values() for rows in groups.values())
    tally.left = sum(len(columns.event_time_ms) for columns in events.values()) - taken
    filled = sorted({number for groups in by_input.values() for number in groups})
    closer = partition.closer
    publisher, unpublished = closer.publisher, UnpublishedOutputs()

    def close_before(number: int) -> None:
        partition.watermark.value_ms = grid.start_ms(number)
        told = partition.meta.windows_closed
        while closer.close_due(now_ms=now_ms):
            closed(partition.meta.windows_closed - told)
            told = partition.meta.windows_closed

    closer.publisher = unpublished
    before = [number for number in filled if number < cut.first_open]
    for number, following in pairwise([*before, cut.first_open]):
        _absorb(partition, events, by_input, number, tally, now_ms=now_ms)
        close_before(min(following, cut.first_open - 1))
    closer.publisher = publisher
    publisher.publish_alerts(unpublished.still_open())
    close_before(cut.first_open)
    for number in filled[len(before) :]:
        _absorb(partition, events, by_input, number, tally, now_ms=now_ms)
    partition.end_history(cut.first_open)
    return tally


def _absorb(
    partition: Partition,
    events: Mapping[int, Columns],
    by_input: Mapping[int, Mapping[int, np.ndarray[tuple[int], np.dtype[np.intp]]]],
    number: int,
    tally: Tally,
    *,
    now_ms: int,
) -> None:
    for source, groups in by_input.items():
        if number in groups:
            outcome = partition.absorb_history(source, take(events[source], groups[number]), now_ms=now_ms)
            tally.folded += outcome.folded
            tally.duplicate += outcome.duplicate
            for refusal in outcome.refused:
                tally.refused[refusal.code] += 1
                tally.sentences.setdefault(refusal.code, refusal.error)
