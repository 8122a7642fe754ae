"""What everything in a worker shares and nothing changes: settings, model, metrics, clocks, partition count, limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from features.currency import ShopCurrency
from inference.session import Session
from schemas.errors import BrokerTrouble
from schemas.inputs import INPUT_NAMES
from streams.config.personal import Masker
from streams.kafka.topics import DEFAULT_LIMIT_BYTES
from streams.observe.metrics import Metrics
from streams.settings import Settings
from streams.worker.clocks import monotonic_ms, now_ms


@dataclass
class Serving:
    """The model that serves, and the one beside it; they may change while the worker runs (models.py)."""

    session: Session | None
    shadow: Session | None = None


@dataclass(frozen=True)
class Environment:
    """Fixed before the first partition is opened, but for the model that serves.

    session: of the model at the start. partition_count: of each input. tp: makes the transport's topic-partition of a
    topic and a number. letter_limit_bytes: see `topics.letter_limit_bytes`. clock: epoch ms, for what is compared with
    the time of events. monotonic: ms of a clock that only goes forward, for durations. topics: full names of the
    inputs, in their order. money, masker: one for all partitions, so that they agree on the shop's currency.
    """

    settings: Settings
    session: Session | None
    partition_count: int
    tp: Callable[[str, int], Any]
    letter_limit_bytes: int = DEFAULT_LIMIT_BYTES
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], int] = now_ms
    monotonic: Callable[[], int] = monotonic_ms
    serving: Serving = field(init=False)
    topics: tuple[str, ...] = field(init=False)
    money: ShopCurrency = field(init=False)
    masker: Masker = field(init=False)

    def __post_init__(self) -> None:
        """Make what the settings imply."""
        object.__setattr__(self, "serving", Serving(self.session))
        object.__setattr__(self, "topics", tuple(self.settings.topic(name) for name in INPUT_NAMES))
        object.__setattr__(self, "money", self.settings.money)
        object.__setattr__(self, "masker", self.settings.masker)


def input_partitions(counts: Mapping[str, int]) -> int:
    """Give the one partition count of the inputs; different ones are a `BrokerTrouble`."""
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{topic}: {count}" for topic, count in sorted(counts.items()))
        msg = f"the input topics must have the same number of partitions, found {found}; see `skutrend topics check`"
        raise BrokerTrouble(msg)
    return next(iter(counts.values()))
