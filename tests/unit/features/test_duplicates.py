"""Event ids are remembered exactly as long as their window is open."""

from __future__ import annotations

import numpy as np

from features.duplicates import SeenIds


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
    assert seen.take_fresh() == {2: ["b", "c"]}
    assert seen.take_fresh() == {}


def test_restored_ids_are_known_but_not_fresh() -> None:
    seen = SeenIds()
    seen.restore(4, ["a", "b"])
    assert admit(seen, ("a", 4), ("c", 4)) == [False, True]
    assert seen.take_fresh() == {4: ["c"]}
    seen.forget_before(5)
    assert len(seen) == 0
