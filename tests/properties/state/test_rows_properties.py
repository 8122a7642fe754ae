"""Whatever a table or a meta record holds, it comes back from its bytes as it was."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.grid import WindowGrid
from features.sku_state import SkuState
from features.table import Column, SkuTable
from inference.pipeline import JUDGING
from schemas.inputs import ORDERS
from streams.state.meta import Counts, Meta, SeasonState, restore_season, season_state
from streams.state.rows import SKU_ROW, RowLayout
from tests.support.examples import examples
from tests.support.sku_states import Order, close_due, columns, cut, day_ms, statistics

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
specs = st.lists(
    st.builds(
        Column,
        st.sampled_from("abcdefgh"),
        st.sampled_from(["|u1", "|i1", "<i4", "<i8", "<f4", "<f8"]),
        st.sampled_from([(), (1,), (3,), (2, 4)]),
        st.sampled_from([0, 1, 7]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda column: column.name,
)


@examples(80)
@given(
    specs, st.lists(names, unique=True, max_size=12), st.integers(0, 2**32), st.lists(st.integers(0, 20), max_size=3)
)
def test_any_table_comes_back_from_its_rows_in_any_order_and_in_parts(
    spec: list[Column], skus: list[str], seed: int, at: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    table = SkuTable(spec)
    slots = table.add(skus)
    for column in spec:  # any bytes: also NaN, infinities, subnormals
        raw = np.frombuffer(rng.bytes(table[column.name][slots].nbytes), column.dtype)
        table[column.name][slots] = raw.reshape(len(skus), *column.shape)
    chosen = rng.permutation(len(skus))[: rng.integers(0, len(skus) + 1)].astype(np.int32)
    stored = list(zip([skus[slot] for slot in chosen], RowLayout(table.spec).pack(table, chosen), strict=True))
    again = SkuTable(spec)
    for part in cut(stored, at):
        RowLayout(table.spec).unpack(again, [sku for sku, _ in part], [row for _, row in part])
    assert again.skus == [skus[slot] for slot in chosen]
    for column in spec:
        kept, found = table[column.name][chosen], again[column.name][: len(chosen)]
        assert found.tobytes() == kept.tobytes()


int64 = st.integers(-(2**63), 2**63 - 1)
counts = st.integers(0, 2**40)
reals = st.floats(allow_nan=False, allow_infinity=False)
metas = st.builds(
    Meta,
    format=st.integers(0, 9),
    layout=st.text(max_size=16),
    grid=st.text(max_size=16),
    sequence=counts,
    offsets=st.dictionaries(st.text(max_size=9), counts, max_size=3),
    first_open=st.none() | int64,
    watermark_ms=int64,
    newest_ms=st.lists(int64, min_size=3, max_size=3),
    season=st.builds(
        SeasonState,
        lines=st.lists(reals, max_size=7),
        units=st.lists(reals, max_size=7),
        visits=st.lists(counts, max_size=7),
        missed=st.lists(counts, max_size=7),
        fast=reals,
        slow=reals,
        open_windows=counts,
        ratio=st.lists(reals, max_size=7),
        level=reals,
        weight=reals,
    ),
    prior_nu=reals,
    currency=st.text(max_size=3),
    counts=st.dictionaries(st.text(max_size=9), st.builds(Counts, counts, counts, counts, counts, counts), max_size=3),
    model=st.text(max_size=9),
    expected_open=st.booleans(),
    windows_closed=counts,
    skus=counts,
    blend=st.binary(max_size=9),
)


@examples(60)
@given(metas)
def test_any_meta_record_comes_back_from_its_bytes(meta: Meta) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(meta), type=Meta) == meta


sales = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.integers(0, 9)), max_size=40)


@examples(40)
@given(sales, sales)
def test_a_partition_restored_from_its_bytes_goes_on_as_if_nothing_had_happened(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    lasting, restored = (SkuState(WindowGrid(), extra_columns=JUDGING) for _ in range(2))

    def sell(sku_state: SkuState, lines: list[tuple[str, int, int]], first_day: int) -> None:
        events = [Order(f"{first_day}-{i}", sku, n, 2.5, day_ms(first_day + d)) for i, (sku, n, d) in enumerate(lines)]
        sku_state.absorb(ORDERS, columns(ORDERS, events), now_ms=day_ms(100))
        close_due(sku_state, day_ms(first_day + 10))

    sell(lasting, before, 0)
    season = msgspec.msgpack.encode(season_state(lasting))
    everyone = np.arange(len(lasting.table), dtype=np.int32)
    SKU_ROW.unpack(restored.table, lasting.table.skus, SKU_ROW.pack(lasting.table, everyone))
    restore_season(restored, msgspec.msgpack.decode(season, type=SeasonState))
    restored.windows.first_open, restored.prior_nu = lasting.windows.first_open, lasting.prior_nu
    for sku_state in (lasting, restored):
        sell(sku_state, after, 10)
    assert statistics(restored) == statistics(lasting)
    assert restored.windows.first_open == lasting.windows.first_open
    assert season_state(restored) == season_state(lasting)
