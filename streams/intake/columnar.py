"""Many records mapped at once, field by field; what is not plain is left to the mapper, one by one.

The result for a record is that of `Mapper`, or none. A field is read by the reader that the mapper has for it; only
whole columns of the types that JSON has for it are converted at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Any, Final

from schemas.inputs import Field
from streams.intake import values
from streams.intake.expressions import BESIDE, compiled, is_path
from streams.intake.mapper import DECIMALS, Mapper, Rows
from streams.intake.mapping import MADE_UP, Rule
from streams.intake.values import Unreadable

_PARENT: Final = "parent."
_REPEATED: Final = 2  # how often a text must come on average for reading each once to pay
_EXACT: Final = 1 << 53  # below which a float is exact
_minor_units: Final = lru_cache(maxsize=512)(values.minor_units)


@dataclass(frozen=True, slots=True)
class _Column:
    """How the column of one field is made. path: where it is found, "" where it is the same for all.

    whole: reads a column at once where all is of the type that JSON has for it, None where that cannot be.
    of_parent: whether it is found in the record that an element is of.
    """

    field: Field
    read: Callable[[Any], Any]
    default: Any = None
    path: str = ""
    whole: Callable[[list[Any], set[type]], list[Any] | None] = lambda *_: None
    of_parent: bool = False
    in_minor_units: bool = False


class Columnar:
    """Maps records whose rules are plain: a path for each field, one event for each record or element."""

    def __init__(self, mapper: Mapper, columns: Sequence[_Column]) -> None:
        """Map as `mapper` does; see `of`."""
        self._mapper, self._columns = mapper, columns
        self._each = compiled(mapper.mapping.each) if mapper.mapping.each else None
        self._at = mapper.at

    @classmethod
    def of(cls, mapper: Mapper) -> Columnar | None:
        """Make the columnar way of a mapper; None where its rules ask for more."""
        rules = mapper.mapping
        is_plain = not rules.leave_out and len(rules.events) == 1 and not rules.events[0].when
        if not is_plain or rules.events[0].fields or (rules.each and not is_path(rules.each)):
            return None
        columns = [_column(mapper, field, rules.fields.get(field.name)) for field in mapper.fields]
        made = [column for column in columns if column is not None]
        return cls(mapper, made) if len(made) == len(columns) else None

    def run(self, records: Sequence[dict[str, Any]]) -> list[Rows | None]:
        """Give the rows of each record's events; None where the mapper has to look at the record."""
        bad: set[int] = set()
        elements, parents, owners, lines = self._expanded(records, bad)
        columns = [self._read(column, parents if column.of_parent else elements, bad) for column in self._columns]
        self._complete(columns, lines, bad)
        left = {owners[at] for at in bad}
        made: list[Rows | None] = [None if at in left or lines is None else [] for at in range(len(records))]
        for owner, row in zip(owners, zip(*columns, strict=True), strict=True):
            rows = made[owner]
            if rows is not None:
                rows.append(row)
        return made

    def _expanded(
        self, records: Sequence[dict[str, Any]], bad: set[int]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[int], list[int]]:
        """Give the elements of records, and of each its record, the record's position, and its number there."""
        if self._each is None:
            return list(records), [], list(range(len(records))), [0] * len(records)
        elements: list[dict[str, Any]] = []
        parents: list[dict[str, Any]] = []
        owners: list[int] = []
        lines: list[int] = []
        for owner, record in enumerate(records):
            found = self._each(record)
            if isinstance(found, list) and all(type(each) is dict for each in found):
                elements += found
                parents += [record] * len(found)
                owners += [owner] * len(found)
                lines += range(1, len(found) + 1)
            else:  # an element that can be none: the mapper says why
                bad.add(len(elements))
                elements.append({})
                parents.append({})
                owners.append(owner)
                lines.append(0)
        return elements, parents, owners, lines

    def _read(self, column: _Column, found_in: Sequence[dict[str, Any]], bad: set[int]) -> list[Any]:
        """Read one field of all elements; `bad` takes the positions of those that the mapper has to look at."""
        if not column.path:
            return [column.default] * len(found_in)
        raw = _found(column.path, found_in)
        kinds = set(map(type, raw))
        made = column.whole(raw, kinds)
        if made is None:
            made = _each(raw, kinds, column.read, bad)
        if None not in made:
            return made
        if column.default is not None:
            return [column.default if value is None else value for value in made]
        if not column.field.nullable and column.field.name not in MADE_UP:
            bad.update(at for at, value in enumerate(made) if value is None)
        return made

    def _complete(self, columns: list[list[Any]], lines: list[int], bad: set[int]) -> None:
        """Make up what a mapper makes up, but for ids of what has neither an id nor an order and a line."""
        at, default = self._at, self._mapper.currency
        if "currency" in at:
            money = [(each or default).upper() for each in columns[at["currency"]]]
            columns[at["currency"]] = money
            bad.update(row for row, each in enumerate(money) if not each)
            for number, column in enumerate(self._columns):
                if column.in_minor_units:
                    columns[number] = [
                        None if amount is None else round(amount * _minor_units(currency), DECIMALS)
                        for amount, currency in zip(columns[number], money, strict=True)
                    ]
        ids = columns[at["event_id"]]
        if None in ids:
            orders = columns[at["order_id"]] if "order_id" in at else [None] * len(ids)
            for row, (event_id, order_id, line) in enumerate(zip(ids, orders, lines, strict=True)):
                if event_id is None and (order_id is None or not line):
                    bad.add(row)
                elif event_id is None:
                    ids[row] = f"{order_id}/{line}"
        for name in ("order_id", "session_id"):
            if name in at and None in columns[at[name]]:
                columns[at[name]] = [b if a is None else a for a, b in zip(columns[at[name]], ids, strict=True)]


