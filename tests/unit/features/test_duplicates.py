"""Event ids are remembered exactly as long as their window is open, in few bytes each."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from features.duplicates import SeenIds, contents
from features.id_table import IdTable, entries
from schemas.inputs import CLICKS, ORDERS, PRICES
from tests.support.sku_states import Click, Event, Order, Price, columns

MEASURE = """
import numpy as np
from features.duplicates import SeenIds

def resident(field):
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(field))

AT_ONCE, IDS = 20_000, 6_000_000  # so many that the 2 MB pages of a few arrays do not count
warm, seen = SeenIds(), SeenIds()
for part in range(5):
    warm.admit([f"warm {part} {n}" for n in range(AT_ONCE)], np.full(AT_ONCE, part))
    warm.take_fresh()
before = resident("VmRSS")
for low in range(0, IDS, AT_ONCE):
    windows = np.full(AT_ONCE, low // 2_400_000)
    assert seen.admit([f"{n:036d}" for n in range(low, low + AT_ONCE)], windows) is None
    seen.take_fresh()
print((resident("VmRSS") - before) / IDS, (resident("VmHWM") - before) / IDS)
seen.forget_before(1)
print((resident("VmRSS") - before) / len(seen))
"""


def admit(seen: SeenIds, *events: tuple[str, int]) -> list[bool]:
    """Offer (id, window) pairs as one batch; which were first sightings."""
    found = seen.admit([i for i, _ in events], np.array([w for _, w in events], np.int64))
    return [True] * len(events) if found is None else found.tolist()


def test_the_first_of_equal_ids_in_a_batch_is_admitted() -> None:
    assert admit(SeenIds(), ("a", 1), ("b", 1), ("a", 1)) == [True, True, False]


def test_an_id_seen_in_another_open_window_is_a_duplicate() -> None:
    seen = SeenIds()
    assert admit(seen, ("a", 1)) == [True]
    assert admit(seen, ("a", 2), ("b", 2)) == [False, True]
    seen.forget_before(2)
    assert admit(seen, ("a", 2), ("b", 3)) == [True, False]


def test_a_batch_of_news_only_says_so_with_none() -> None:
    seen = SeenIds()
    assert seen.admit(["a", "b"], np.array([1, 2])) is None
    assert seen.admit([], np.array([], np.int64)) is None
    assert len(seen) == 2


def test_what_is_fresh_is_handed_over_once_and_not_after_its_window_closed() -> None:
    seen = SeenIds()
    admit(seen, ("a", 1), ("b", 2), ("b", 2))
    admit(seen, ("c", 2))
    seen.forget_before(2)
    assert seen.take_fresh() == {2: entries(["b", "c"]).tobytes()}
    assert seen.take_fresh() == {}


def test_restored_ids_are_known_but_not_fresh() -> None:
    seen = SeenIds()
    seen.restore(4, entries(["a", "b"]).tobytes())
    assert admit(seen, ("a", 4), ("c", 4)) == [False, True]
    assert seen.take_fresh() == {4: entries(["c"]).tobytes()}
    seen.forget_before(5)
    assert len(seen) == 0


def test_stored_entries_are_the_same_in_every_build() -> None:
    assert entries(["", "a", "Größe-7"]).tobytes().hex(" ", 16) == (
        "99aa06d3014798d800000000468d497f a96faf705af16834000000001e964e1f 3e76959726234c290000000039d7728e"
    )
    sold, clicked, priced = Order("1", "Größe/7", 2, 9.5, 5), Click("1", "a", 1, 5), Price("1", "a", 9.5, 5)
    found = [contents(columns(*each)).item() for each in ((ORDERS, [sold]), (CLICKS, [clicked]), (PRICES, [priced]))]
    assert found == [3_199_603_626, 3_844_813_456, 2_399_736_055]
    assert entries(["a"], np.array(found[:1], np.uint32)).tobytes().hex() == "a96faf705af16834aa13b6be1e964e1f"


@pytest.mark.slow
def test_an_id_costs_40_bytes_at_most_of_resident_memory_also_while_the_table_grows_and_when_windows_close() -> None:
    measured = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)  # noqa: S603
    grown, highest, after_close = map(float, measured.stdout.split())
    assert grown <= highest <= 40, "bytes an id; a set of texts takes 135"
    assert after_close <= 40


def test_a_window_of_as_many_ids_as_the_last_ones_takes_no_more_room_however_many_windows_close() -> None:
    table = IdTable()
    rng = np.random.default_rng(7)
    places = set()
    for number in range(200):
        hashes = rng.integers(0, 1 << 64, (1_000, 2), np.uint64)
        assert table.add(hashes, np.full(1_000, number)).all()
        assert not table.add(hashes, np.full(1_000, number)).any()
        table.forget_before(number - 9)
        if number >= 20:
            places.add(len(table._first))  # noqa: SLF001 - what memory is spent on
            assert len(table) == 10_000
    assert max(places) <= 22_000


@pytest.mark.parametrize("is_restored", [False, True])
@pytest.mark.parametrize(
    ("first", "other", "is_reused"),
    [
        (Order("1", "a", 1, 2.0, 0), Order("1", "a", 1, 2.0, 5), False),
        (Order("1", "a", 1, 2.0, 0), Order("1", "b", 1, 2.0, 0), True),
        (Order("1", "a", 1, 2.0, 0), Order("1", "a", 2, 2.0, 0), True),
        (Order("1", "a", 1, 2.0, 0), Order("1", "a", 1, 2.5, 0), True),
        (Order("1", "a", 1, 2.0, 0), Order("1", "a", 2, 1.0, 0), True),
        (Order("1", "a", 1, 0.0, 0), Order("1", "a", 1, -0.0, 0), False),
        (Click("1", "a", 0, 0), Click("1", "a", 0, 7), False),
        (Click("1", "a", 0, 0), Click("1", "a", 1, 0), True),
        (Price("1", "a", 2.0, 0), Price("1", "a", 2.0, 7), False),
        (Price("1", "a", 2.0, 0), Price("1", "a", 2.5, 0), True),
    ],
)
def test_an_id_that_comes_again_with_other_contents_but_for_the_time_is_told(
    first: Event, other: Event, *, is_reused: bool, is_restored: bool
) -> None:
    source = {Order: ORDERS, Click: CLICKS, Price: PRICES}[type(first)]
    said = [contents(columns(source, [event])) for event in (first, other)]
    seen = SeenIds()
    assert seen.admit(["1"], np.array([3]), said[0]) is None
    if is_restored:
        ((window, stored),) = seen.held()
        seen = SeenIds()
        seen.restore(window, stored)
    found = seen.admit(["1"], np.array([3]), said[1])
    assert found is not None
    assert not found.any()
    assert seen.reused(["1", "new"], np.r_[said[1], said[1]]).tolist() == [is_reused, False]
