"""One partition over real RocksDB, which writes to an embedded broker of the module's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streams.settings import Settings
from tests.support.partitions import open_partition, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.partition.partition import Partition


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    return settings_for(broker, tmp_path)


@pytest.fixture
def partition(settings: Settings) -> Iterator[Partition]:
    opened = open_partition(settings)
    yield opened
    opened.close()
