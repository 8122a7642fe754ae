"""The main job on Apache Kafka: a year of real sales through `skutrend worker`, held against a pandas group-by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd
import pytest

from schemas.forecasts import Forecast
from schemas.windows import WindowClosed
from streams.events.files import sample_paths
from tests.support.group_by import assert_equal, local_day_ms, measures, published, whole_grid
from tests.support.service import Service, new_group, read_topic, skutrend, values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

TIMEZONE = "Europe/London"
HOUR_MS = 3_600_000


def sample() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    paths = sample_paths()
    return tuple(pd.read_parquet(paths[kind]) for kind in ("orders", "clicks", "price-changes"))  # type: ignore[return-value]


def new_shop(kafka: KafkaBroker, prefix: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # settings
    usual = {"timezone": TIMEZONE, "idle_timeout_ms": 3_000, "bundle": "shipped"}
    return new_group(kafka.bootstrap, prefix, **{**usual, **more})


def replay(settings: dict[str, Any], paths: Mapping[str, Path]) -> None:
    arguments = [argument for kind, path in paths.items() for argument in (f"--{kind}", str(path))]
    skutrend("replay", *arguments, settings=settings)


def test_windows_of_a_year_of_real_sales_equal_a_group_by_of_every_sku_and_day(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = new_shop(kafka, topic_prefix, partitions=4)
    assert "as they should be" in skutrend("topics", "check", settings=settings).stdout
    replay(settings, dict(sample_paths()))
    orders, clicks, prices = sample()
    records = len(orders) + len(clicks) + len(prices)
    end_ms = int(local_day_ms(orders.event_time_ms.tail(1), TIMEZONE).iloc[0]) + 24 * HOUR_MS

    names = ["w0", "w1"]
    with Service(settings, tmp_path) as service:
        for name in names:
            service.start(name)
        service.await_records(records)
        service.await_closed(end_ms)
        outcomes = {
            name: service.total("skutrend_outcomes", outcome=name)
            for name in ("folded", "duplicate", "late", "rejected")
        }
        assert service.get(names[0], "/livez")[0] == 200
        for name in names:
            service.stop(name)

    assert outcomes == {"folded": records, "duplicate": 0, "late": 0, "rejected": 0}
    windows = values(kafka.bootstrap, f"{topic_prefix}windows")
    expected = whole_grid(measures(orders, clicks, prices, timezone=TIMEZONE), until_ms=end_ms, timezone=TIMEZONE)
    assert len(windows) == len({window["id"] for window in windows})
    assert_equal(published(windows), expected)
    msgspec.convert(windows[:1000], list[WindowClosed])

    forecasts = {
        (message.key(), message.partition())
        for message in read_topic(kafka.bootstrap, f"{topic_prefix}forecasts")
        if msgspec.json.decode(message.value() or b"", type=Forecast).window_end_ms == end_ms
    }
    assert len(forecasts) == expected.index.get_level_values("sku").nunique()


@pytest.mark.parametrize("window_ms", [60_000, HOUR_MS], ids=["minutes", "hours"])
def test_shorter_windows_equal_a_group_by_too_and_have_plain_forecasts(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path, window_ms: int
) -> None:
    first_ms = int(pd.Timestamp("2011-03-25 10:00", tz="UTC").timestamp() * 1000)
    last_ms = first_ms + (5 * HOUR_MS if window_ms < HOUR_MS else 4 * 24 * HOUR_MS)
    tables = [table[table.event_time_ms.between(first_ms, last_ms - 1)] for table in sample()]
    paths = {kind: tmp_path / f"{kind}.parquet" for kind in ("orders", "clicks", "price-changes")}
    for path, table in zip(paths.values(), tables, strict=True):
        table.to_parquet(path)
    settings = new_shop(
        kafka, topic_prefix, partitions=2, window_ms=window_ms, silent_windows="skip", idle_timeout_ms=1_000
    )
    replay(settings, paths)
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(sum(map(len, tables)))
        newest = max(int(table.event_time_ms.max()) for table in tables)
        closed_ms = newest // window_ms * window_ms  # by every partition; one may be further than the other
        service.await_closed(closed_ms, partitions=2)
        service.stop("w")
    windows = [w for w in values(kafka.bootstrap, f"{topic_prefix}windows") if w["window_start_ms"] < closed_ms]
    expected = measures(*tables, timezone=TIMEZONE, window_ms=window_ms)
    starts = expected.index.get_level_values("window_start_ms")
    # a price change alone makes no record where silent windows are skipped, unless it changes a price that was known
    told = expected[(starts < closed_ms) & (expected.sum(axis=1) > 0)]
    found = published(windows)
    assert_equal(found[found.sum(axis=1) > 0], told)
    forecasts = values(kafka.bootstrap, f"{topic_prefix}forecasts")
    sources = {forecast["source"] for forecast in forecasts}
    assert "ewnb" in sources, "which serves first"
    assert "lstm" not in sources, "which has learnt days"
    assert {forecast["step_ms"] for forecast in forecasts} == {window_ms}
    assert {forecast["step_starts_ms"][0] - forecast["window_end_ms"] for forecast in forecasts} == {0}
