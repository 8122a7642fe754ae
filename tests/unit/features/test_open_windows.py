"""The sparse tables of open windows: rows come with the first event, and closing takes them away."""

from __future__ import annotations

import numpy as np

from features.open_windows import FOLDED, OpenWindow, OpenWindows


def slots(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def test_a_slot_has_one_row_however_often_it_is_asked_for() -> None:
    window = OpenWindow()
    first = window.rows(slots(9, 3, 9, 70_000))
    assert first[0] == first[2]
    assert len(set(first.tolist())) == window.count == 3
    assert window.rows(slots(70_000, 3, 9)).tolist() == [first[3], first[1], first[0]]
    assert window.slots[first].tolist() == [9, 3, 9, 70_000]


def test_looking_up_adds_nothing() -> None:
    window = OpenWindow()
    window.rows(slots(5))
    assert window.row_of(slots(4, 5, 1_000_000)).tolist() == [-1, 0, -1]
    assert window.count == 1
    assert window.row_of(slots()).tolist() == window.rows(slots()).tolist() == []


def test_growing_keeps_what_was_folded() -> None:
    window = OpenWindow()
    for slot in range(500):
        row = window.rows(slots(slot * 7))
        window.folded["units"][row] += slot
    assert window.folded["units"][window.row_of(slots(*range(0, 3500, 7)))].tolist() == list(range(500))


def test_windows_are_gone_through_in_order_and_the_newest_is_known() -> None:
    windows = OpenWindows()
    assert windows.last is None
    for number in (7, 5, 9):
        windows.get(number)
    assert list(windows) == [5, 7, 9]
    assert windows.last == 9


def test_closing_takes_a_window_out_and_opens_the_next() -> None:
    windows = OpenWindows()
    windows.get(5).rows(slots(1))
    assert windows.pop(5).count == 1
    assert windows.first_open == 6
    assert windows.pop(6).count == 0
    assert windows.first_open == 7
    assert list(windows) == []


def test_every_field_is_aligned_for_numpy_adds_to_others_are_slow() -> None:
    assert all(offset % dtype.itemsize == 0 for dtype, offset in FOLDED.fields.values())
    assert FOLDED.itemsize % 8 == 0
