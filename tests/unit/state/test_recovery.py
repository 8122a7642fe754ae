"""What a recovery says of itself; that it restores what was stored is tested with partitions and on a real Kafka."""

from __future__ import annotations

import pytest

from streams.state import recovery
from streams.state.recovery import RecoveryProgress


@pytest.mark.parametrize(
    ("read", "rows", "said"),
    [
        (250, 4_000, "partition 3: 250 of 1,000 changelog offsets read, 400 rows/s, 30 s left"),
        (1_000, 4_000, "partition 3: 1,000 of 1,000 changelog offsets read, 400 rows/s, 0 s left"),
        (0, 0, "partition 3: 0 of 1,000 changelog offsets read, 0 rows/s, 0 s left"),
    ],
)
def test_progress_says_how_long_the_rest_takes_at_the_present_rate(
    monkeypatch: pytest.MonkeyPatch, read: int, rows: int, said: str
) -> None:
    monkeypatch.setattr(recovery.time, "monotonic", lambda: 110.0)
    assert str(RecoveryProgress(3, read=read, total=1_000, rows=rows, started_s=100.0)) == said


def test_progress_of_the_first_moment_divides_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery.time, "monotonic", lambda: 100.0)
    assert "5,000 rows/s, 0 s left" in str(RecoveryProgress(3, read=1, total=9, rows=5, started_s=100.0))
