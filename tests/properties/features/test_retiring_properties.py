"""Dormant SKUs are forgotten, and nobody else notices."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.grid import WindowGrid
from features.sku_state import SkuState
from schemas.inputs import ORDERS
from tests.support.examples import examples
from tests.support.sku_states import Order, close, columns, day_ms

SKUS = [f"sku{i}" for i in range(6)]
# per day: which SKUs sell, and whether the dormant are looked for after its window has closed
STORIES = st.lists(st.tuples(st.sets(st.sampled_from(SKUS), max_size=3), st.booleans()), min_size=3, max_size=25)
TTL = 4


def sell(sku_state: SkuState, day: int, skus: set[str]) -> None:
    lines = [Order(f"{day}-{sku}", sku, 1.0 + int(sku[-1]), 2.0, day_ms(day)) for sku in sorted(skus)]
    if lines:
        sku_state.absorb(ORDERS, columns(ORDERS, lines), now_ms=day_ms(1_000))


@examples(60)
@given(STORIES)
def test_those_who_stay_are_as_if_nobody_had_left_and_the_others_are_forgotten(
    story: list[tuple[set[str], bool]],
) -> None:
    tidy, whole = SkuState(WindowGrid()), SkuState(WindowGrid())
    for sku_state in (tidy, whole):
        sell(sku_state, 0, {"sku0"})
    newest = {"sku0": 0}  # by SKU: the newest closed day with an event
    seen = {"sku0"}
    returned: set[str] = set()  # who was forgotten once has lost its past for good
    for day, (skus, looks) in enumerate(story, start=1):
        returned |= {sku for sku in skus & seen if sku not in tidy.table.index}
        seen |= skus
        for sku_state in (tidy, whole):
            sell(sku_state, day, skus)  # the day after the one that closes: an open window holds these
        number = tidy.grid.number(day_ms(day - 1))
        before = set(tidy.table.skus)
        mine, theirs = close(tidy, number), close(whole, number)
        for sku in mine.facts.keys() - returned:
            np.testing.assert_equal(mine.facts[sku], theirs.facts[sku])  # NaN for NaN
            np.testing.assert_array_equal(mine.vectors[sku], theirs.vectors[sku])
        if looks:
            left = {key.decode() for key in tidy.retire(before=number + 1 - TTL)}
            assert left == {sku for sku in before if newest.get(sku, day) < day - TTL}
            returned |= left & set(tidy.table.skus)  # an open window holds them: they begin anew there
            for sku in left:
                del newest[sku]
        newest |= dict.fromkeys(skus, day)
        assert [tidy.table.index[sku] for sku in tidy.table.skus] == list(range(len(tidy.table)))
