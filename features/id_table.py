"""Event ids as hashes, and the set of them: open addressing in numpy arrays, 20 bytes a place.

An entry has 128 bits: 96 of the hash of an id, by which it is known, and 32 of the content that came with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

Hashes = NDArray[np.uint64]
Half = NDArray[np.uint64]
Windows = NDArray[np.int32]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]

HASH_BYTES: Final = 16
_MOST_LOAD = 0.8  # places that hold an id, a forgotten one too, before the table is laid out anew
_LOAD = 0.6  # the same after that: 33 bytes an id
_LEAST_LOAD = 0.55  # places that hold an id of an open window, below which the table gives memory back
_FEWEST_PLACES = 1_024
_MOVED_AT_ONCE = 16_384  # places: what is worked on fits the processor's cache
_LONGEST_STEP = 64
_FEW = 32  # ids, so few that one after the other is quicker than by arrays
_HALF_BITS = np.uint64(32)
_CONTENT = np.uint64((1 << 32) - 1)  # of the second half of an entry
_BEFORE_ALL = -(1 << 31)


def hashed(ids: Iterable[str]) -> bytes:
    """Hash event ids with XXH3, 16 bytes each; the same in every process, on every machine, in every version.

    That any two of n different ids share 96 bits has the probability n^2 / 2^97: 6e-10 for ten billion. XXH3 does not
    withstand somebody who searches for such ids, and need not: who may write events can simply repeat an id.
    """
    return b"".join(map(xxh3_128_digest, map(str.encode, ids)))


def as_hashes(raw: bytes) -> Hashes:
    """Read hashes, 16 bytes each, as numbers: uint64 (n, 2)."""
    return np.frombuffer(raw, "<u8").reshape(-1, 2)


def entries(ids: Iterable[str], contents: NDArray[np.uint32] | None = None) -> Hashes:
    """Make entries of ids and of what came with them, uint32 (n,); None: nothing is known of that. uint64 (n, 2)."""
    made = as_hashes(hashed(ids)).copy()
    made[:, 1] &= ~_CONTENT
    if contents is not None:
        made[:, 1] |= contents
    return made


class IdTable:
    """Entries with the number of their window, an int32; those of windows before `first_open` count as absent.

    Takes 25 to 37 bytes an id of an open window (1,024 places at least), also while it grows: it is moved part by part
    and gives up what is moved. What a batch costs are some array operations, whose number grows with the logarithm of
    its length.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.first_open = _BEFORE_ALL
        self._counts: dict[int, int] = {}  # ids by open window
        self._lay_out(_FEWEST_PLACES)

    def __len__(self) -> int:
        """How many ids of open windows there are."""
        return sum(self._counts.values())

    def add(self, hashes: Hashes, windows: NDArray[np.int64]) -> Flags:
        """Add ids and tell which were absent: bool (n,). The first of equal ids in a batch is the absent one.

        hashes: entries, uint64 (n, 2), whose content says nothing here; windows: int64 (n,).
        """
        n = len(hashes)
        if self._used + n > _MOST_LOAD * len(self._first):
            self._rebuild(len(self) + n)
        first = np.maximum(hashes[:, 0], np.uint64(1))  # 0 says that a place is free
        second, numbers = np.ascontiguousarray(hashes[:, 1]), windows.astype(np.int32)
        ordered = np.sort(first)
        if (ordered[1:] != ordered[:-1]).all():
            absent = self._insert(first, second, numbers)
        else:
            absent = np.zeros(n, np.bool_)
            for rows in _apart(first, second):
                absent[rows] = self._insert(first[rows], second[rows], numbers[rows])
        self._count(numbers if absent.all() else numbers[absent])
        return absent

    def differ(self, hashes: Hashes) -> Flags:
        """Tell which entries have another content than the one that is there with their id; bool (n,)."""
        at = self._find(hashes)
        differ: Flags = (at >= 0) & (self._second.take(at) != hashes[:, 1])
        return differ

    def holds(self, hashes: Hashes) -> Flags:
        """Tell which ids are those of an event of an open window; bool (n,)."""
        at = self._find(hashes)
        held: Flags = (at >= 0) & (self._windows.take(at) >= self.first_open)
        return held

    def _find(self, hashes: Hashes) -> Places:
        """Give the place of every id, also of one that is forgotten and still there; -1 where there is none."""
        first, second = np.maximum(hashes[:, 0], np.uint64(1)), hashes[:, 1]
        places = np.full(len(hashes), -1, np.intp)
        rows, at, step = np.arange(len(hashes)), self._home(first), 0
        while len(rows):
            found = self._first.take(at)
            is_it = (found == first.take(rows)) & ((self._second.take(at) ^ second.take(rows)) <= _CONTENT)
            places[rows[is_it]] = at[is_it]
            left, step = np.flatnonzero(~is_it & (found != 0)), _step_after(step)
            rows, at = rows.take(left), (at.take(left) + step) % len(self._first)
        return places

    def forget_before(self, window: int) -> None:
        """Let the ids of every window with a smaller number be absent from now on."""
        self.first_open = max(self.first_open, window)
        for closed in [number for number in self._counts if number < window]:
            del self._counts[closed]
        ids = len(self)
        if len(self._first) > _FEWEST_PLACES and ids < _LEAST_LOAD * len(self._first):
            self._rebuild(ids)

    def by_window(self) -> Iterator[tuple[int, Hashes]]:
        """Give the hashes of each open window: (number, uint64 (n, 2)), ascending by number."""
        held = np.flatnonzero((self._first != 0) & (self._windows >= self.first_open))
        held = held[np.argsort(self._windows[held], kind="stable")]
        end = 0
        for number, count in sorted(self._counts.items()):
            at, end = held[end : end + count], end + count
            yield number, np.stack([self._first[at], self._second[at]], axis=1)

    def _count(self, numbers: Windows) -> None:
        if len(numbers) and numbers.min() == numbers.max():
            self._counts[int(numbers[0])] = self._counts.get(int(numbers[0]), 0) + len(numbers)
            return
        for number, count in zip(*(each.tolist() for each in np.unique(numbers, return_counts=True)), strict=True):
            self._counts[number] = self._counts.get(number, 0) + count

    def _lay_out(self, places: int) -> None:
        self._used = 0  # places that hold an id, a forgotten one too
        # of zeros, since pages that nothing has been written to take no memory
        self._first = np.zeros(places, np.uint64)
        self._second = np.zeros(places, np.uint64)
        self._windows = np.zeros(places, np.int32)

    def _rebuild(self, ids: int) -> None:
        """Make room for so many ids, and leave the forgotten ones behind."""
        first, second, windows = self._first, self._second, self._windows
        self._lay_out(max(_FEWEST_PLACES, int(ids / _LOAD)))
        for end in range(len(first), 0, -_MOVED_AT_ONCE):
            start = max(0, end - _MOVED_AT_ONCE)
            kept = start + np.flatnonzero((first[start:end] != 0) & (windows[start:end] >= self.first_open))
            self._insert(first.take(kept), second.take(kept), windows.take(kept))
            for moved in (first, second, windows):
                # nothing else refers to them, which numpy's own check cannot tell for sure under a debugger
                moved.resize(start, refcheck=False)

    def _home(self, first: Half) -> Places:
        """Give the place where the search for each hash begins; ascending with it, so that `_rebuild` goes in order."""
        home: Places = ((first >> _HALF_BITS) * np.uint64(len(self._first)) >> _HALF_BITS).astype(np.intp)
        return home

    def _insert(self, first: Half, second: Half, numbers: Windows) -> Flags:
        """Find or add hashes, no two of which have the same first half; tells which were absent."""
        places = self._places(first, second)
        absent: Flags = places >= 0
        if not absent.all():
            places, second, numbers = places[absent], second[absent], numbers[absent]
        self._second[places] = second
        self._windows[places] = numbers
        return absent

    def _places(self, first: Half, second: Half) -> Places:
        """Give the place of every hash that is absent, with its first half put there; -1 for the others.

        From its home on, a hash tries places at distances that grow by 1, 2, 3, ...: all of a batch try at once.
        """
        table, places = self._first, np.full(len(first), -1, np.intp)
        rows, at, step = np.arange(len(first)), self._home(first), 0
        while len(rows) > _FEW:
            wanted, found = first.take(rows), table.take(at)
            goes_on = found != 0
            equal = np.flatnonzero(found == wanted)
            if len(equal):
                equal = equal[(self._second[at[equal]] ^ second[rows[equal]]) <= _CONTENT]
                places[rows[equal]] = np.where(self._windows[at[equal]] < self.first_open, at[equal], -1)
                goes_on[equal] = False
            free = np.flatnonzero(found == 0)
            claimed, wanted_there = at.take(free), wanted.take(free)
            table[claimed] = wanted_there
            is_lost = table.take(claimed) != wanted_there  # to another hash of the batch
            goes_on[free] = is_lost
            self._used += len(free) - int(np.count_nonzero(is_lost))
            places[rows.take(free)] = claimed  # also of those that lost it, until they find another
            left, step = np.flatnonzero(goes_on), _step_after(step)
            rows, at = rows.take(left), (at.take(left) + step) % len(table)
        for row, place in zip(rows.tolist(), at.tolist(), strict=True):
            places[row] = self._place(int(first[row]), int(second[row]), place, step)
        return places

    def _place(self, first: int, second: int, place: int, step: int) -> int:
        """Do what `_places` does for one hash, from its try at `place` on, to which a step of `step` led."""
        while (found := int(self._first[place])) != 0:
            if found == first and int(self._second[place]) >> 32 == second >> 32:
                return place if self._windows[place] < self.first_open else -1
            step = _step_after(step)
            place = (place + step) % len(self._first)
        self._first[place] = first
        self._used += 1
        return place


def _step_after(step: int) -> int:
    """Grow the distance between tries, against clusters; at last go place by place, so that one is found."""
    return step + 1 if step < _LONGEST_STEP else 1


def _apart(first: Half, second: Half) -> Iterator[Places]:
    """Split a batch into rows whose first halves all differ, and leave all but the first of equal hashes out."""
    known_by = second >> _HALF_BITS
    order = np.lexsort((known_by, first))  # stable
    differs = (np.diff(first[order]) != 0) | (np.diff(known_by[order]) != 0)
    rows = order[np.r_[True, differs]]
    while len(rows):
        is_other = np.r_[True, np.diff(first[rows]) != 0]
        yield rows[is_other]
        rows = rows[~is_other]
