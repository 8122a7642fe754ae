from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from schemas.inputs import INPUT_NAMES, InputName
from streams.events.files import read, sample_paths, survey

pytestmark = pytest.mark.slow  # reads all of the sample

ROOT = Path(__file__).parents[3]
COUNTS: dict[InputName, int] = {"orders": 538_959, "clicks": 193_697, "price-changes": 2_880}
SHARED = ["sku", "event_time_ms"]
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def sample() -> dict[InputName, pd.DataFrame]:
    return {
        kind: pd.concat([batch.to_pandas() for batch in read(path, kind)], ignore_index=True)
        for kind, path in sample_paths().items()
    }


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The script that builds the sample, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("build_sample", ROOT / "deploy" / "sample" / "build_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sample_is_whole_in_order_and_of_thirteen_months() -> None:
    paths = sample_paths()
    assert set(paths) == set(INPUT_NAMES)
    for kind, path in paths.items():
        found = survey(path, kind)
        assert (found.rows, found.in_order) == (COUNTS[kind], True)
        assert found.first_ms is not None
        assert found.last_ms is not None
        assert pd.Timestamp("2010-12-01").value <= found.first_ms * 1_000_000
        assert found.last_ms * 1_000_000 < pd.Timestamp("2011-12-10").value


def test_the_sample_is_small_and_names_its_source_and_licence() -> None:
    folder = sample_paths()["orders"].parent
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 6_000_000
    for name in ("README.md", "LICENSE.txt"):
        text = " ".join((folder / name).read_text(encoding="utf-8").split())
        assert "Chen, D. (2015)." in text
        assert "https://doi.org/10.24432/C5BW33" in text
        assert "https://creativecommons.org/licenses/by/4.0/" in text


def test_the_readme_of_the_sample_counts_right(sample: dict[InputName, pd.DataFrame]) -> None:
    text = (sample_paths()["orders"].parent / "README.md").read_text(encoding="utf-8")
    orders, clicks = sample["orders"], sample["clicks"]
    for kind, frame in sample.items():
        assert f"| `{kind}.parquet` | {len(frame):,} | {frame['sku'].nunique():,} |" in text
    assert f"{orders['order_id'].nunique():,} orders" in text
    assert f"{(orders['quantity'] < 0).sum():,} lines with a negative quantity" in text
    assert f"{(orders['unit_price'] == 0).sum():,} at price 0" in text
    assert f"{orders['customer_id'].isna().sum():,} without a customer" in text
    assert f"views ({(clicks['kind'] == 'view').sum():,}) and carts ({(clicks['kind'] == 'cart').sum():,})" in text


def test_ids_are_unique_and_clicks_say_that_they_are_synthetic(sample: dict[InputName, pd.DataFrame]) -> None:
    for frame in sample.values():
        assert frame["event_id"].is_unique
    clicks = sample["clicks"]
    assert clicks["event_id"].str.startswith("synthetic-").all()
    assert clicks["session_id"].str.startswith("synthetic-").all()
    assert clicks.groupby("session_id")["event_time_ms"].agg(np.ptp).max() < 600_000


def test_the_orders_are_the_shop_s_with_its_oddities(sample: dict[InputName, pd.DataFrame]) -> None:
    orders = sample["orders"]
    assert (orders["unit_price"] >= 0).all()
    assert (orders["sku"] == orders["sku"].str.strip().str.upper()).all()
    giant = orders[orders["order_id"].isin(["541431", "C541433"])]
    assert giant["quantity"].tolist() == [74_215.0, -74_215.0]
    assert giant["event_time_ms"].diff().iloc[-1] == 16 * 60_000


def test_a_price_change_comes_just_before_a_sale(sample: dict[InputName, pd.DataFrame]) -> None:
    orders, changes = sample["orders"], sample["price-changes"]
    sales = orders[orders["quantity"] > 0][SHARED].assign(sold=True).drop_duplicates()
    due = changes[SHARED].assign(event_time_ms=changes["event_time_ms"] + 1000)
    assert due.merge(sales, on=SHARED, how="left")["sold"].eq(True).all()


def test_clicks_of_the_sample_follow_past_sales_on_every_day_of_the_week(
    sample: dict[InputName, pd.DataFrame], build: ModuleType
) -> None:
    clicks = sample["clicks"]
    per_weekday = build.local_day(clicks).dt.day_name().value_counts()
    assert len(per_weekday) == 7
    assert per_weekday.max() < 1.1 * per_weekday.min()
    # nobody clicks on what was never sold before that day
    first_sale = sample["orders"].assign(day=build.local_day(sample["orders"])).groupby("sku")["day"].min()
    assert (build.local_day(clicks) > clicks["sku"].map(first_sale)).all()


def test_clicks_up_to_a_day_do_not_change_when_the_sales_from_that_day_on_do(build: ModuleType) -> None:
    rng = np.random.default_rng(5)
    midnight_ms = pd.Timestamp("2011-02-01").value // 1_000_000
    days = np.sort(np.append(rng.integers(0, 60, 4_000), [0, 59] * 2))
    orders = pd.DataFrame(
        {
            "sku": rng.choice(["A", "B", "C", "D"], len(days), p=[0.6, 0.3, 0.08, 0.02]),
            "quantity": 1.0,
            "unit_price": 1.0,
            "event_time_ms": midnight_ms + days * DAY_MS + 12 * 3_600_000,
        }
    )
    turn = 40
    other = orders.assign(sku=orders["sku"].where(days < turn, "D"))

    def daily(frame: pd.DataFrame) -> pd.Series:
        clicks = build.clicks_of(frame)
        number = (clicks["event_time_ms"] - midnight_ms) // (DAY_MS)
        return clicks.assign(day=number).groupby(["day", "sku"]).size()

    before, after = daily(orders), daily(other)
    assert before.loc[: turn - 1].sum() > 500
    pd.testing.assert_series_equal(before.loc[:turn], after.loc[:turn])
    assert before.loc[turn + 1 :].sum() != after.loc[turn + 1 :].sum()
