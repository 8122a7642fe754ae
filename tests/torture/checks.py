"""What must be true once all is quiet again, read from Kafka and from the stores."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pandas as pd
from confluent_kafka import Consumer, TopicPartition

from schemas.inputs import INPUT_NAMES
from streams.state.meta import Counts
from streams.state.store import Store
from tests.support.group_by import assert_equal, measures, published, whole_grid
from tests.support.service import read_topic, skutrend
from tests.support.shop import TIMEZONE, Tables, assert_buried

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.hostile import Hostile
    from tests.support.kafka_broker import KafkaBroker

SETTLES_WITHIN_S: Final = 150.0


class Window(msgspec.Struct, gc=False):
    """What is compared of a record of `windows`."""

    id: str
    sku: str
    window_start_ms: int
    order_lines: float
    units: float
    revenue: float
    returned_units: float
    free_units: float
    views: float
    carts: float

    def says(self, other: Window) -> bool:
        """Whether it says the same as another, whose sums may have been taken in another order."""
        return all(
            a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6)
            for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        )


@dataclass
class Sent:
    """All that was sent so far."""

    parts: list[Tables] = field(default_factory=list)
    hostile: list[Hostile] = field(default_factory=list)
    records: int = 0

    @property
    def events(self) -> int:
        """How many different events."""
        return sum(len(table) for part in self.parts for table in part.values())

    def measures(self) -> pd.DataFrame:
        """Return the group-by over all of them."""
        tables = [pd.concat([part[kind] for part in self.parts], ignore_index=True) for kind in INPUT_NAMES]
        return measures(*tables, timezone=TIMEZONE)


@dataclass
class Checker:
    """Reads `windows` on from check to check. may_repeat: whether a record may come again, under its id, as it was."""

    kafka: KafkaBroker
    prefix: str
    sent: Sent
    may_repeat: bool = False
    repeated: int = 0
    since: dict[int, int] = field(default_factory=dict)
    seen: dict[str, Window] = field(default_factory=dict)

    def windows(self, *, from_ms: int, until_ms: int, tended: Callable[[], None]) -> int:
        """Wait for the windows from here to there, and compare each with a group-by; returns how many there are.

        tended: called while waiting.
        """
        grid = whole_grid(self.sent.measures(), until_ms=until_ms, timezone=TIMEZONE)
        expected = grid[grid.index.get_level_values("window_start_ms") >= from_ms]
        found: list[Window] = []
        deadline = time.monotonic() + SETTLES_WITHIN_S
        while True:
            found += self._news()
            if len(found) >= len(expected) or time.monotonic() > deadline:
                break
            tended()
            time.sleep(0.5)
        time.sleep(1)  # what should not be there has a chance to come
        found += self._news()
        assert found, f"no window was published within {SETTLES_WITHIN_S:g} s"
        assert_equal(published(map(msgspec.structs.asdict, found)), expected)
        return len(found)

    def _news(self) -> list[Window]:
        """Read the windows that were not there before."""
        decode = msgspec.json.Decoder(Window, strict=False).decode
        news = []
        for message in read_topic(self.kafka.bootstrap, f"{self.prefix}windows", self.since):
            window = decode(message.value() or b"")
            known = self.seen.setdefault(window.id, window)
            if known is window:
                news.append(window)
                continue
            assert self.may_repeat, f"{window.id} was published again"
            assert window.says(known), f"{window.id} was published again, and differently: {known}, then {window}"
            self.repeated += 1
        return news

    def letters(self) -> None:
        """Every hostile record is a dead letter, once where nothing may repeat; nothing was late."""
        assert_buried(self.kafka, self.prefix, self.sent.hostile, may_repeat=self.may_repeat)

    def conservation(self, settings: dict[str, Any], state_dir: Path, partitions: int) -> str:
        """State and changelog agree, and every record that was sent is counted once, as what it is."""
        there = self._records_in_inputs(partitions)
        assert there == self.sent.records, f"{self.sent.records} records were sent, the inputs hold {there}"
        said = skutrend("state", "verify", "--changelog", settings={**settings, "state_dir": state_dir}).stdout
        whole = re.findall(r"^partition-\d+: whole; .*; the changelog has the same [\d,]+ records$", said, re.MULTILINE)
        assert len(whole) == partitions, said
        total = Counts()
        for number in range(partitions):
            store = Store(state_dir / f"{settings['topic_prefix']}{settings['group']}" / f"partition-{number}")
            try:
                meta = store.meta()
            finally:
                store.close()
            assert meta is not None
            for counts in meta.counts.values():
                for name in ("records", "folded", "duplicate", "late", "rejected"):
                    setattr(total, name, getattr(total, name) + getattr(counts, name))
        events, hostile = self.sent.events, len(self.sent.hostile)
        duplicate = self.sent.records - events - hostile
        expected = Counts(records=there, folded=events, duplicate=duplicate, rejected=hostile)
        assert total == expected, f"the partitions count {total}, sent was {expected}"
        return f"{there:,} records = {events:,} folded + {duplicate:,} duplicate + 0 late + {hostile:,} rejected"

    def _records_in_inputs(self, partitions: int) -> int:
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "counting"})
        try:
            ends = [
                consumer.get_watermark_offsets(TopicPartition(self.prefix + name, number), timeout=30)
                for name in INPUT_NAMES
                for number in range(partitions)
            ]
        finally:
            consumer.close()
        return sum(high - low for low, high in ends)
