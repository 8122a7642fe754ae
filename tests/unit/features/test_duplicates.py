"""Event ids are remembered exactly as long as their window is open, in few bytes each."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from features.duplicates import SeenIds
from features.id_table import IdTable, hashed

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
    assert seen.take_fresh() == {2: hashed(["b", "c"])}
    assert seen.take_fresh() == {}


def test_restored_ids_are_known_but_not_fresh() -> None:
    seen = SeenIds()
    seen.restore(4, hashed(["a", "b"]))
    assert admit(seen, ("a", 4), ("c", 4)) == [False, True]
    assert seen.take_fresh() == {4: hashed(["c"])}
    seen.forget_before(5)
    assert len(seen) == 0


def test_stored_hashes_are_the_same_in_every_build() -> None:
    assert hashed(["", "a", "Größe-7"]).hex(" ", 16) == (
        "99aa06d3014798d86001c324468d497f a96faf705af16834e6c632b61e964e1f 3e76959726234c29410a2c9e39d7728e"
    )


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
