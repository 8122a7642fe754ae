"""A worker with a consumer that does what the test says; everything else is real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.support.partitions import settings_for
from tests.support.scripted import IDLE_MS, Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.settings import Settings


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    return settings_for(broker, tmp_path, idle_timeout_ms=IDLE_MS, flush_interval_ms=1_000)


@pytest.fixture
def make(settings: Settings) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def bench(*, partitions: int = 1, **changes: Any) -> Bench:  # noqa: ANN401 - settings
        benches.append(Bench(msgspec.structs.replace(settings, **changes), partitions=partitions))
        return benches[-1]

    yield bench
    for each in benches:
        for number in list(each.worker.partitions):
            each.worker.opened.close(number)
