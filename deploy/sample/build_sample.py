"""Build the shipped sample, `streams/demo/sample/`, from the Online Retail data set of the UCI Machine Learning Repository.

    PYTHONPATH=. python deploy/sample/build_sample.py ONLINE_RETAIL.parquet PRICE_CHANGES.parquet --out streams/demo/sample

ONLINE_RETAIL.parquet has the data set's own columns. PRICE_CHANGES.parquet has day, StockCode, old_price and new_price,
one row wherever the most frequent price of a SKU's day differs by more than 1 % from that of its last day with sales.
The same inputs give the same rows.

Orders are kept as they are, with returns, zero prices and odd codes; only lines that are no goods at all (postage,
fees, samples, adjustments, gift vouchers) are left out. Local times become UTC. A price change takes effect one second
before its day's first sale at the new price (or first sale at all, where none was at just that price), so that it
tells of no sale before the moment it happens.

The data set has no clicks. Those of the sample are synthetic, and nothing about later sales can be learnt from them:
how many a SKU gets on a day is drawn from its sales of the 28 days before, which are known by then; their time of day
has nothing to do with orders; and they fall on every day of the year, so that they do not tell when the shop is closed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from streams.events.files import KINDS, Kind, Times, schema

TIMEZONE = "Europe/London"
CURRENCY = "GBP"
NO_GOODS = frozenset(
    [
        *("ADJUST", "ADJUST2", "AMAZONFEE", "B", "BANK CHARGES", "C2", "C3", "CRUK", "D", "DOT", "M", "PADS", "POST"),
        *("S", "SP1002", "TEST001", "TEST002"),
    ]
)
SEED = 20111209
LOOK_BACK_DAYS = 28
CLICKS_PER_ORDER_LINE = 0.4  # far below the 123 of a real shop (RetailRocket), which would not fit
CART_SHARE = 3.1 / (119 + 3.1)  # RetailRocket: 119 views and 3.1 carts per purchase
CLICKS_PER_SESSION = 5
OPENING_HOURS = (8, 20)
SESSION_SECONDS = 600

DELTA_TEXT = ("event_id", "order_id")  # packed as what differs from the row before


def utc_ms(local: pd.Series) -> Times:
    """Epoch milliseconds of shop-local wall-clock times; an hour that exists twice is taken as summer time."""
    stamps = local.dt.tz_localize(TIMEZONE, ambiguous=np.ones(len(local), bool), nonexistent="shift_forward")
    return np.asarray(stamps.dt.tz_convert("UTC").dt.as_unit("ms").astype("int64"))


def sku_of(stock_code: pd.Series) -> pd.Series:
    """One spelling per SKU: the raw codes mix cases and carry blanks."""
    return stock_code.astype(str).str.strip().str.upper()


def orders_of(raw: pd.DataFrame) -> pd.DataFrame:
    """Order lines of goods with the columns of `orders`, in time order; negative quantities are cancellations."""
    raw = raw.assign(sku=sku_of(raw["StockCode"]))
    raw = raw[~(raw["sku"].isin(NO_GOODS) | raw["sku"].str.startswith("GIFT"))]
    invoice = raw["InvoiceNo"].astype(str)
    orders = pd.DataFrame(
        {
            "event_id": invoice + "-" + (raw.groupby("InvoiceNo").cumcount() + 1).astype(str),
            "order_id": invoice,
            "sku": raw["sku"],
            "quantity": raw["Quantity"].astype(float),
            "unit_price": raw["UnitPrice"].astype(float),
            "currency": CURRENCY,
            "event_time_ms": utc_ms(raw["InvoiceDate"]),
            "customer_id": raw["CustomerID"].astype("string"),
        }
    )
    return orders.sort_values("event_time_ms", kind="stable", ignore_index=True)


def price_changes_of(raw: pd.DataFrame, orders: pd.DataFrame) -> pd.DataFrame:
    """Price changes with the columns of `price-changes`, each just before the first sale at its new price that day."""
    changes = pd.DataFrame(
        {
            "event_id": [f"price-{number}" for number in range(len(raw))],
            "sku": sku_of(raw["StockCode"]),
            "price": raw["new_price"].astype(float),
            "previous_price": raw["old_price"].astype(float),
            "currency": CURRENCY,
            "kind": "list",
            "day": raw["day"],
        }
    )
    sold = orders[orders["quantity"] > 0].rename(columns={"unit_price": "price"})
    sold = sold.assign(day=local_day(sold))[["sku", "day", "price", "event_time_ms"]]
    at_price = changes.merge(sold.groupby(["sku", "day", "price"], as_index=False).min(), how="left", validate="1:1")
    at_all = changes.merge(sold.drop(columns="price").groupby(["sku", "day"], as_index=False).min(), validate="1:1")
    if len(at_all) < len(changes):
        msg = "a price change has no sale on its day: the two inputs do not belong together"
        raise SystemExit(msg)
    changes["event_time_ms"] = at_price["event_time_ms"].fillna(at_all["event_time_ms"])
    changes["event_time_ms"] = changes["event_time_ms"].astype("int64") - 1000
    return changes.sort_values("event_time_ms", kind="stable", ignore_index=True)


def local_day(events: pd.DataFrame) -> pd.Series:
    """Midnight, without a zone, of the shop-local day of each event."""
    stamps = pd.to_datetime(events["event_time_ms"], unit="ms", utc=True)
    return stamps.dt.tz_convert(TIMEZONE).dt.tz_localize(None).dt.normalize().dt.as_unit("us")


def clicks_of(orders: pd.DataFrame) -> pd.DataFrame:
    """Synthetic clicks with the columns of `clicks`; see the head of this file for what they must not tell."""
    rng = np.random.default_rng(SEED)
    sold = orders[(orders["quantity"] > 0) & (orders["unit_price"] > 0)]
    lines = sold.assign(day=local_day(sold)).groupby(["day", "sku"]).size().unstack(fill_value=0)
    lines = lines.reindex(pd.date_range(lines.index[0], lines.index[-1]), fill_value=0)
    # shifted by a day: today's clicks know the sales up to yesterday
    rate = lines.rolling(LOOK_BACK_DAYS, min_periods=1).sum().shift(1, fill_value=0) * CLICKS_PER_ORDER_LINE
    counts = rng.poisson((rate / LOOK_BACK_DAYS).to_numpy())
    day, sku = np.repeat(np.indices(counts.shape).reshape(2, -1), counts.ravel(), axis=1)
    session, second = sessions_of(day, rng)
    clicks = pd.DataFrame(
        {
            "session": session,
            "sku": lines.columns.to_numpy()[sku],
            "kind": np.where(rng.random(len(sku)) < CART_SHARE, "cart", "view"),
            "event_time_ms": utc_ms(pd.Series(lines.index[day] + pd.to_timedelta(second, unit="s"))),
        }
    )
    known: pd.DataFrame = clicks.loc[clicks["event_time_ms"] <= orders["event_time_ms"].max()]
    clicks = known.sort_values("event_time_ms", kind="stable", ignore_index=True)
    clicks["event_id"] = [f"synthetic-click-{number}" for number in range(len(clicks))]
    clicks["session_id"] = "synthetic-" + pd.Series(pd.factorize(clicks["session"])[0]).astype(str)
    return clicks


def sessions_of(day: Times, rng: np.random.Generator) -> tuple[Times, Times]:
    """Put each click, given its day's number, into a visit of its day: the visit's number and the second of the day."""
    visits = np.maximum(np.bincount(day) // CLICKS_PER_SESSION, 1)
    first_visit = np.concatenate([[0], np.cumsum(visits)[:-1]])
    session = first_visit[day] + (rng.random(len(day)) * visits[day]).astype(np.int64)
    opening, closing = (hour * 3600 for hour in OPENING_HOURS)
    begins = rng.integers(opening, closing - SESSION_SECONDS, visits.sum())
    return session, begins[session] + rng.integers(0, SESSION_SECONDS, len(day))


def write(frame: pd.DataFrame, kind: Kind, path: Path) -> None:
    """Write the columns of `kind`, without optional ones that the frame lacks, as small as Parquet gets them."""
    columns = pa.schema([field for field in schema(kind) if field.name in frame.columns])
    table = pa.Table.from_pandas(frame[columns.names], schema=columns, preserve_index=False).replace_schema_metadata()
    encodings = {name: "DELTA_BYTE_ARRAY" for name in columns.names if name in DELTA_TEXT}
    encodings["event_time_ms"] = "DELTA_BINARY_PACKED"
    pq.write_table(
        table,
        path,
        row_group_size=len(table),
        use_dictionary=[name for name in columns.names if name not in encodings],  # type: ignore[arg-type] # as documented
        column_encoding=encodings,
        compression="zstd",
        compression_level=22,
        version="2.6",
        data_page_version="2.0",
    )


def main() -> None:
    """Read the two raw files, write the three of the sample, and say how many rows and bytes they have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("online_retail", type=Path)
    parser.add_argument("price_changes", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    orders = orders_of(pd.read_parquet(arguments.online_retail))
    frames: dict[Kind, pd.DataFrame] = {
        "orders": orders,
        "clicks": clicks_of(orders),
        "price-changes": price_changes_of(pd.read_parquet(arguments.price_changes), orders),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        path = arguments.out / f"{kind}.parquet"
        write(frames[kind], kind, path)
        print(
            f"{kind}: {len(frames[kind]):,} rows, {frames[kind]['sku'].nunique():,} SKUs, {path.stat().st_size:,} bytes"
        )


if __name__ == "__main__":
    main()
