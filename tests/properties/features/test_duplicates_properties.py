"""Seen ids against a dict, with and without restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from features.duplicates import SeenIds


class Ids(RuleBasedStateMachine):
    """One memory that lives on, one that is rebuilt from what was stored, and the dict {id: window} they must equal."""

    def __init__(self) -> None:
        super().__init__()
        self.lasting, self.restarted = SeenIds(), SeenIds()
        self.known: dict[str, int] = {}
        self.unsaved: dict[str, int] = {}
        self.stored: dict[int, list[str]] = {}
        self.first_open = 0

    @rule(events=st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 3)), max_size=8))
    def admit(self, events: list[tuple[str, int]]) -> None:
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
        assert {event_id: window for window, ids in fresh.items() for event_id in ids} == self.unsaved
        assert sum(map(len, fresh.values())) == len(self.unsaved)
        self.unsaved = {}
        for window, ids in fresh.items():
            self.stored.setdefault(window, []).extend(ids)
        self.stored = {window: ids for window, ids in self.stored.items() if window >= self.first_open}
        if restart:
            self.restarted = SeenIds()
            for window, ids in self.stored.items():
                self.restarted.restore(window, list(ids))

    @invariant()
    def remembers_the_ids_of_the_open_windows(self) -> None:
        assert len(self.lasting) == len(self.restarted) == len(self.known)


TestIdsAreRememberedAsLongAsTheirWindowIsOpen = Ids.TestCase
TestIdsAreRememberedAsLongAsTheirWindowIsOpen.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None
)
