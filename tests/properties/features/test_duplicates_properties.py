"""Seen ids against a dict, with and without restarts; and their table with hashes that collide in every way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from features.duplicates import SeenIds
from features.id_table import HASH_BYTES, IdTable, entries
from tests.support.examples import examples

HALVES = (0, 1, 2, 1 << 32, (1 << 32) + 1, (1 << 64) - 1, (1 << 64) - 2)  # few, so that halves meet; at both ends, too


class Ids(RuleBasedStateMachine):
    """One memory that lives on, one that is rebuilt from what was stored, and the dict {id: window} they must equal."""

    def __init__(self) -> None:
        super().__init__()
        self.lasting, self.restarted = SeenIds(), SeenIds()
        self.known: dict[str, int] = {}
        self.unsaved: dict[str, int] = {}
        self.stored: dict[int, bytes] = {}
        self.first_open = 0

    @rule(events=st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 3)), max_size=8))
    def admit(self, events: list[tuple[str, int]]) -> None:
        self._admit(events)

    @rule(low=st.integers(0, 4_000), count=st.integers(0, 3_000), repeated=st.integers(0, 50), ahead=st.integers(0, 3))
    def admit_many(self, low: int, count: int, repeated: int, ahead: int) -> None:
        numbers = [*range(low, low + count), *range(low, low + min(count, repeated))]
        self._admit([(f"many {n}", (n + ahead) % 4) for n in numbers])

    def _admit(self, events: list[tuple[str, int]]) -> None:
        ids = [event_id for event_id, _ in events]
        windows = np.array([self.first_open + ahead for _, ahead in events], np.int64)
        expected = []
        for event_id, window in zip(ids, windows.tolist(), strict=True):
            expected.append(event_id not in self.known)
            if expected[-1]:
                self.known[event_id] = self.unsaved[event_id] = window
        for seen in (self.lasting, self.restarted):
            found: Any = seen.admit(ids, windows)
            assert ([True] * len(ids) if found is None else found.tolist()) == expected
            assert found is not None or all(expected)

    @rule(windows=st.integers(0, 2))
    def close(self, windows: int) -> None:
        self.first_open += windows
        for seen in (self.lasting, self.restarted):
            seen.forget_before(self.first_open)
        for memory in (self.known, self.unsaved):
            for event_id in [i for i, window in memory.items() if window < self.first_open]:
                del memory[event_id]

    @rule(restart=st.booleans())
    def flush(self, restart: bool) -> None:
        fresh = self.restarted.take_fresh()
        assert self.lasting.take_fresh() == fresh
        assert told(fresh) == Counter((window, entry(event_id)) for event_id, window in self.unsaved.items())
        self.unsaved = {}
        for window, hashes in fresh.items():
            self.stored[window] = self.stored.get(window, b"") + hashes
        self.stored = {window: hashes for window, hashes in self.stored.items() if window >= self.first_open}
        if restart:
            self.restarted = SeenIds()
            for window, hashes in self.stored.items():
                self.restarted.restore(window, hashes)

    @rule()
    def renew(self) -> None:
        for seen in (self.lasting, self.restarted):
            seen.renew()
            assert told(seen.take_fresh()) == Counter((window, entry(i)) for i, window in self.known.items())
        self.unsaved = {}
        self.stored = {}
        for event_id, window in self.known.items():
            self.stored[window] = self.stored.get(window, b"") + entry(event_id)

    @invariant()
    def remembers_the_ids_of_the_open_windows(self) -> None:
        assert len(self.lasting) == len(self.restarted) == len(self.known)


def entry(event_id: str) -> bytes:
    return entries([event_id]).tobytes()


def told(fresh: dict[int, bytes]) -> Counter[tuple[int, bytes]]:
    """Pairs of window and hash."""
    assert all(len(hashes) % HASH_BYTES == 0 for hashes in fresh.values())
    return Counter(
        (window, hashes[i : i + HASH_BYTES])
        for window, hashes in fresh.items()
        for i in range(0, len(hashes), HASH_BYTES)
    )


TestIdsAreRememberedAsLongAsTheirWindowIsOpen = Ids.TestCase
TestIdsAreRememberedAsLongAsTheirWindowIsOpen.settings = examples(60, stateful_step_count=25)


@examples(200)
@given(
    batches=st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(HALVES), st.integers(0, 40)), max_size=120),
            st.integers(0, 1),
            st.integers(0, 3),
        ),
        max_size=8,
    )
)
def test_hashes_that_share_a_half_or_a_place_are_told_apart(
    batches: list[tuple[list[tuple[int, int]], int, int]],
) -> None:
    table = IdTable()
    known: dict[tuple[int, int], tuple[int, int]] = {}  # by what tells ids apart: window, second half
    for halves, closed, ahead in batches:
        table.forget_before(table.first_open + closed if known else 0)
        known = {pair: found for pair, found in known.items() if found[0] >= table.first_open}
        window = max(table.first_open, 0) + ahead
        expected = []
        for first, second in halves:
            pair = max(first, 1), second >> 32  # a first half of 0 is taken for 1
            expected.append(pair not in known)
            known.setdefault(pair, (window, second))
        hashes = np.array(halves, np.uint64).reshape(-1, 2)
        assert table.add(hashes, np.full(len(halves), window)).tolist() == expected
        assert len(table) == len(known)
        held = {(*pair, number) for number, found in table.by_window() for pair in map(tuple, found.tolist())}
        assert held == {(first, second, number) for (first, _), (number, second) in known.items()}
        differ = [known[max(first, 1), second >> 32][1] != second for first, second in halves]
        assert table.differ(hashes).tolist() == differ
        absent = np.array([[1 << 40, 1 << 50], [0, 1 << 51]], np.uint64)
        assert not table.differ(absent).any()