def _found(path: str, found_in: Sequence[dict[str, Any]]) -> list[Any]:
    if "." in path:
        return list(map(compiled(path), found_in))
    return [each.get(path) for each in found_in]


def _each(raw: list[Any], kinds: set[type], read: Callable[[Any], Any], bad: set[int]) -> list[Any]:
    """Read value by value; of texts alone, which may be memorised, each only once."""
    found = dict.fromkeys(raw) if kinds <= {str, NoneType} else {}
    if len(found) * _REPEATED < len(raw) and found:
        unreadable = set()
        for each in found:
            try:
                found[each] = read(each)
            except Unreadable:
                unreadable.add(each)
        if unreadable:
            bad.update(at for at, each in enumerate(raw) if each in unreadable)
        return [found[each] for each in raw]
    made: list[Any] = []
    for at, each in enumerate(raw):
        try:
            made.append(read(each))
        except Unreadable:
            made.append(None)
            bad.add(at)
    return made


def _column(mapper: Mapper, field: Field, given: str | Rule | None) -> _Column | None:
    """Make the column of a field; None where its rule asks for more than a path."""
    rule = Rule(expression=given) if isinstance(given, str) else given
    if rule is None:
        return _Column(field, lambda _: None)
    read = mapper.reader(field, rule)
    if rule.constant is not None:
        return _Column(field, read, read(rule.constant), in_minor_units=rule.minor_units)
    expression = rule.expression or field.name
    of_parent = bool(mapper.mapping.each) and expression.startswith(_PARENT)
    path = expression.removeprefix(_PARENT) if of_parent else expression
    if rule.divide_by or not is_path(path) or (path.split(".")[0] in BESIDE and not of_parent):
        return None
    default = None if rule.default is None else read(rule.default)
    whole: Callable[[list[Any], set[type]], list[Any] | None] = lambda *_: None  # noqa: E731 - one of several
    if read is values.as_text:
        whole = _texts
    elif field.type == "double" and rule.scale == 1:
        whole = _floats
    elif field.name == "event_time_ms" and (rule.time or mapper.mapping.time) == "ms":
        whole = _milliseconds
    return _Column(field, read, default, path, whole, of_parent=of_parent, in_minor_units=rule.minor_units)


def _texts(raw: list[Any], kinds: set[type]) -> list[Any] | None:
    """Take texts as they are, without the blanks around them."""
    if kinds == {str}:
        made: list[Any] = list(map(str.strip, raw))
        return made if "" not in made else [each or None for each in made]
    if kinds <= {str, NoneType}:
        return [None if each is None else each.strip() or None for each in raw]
    return None


def _floats(raw: list[Any], kinds: set[type]) -> list[Any] | None:
    """Make floats of JSON numbers, where all are finite."""
    if not kinds <= {float, int}:
        return None
    try:
        found = list(map(float, raw))
    except OverflowError:
        return None
    return found if all(map(math.isfinite, found)) else None


def _milliseconds(raw: list[Any], kinds: set[type]) -> list[Any] | None:
    """Take whole milliseconds as they are, where a float would hold them, too."""
    return raw if kinds == {int} and -_EXACT < min(raw) and max(raw) < _EXACT else None
