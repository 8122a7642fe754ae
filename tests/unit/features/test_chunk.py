"""A chunk of a closing window: nothing is written before its commit, and none is left without one."""

from __future__ import annotations

import numpy as np
import pytest

from features import sku_state as module
from features.closing import NAMES
from features.grid import WindowGrid
from features.sku_state import SkuState
from features.table import Column
from schemas.inputs import ORDERS
from tests.support.sku_states import Order, close, close_due, columns, day_ms, statistics

NUMBER = WindowGrid().number(day_ms(0))


def shop(*skus: str, day: int = 0) -> SkuState:
    """A partition that sold two units of each SKU on a day."""
    sku_state = SkuState(WindowGrid(), extra_columns=(Column("learnt", "<f4"),))
    lines = [Order(sku, sku, 2, 2.0, day_ms(day, 12)) for sku in skus]
    sku_state.absorb(ORDERS, columns(ORDERS, lines), now_ms=day_ms(9))
    return sku_state


def test_nothing_is_written_before_the_commit_and_everything_by_it() -> None:
    sku_state = shop("a", "b")
    untouched = statistics(sku_state)
    (number,) = sku_state.windows
    for chunk in sku_state.close(number):
        before = chunk.before(("age", "nu", "learnt"))
        assert (before["age"].tolist(), chunk.after["age"].tolist()) == ([0, 0], [1, 1])
        assert statistics(sku_state) == untouched
        with pytest.raises(ValueError, match="read-only"):
            before["nu"][0] = 7
        chunk.commit({"learnt": np.array([3.0, 4.0], np.float32)})
    assert sku_state.table["age"][:2].tolist() == [1, 1]
    assert sku_state.table["last_number"][:2].tolist() == [number, number]
    assert sku_state.table["learnt"][:2].tolist() == [3.0, 4.0]


def test_a_chunk_with_gaps_between_its_slots_leaves_the_others_as_they_are() -> None:
    sku_state = shop("a", "b", "c", "d")
    sku_state.table["first_number"][[1, 3]] += 9  # not live yet
    untouched = {sku: statistics(sku_state)[sku] for sku in "bd"}
    for chunk in sku_state.close(NUMBER):
        assert (chunk.slots.tolist(), chunk.skus) == ([0, 2], ["a", "c"])
        assert chunk.facts.units.tolist() == [2, 2]
        chunk.commit({"learnt": chunk.before(["learnt"])["learnt"] + 1})
    assert sku_state.table["age"][:4].tolist() == [1, 0, 1, 0]
    assert sku_state.table["learnt"][:4].tolist() == [1, 0, 1, 0]
    assert {sku: statistics(sku_state)[sku] for sku in "bd"} == untouched


def test_a_chunk_is_committed_once() -> None:
    for chunk in shop("a").close(NUMBER):
        chunk.commit()
        with pytest.raises(RuntimeError, match=f"1 SKUs from slot 0 on of window {NUMBER} was committed twice"):
            chunk.commit()


@pytest.mark.parametrize("name", NAMES)
def test_what_moves_on_with_the_window_cannot_be_given(name: str) -> None:
    for chunk in shop("a").close(NUMBER):
        with pytest.raises(ValueError, match=name):
            chunk.commit({name: np.zeros(1)})
        chunk.commit()


def test_a_chunk_left_without_a_commit_stops_the_sku_state_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    sku_state = shop("a", "b", "c")
    chunks = sku_state.close(NUMBER)
    next(chunks).commit()
    next(chunks)
    with pytest.raises(RuntimeError, match=r"slot 2 on of window .* was left without a commit"):
        next(chunks)
    with pytest.raises(RuntimeError, match=f"window {NUMBER} was left half closed"):
        close(sku_state, NUMBER + 1)
    with pytest.raises(RuntimeError, match=f"window {NUMBER} was left half closed"):
        sku_state.cross(NUMBER + 1, NUMBER + 9)


def test_chunks_of_any_size_leave_the_same_state(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = shop(*"abcde"), shop(*"abcde")
    close_due(whole, day_ms(3))
    monkeypatch.setattr(module, "CHUNK", 2)
    close_due(cut, day_ms(3))
    assert statistics(whole) == statistics(cut)
