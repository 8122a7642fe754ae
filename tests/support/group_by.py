"""What `windows` must say, from event files and pandas alone: a group-by that shares no code with the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

MEASURES = ["order_lines", "units", "revenue", "returned_units", "free_units", "views", "carts"]


def local_day_ms(event_time_ms: pd.Series[int], timezone: str) -> pd.Series[int]:
    """Return the start of the shop-local day of each event, epoch ms."""
    local = pd.to_datetime(event_time_ms, unit="ms", utc=True).dt.tz_convert(timezone)
    midnight = local.dt.tz_localize(None).dt.normalize().dt.tz_localize(timezone)
    return midnight.dt.tz_convert("UTC").astype("datetime64[ms, UTC]").astype("int64")


def measures(
    orders: pd.DataFrame, clicks: pd.DataFrame, prices: pd.DataFrame, *, timezone: str, window_ms: int | None = None
) -> pd.DataFrame:
    """Every SKU and window with an event: one row of MEASURES, indexed by (sku, window_start_ms).

    window_ms: length of the windows, aligned to the epoch; None: shop-local days.
    """

    def start_ms(event_time_ms: pd.Series[int]) -> pd.Series[int]:
        return local_day_ms(event_time_ms, timezone) if window_ms is None else event_time_ms // window_ms * window_ms

    sold = (orders.quantity > 0) & (orders.unit_price > 0)
    lines = pd.DataFrame(
        {
            "sku": orders.sku,
            "window_start_ms": start_ms(orders.event_time_ms),
            "order_lines": sold.astype("int64"),
            "units": orders.quantity.where(sold, 0.0),
            "revenue": (orders.quantity * orders.unit_price).where(sold, 0.0),
            "returned_units": (-orders.quantity).where(orders.quantity < 0, 0.0),
            "free_units": orders.quantity.where((orders.quantity > 0) & (orders.unit_price == 0), 0.0),
        }
    )
    looks = pd.DataFrame(
        {
            "sku": clicks.sku,
            "window_start_ms": start_ms(clicks.event_time_ms),
            "views": (clicks.kind == "view").astype("int64"),
            "carts": (clicks.kind == "cart").astype("int64"),
        }
    )
    changes = pd.DataFrame({"sku": prices.sku, "window_start_ms": start_ms(prices.event_time_ms)}, index=prices.index)
    every = pd.concat([lines, looks, changes], ignore_index=True).reindex(
        columns=["sku", "window_start_ms", *MEASURES], fill_value=0
    )
    return every.fillna(0.0).groupby(["sku", "window_start_ms"], sort=True)[MEASURES].sum()


def whole_grid(found: pd.DataFrame, *, until_ms: int, timezone: str) -> pd.DataFrame:
    """Add the silent days: every SKU from its first event to `until_ms`, shop-local days, zeros where nothing was."""
    start = found.reset_index().groupby("sku").window_start_ms.min()
    first = pd.Timestamp(int(start.min()), unit="ms", tz="UTC").tz_convert(timezone)
    last = pd.Timestamp(until_ms, unit="ms", tz="UTC").tz_convert(timezone)
    days = pd.date_range(first, last, freq="D", inclusive="left")
    starts = days.tz_convert("UTC").tz_localize(None).astype("datetime64[ms]").astype("int64").to_numpy()
    parts = [
        pd.MultiIndex.from_product([[sku], starts[starts >= from_ms]], names=found.index.names)
        for sku, from_ms in start.items()
    ]
    index = parts[0].append(parts[1:])
    return found.reindex(index, fill_value=0.0).sort_index()


def published(windows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Lay records of `windows` out as `measures` does; the last record of an id counts."""
    table = pd.DataFrame(list(windows)).drop_duplicates("id", keep="last")
    return table.set_index(["sku", "window_start_ms"])[MEASURES].sort_index()


def assert_equal(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Assert that every SKU and window is there, once, with the expected sums (1e-9 relative, 1e-6 absolute)."""
    assert found.index.is_unique, found.index[found.index.duplicated()][:5].tolist()
    missing, extra = expected.index.difference(found.index), found.index.difference(expected.index)
    assert not len(missing), f"{len(missing)} windows are missing, e.g. {missing[:3].tolist()}"
    assert not len(extra), f"{len(extra)} windows should not be there, e.g. {extra[:3].tolist()}"
    for name in MEASURES:
        ours = found[name].to_numpy(np.float64)
        theirs = expected[name].reindex(found.index).to_numpy(np.float64)
        wrong = np.flatnonzero(~np.isclose(ours, theirs, rtol=1e-9, atol=1e-6))
        assert not len(wrong), (
            f"{name} differs in {len(wrong)} of {len(ours)} windows, e.g. {found.index[wrong[0]]}: "
            f"{ours[wrong[0]]}, expected {theirs[wrong[0]]}"
        )
