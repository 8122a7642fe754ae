"""How many windows are forecast: 14 of days, 24 of hours or as many as are asked for, whatever was stored before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from features.cadence import HOUR_MS
from schemas.errors import BadSetting
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.commands.serve import open_session
from streams.settings import load
from tests.support.partitions import T0, click, close_all, open_partition, order, price_change, published, settings_for
from tests.support.partitions import take as absorb

if TYPE_CHECKING:
    from pathlib import Path

    from streams.partition.partition import Partition
    from streams.settings import Settings


@pytest.fixture
def hours(broker: str, tmp_path: Path) -> Settings:
    return settings_for(broker, tmp_path, window_ms=HOUR_MS, bundle="shipped", provider="cpu")


def sell(partition: Partition, hour: int) -> None:
    """Sell one SKU more by day than by night, and close the hours before."""
    at_ms = T0 + hour * HOUR_MS + HOUR_MS // 2
    units = 6 + hour % 3 if 8 <= hour % 24 < 20 else 1
    absorb(partition, ORDERS, order(f"o{hour}", "a", at_ms, quantity=units), now_ms=at_ms)
    absorb(partition, CLICKS, click(f"c{hour}", "a", at_ms), now_ms=at_ms)
    absorb(partition, PRICES, price_change(f"p{hour}", "a", at_ms, 2.0), now_ms=at_ms)
    close_all(partition, now_ms=at_ms)


def test_hours_are_forecast_for_a_day_and_a_longer_horizon_goes_on_from_what_is_stored(hours: Settings) -> None:
    partition = open_partition(hours, session=open_session(hours))
    for hour in range(80):
        sell(partition, hour)
    partition.flush(now_ms=1)
    weights = partition.pipeline.aggregation.weights()
    partition.close()
    same = open_partition(hours, session=open_session(hours))
    np.testing.assert_array_equal(same.pipeline.aggregation.weights(), weights)
    same.close()
    week = msgspec.structs.replace(hours, horizon=168)
    longer = open_partition(week, session=open_session(week))
    assert "sum24-168" in longer.pipeline.aggregation.groups.names
    for hour in range(80, 90):
        sell(longer, hour)
    longer.flush(now_ms=2)
    longer.close()
    found = published(hours, "forecasts")
    first, last = found[0], found[-1]
    for forecast, steps, sums in ((first, 24, ["7", "14", "24"]), (last, 168, ["7", "14", "24", "168"])):
        assert len(forecast["quantiles"]) == len(forecast["mean"]) == len(forecast["step_starts_ms"]) == steps
        assert list(forecast["sums"]) == sums
        assert forecast["source"] in {"ewnb", "blend"}, "the net has learnt days"
        assert all(np.diff(each).min() >= 0 for each in (*forecast["quantiles"], *forecast["sums"].values()))
    starts = last["step_starts_ms"]
    by_hour = {(start // HOUR_MS) % 24: mean for start, mean in zip(starts, last["mean"], strict=True)}
    assert by_hour[12] > 2 * by_hour[3], "the day after tomorrow has a night, too"
    for name, span in (("24", 24), ("168", 168)):
        assert last["sums"][name][3] == pytest.approx(sum(last["mean"][:span]), rel=0.3)
    assert {forecast["id"] for forecast in found} == {
        f"a/{T0 // HOUR_MS * HOUR_MS + hour * HOUR_MS}/0" for hour in range(89)
    }, "no hour is missing"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"HORIZON": "24"}, "a horizon of 24 windows of 86400000 ms: expected 14"),
        ({"HORIZON": "7", "WINDOW_MS": "3600000"}, "expected 14, or below a day up to 168"),
        ({"HORIZON": "169", "WINDOW_MS": "3600000"}, "SKUTREND_HORIZON"),
    ],
)
def test_a_horizon_that_no_window_has_is_refused(env: dict[str, str], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        load(environment={f"SKUTREND_{name}": value for name, value in env.items()})
