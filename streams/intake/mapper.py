"""A mapping at work: records in; events, and what was left out and why, out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, NamedTuple

from xxhash import xxh3_128_hexdigest

from schemas.errors import BadInput
from schemas.inputs import BY_NAME, Field, InputName
from schemas.personal import is_personal
from schemas.printable import printable
from streams.intake import values
from streams.intake.expressions import Getter, compiled, holds
from streams.intake.mapping import MADE_UP, EventRule, InputMapping, Rule
from streams.intake.readers import Record
from streams.intake.values import Unreadable

_QUOTED: Final = 40
_PERSONAL: Final = frozenset({"customer_id", "session_id"})
DECIMALS: Final = 9
"""To which amounts are rounded that were multiplied."""
Row = tuple[Any, ...]
Rows = list[Row]
Find = Callable[[dict[str, Any]], Any]


class Event(NamedTuple):
    """An event: where its record stands, and its fields in the order of the input's."""

    place: str
    row: Row


class LeftOut(NamedTuple):
    """A record, or an element of one, that is no event. is_error: whether something is wrong with it."""

    place: str
    reason: str
    detail: str = ""
    is_error: bool = True


class _Variant(NamedTuple):
    name: str
    when: Getter | None
    fields: tuple[tuple[Field, Find], ...]
    in_minor_units: tuple[int, ...]  # places of such amounts in a row


class Mapper:
    """Makes events of one input.

    columns: those of a flat file, () of nested records. zone: of times that tell none and whose mapping tells none.
    currency: of records that tell none. file: name of the file. where: what errors call the mapping. Raises `BadInput`
    for an expression that cannot be one. fields, at: those of the input's events, and their places in a row. noted: how
    often each note of the mapping holds; not counted of messages.
    """

    def __init__(  # noqa: PLR0913 - by name
        self,
        mapping: InputMapping,
        kind: InputName,
        *,
        columns: Collection[str] = (),
        zone: str = "",
        currency: str = "",
        file: str = "",
        where: str = "mapping",
    ) -> None:
        """Compile every expression."""
        self.mapping, self._kind, self._columns = mapping, kind, columns
        self.currency, self._file, self._row = currency.upper(), file, 0
        self._zone, self._where = mapping.zone or zone, f"{where} [{kind}]"
        self._each = self._compiled(mapping.each) if mapping.each else None
        self._leave_out = [(self._compiled(rule.when), rule.reason) for rule in mapping.leave_out]
        self._notes = [(self._compiled(rule.when), rule.says) for rule in mapping.notes]
        self.noted: Counter[str] = Counter()
        self._variants = [self._variant(event) for event in mapping.events]
        self.fields, self.at = BY_NAME[kind].fields, BY_NAME[kind].places
        order = mapping.fields.get("order_id")
        rule = Rule(expression=order) if isinstance(order, str) else order
        self._order_of = self._compiled(rule.expression) if rule and rule.expression else lambda _: None
        self._place_id = ""
        self._group, self._line = None, 0  # neighbours of one order, and the number of the last one

    def events(self, record: Record, *, place_id: str = "", is_alone: bool = False) -> Iterator[Event | LeftOut]:
        """Make the events of one record.

        is_alone: its neighbours may be others the next time, so that the lines of an order are not counted over them.
        place_id: names the record in ids of events that have neither an id nor an order and a line; "" what they say.
        """
        self._place_id = place_id
        self._row += 1
        if record.values is None:
            yield LeftOut(record.place, "unreadable", record.why)
            return
        # of a message the number would be another one after a restart
        beside: dict[str, Any] = {"file": self._file, "row": place_id or (0 if is_alone else self._row)}
        if self._each is None:
            element = beside | record.values
            line = 0 if is_alone else self._line_of(element)
            self._note(element, is_alone=is_alone)
            yield from self._of_element(record.place, element, line)
            return
        elements = self._each(record.values)
        beside["parent"] = record.values
        if not isinstance(elements, list):
            reason = self._reason_to_leave_out(beside)
            said = f"no {self.mapping.each}", "there is no list of that name"
            yield LeftOut(record.place, *said) if reason is None else LeftOut(record.place, reason, is_error=False)
            return
        for line, element in enumerate(elements, 1):
            place = f"{record.place}, {self.mapping.each} {line}"
            if isinstance(element, dict):
                whole = {**element, **beside, "line": line}
                self._note(whole, is_alone=is_alone)
                yield from self._of_element(place, whole, line)
            else:
                yield LeftOut(place, "unreadable", "is no JSON object")

    def _line_of(self, element: dict[str, Any]) -> int:
        """Count the neighbours of one order, from 1, also those that are left out; 0 where orders have no name."""
        group = self._order_of(element)
        self._line = self._line + 1 if group == self._group else 1
        self._group = group
        return 0 if group is None else self._line

    def _note(self, element: dict[str, Any], *, is_alone: bool) -> None:
        if self._notes and not is_alone:
            self.noted.update(says for when, says in self._notes if holds(when(element)))

    def _reason_to_leave_out(self, element: dict[str, Any]) -> str | None:
        for when, reason in self._leave_out:
            if holds(when(element)):
                return reason
        return None

    def _of_element(self, place: str, element: dict[str, Any], line: int) -> Iterator[Event | LeftOut]:
        reason = self._reason_to_leave_out(element)
        if reason is not None:
            yield LeftOut(place, reason, is_error=False)
            return
        made = False
        for variant in self._variants:
            if variant.when is None or holds(variant.when(element)):
                made = True
                yield self._event(place, element, variant, line)
        if not made:
            yield LeftOut(place, "no event of the mapping applies", is_error=False)

    def _event(self, place: str, element: dict[str, Any], variant: _Variant, line: int) -> Event | LeftOut:
        row: list[Any] = []
        for field, find in variant.fields:
            try:
                value = find(element)
            except Unreadable as error:
                return LeftOut(place, f"{field.name} cannot be read", str(error))
            if value is None and not field.nullable and field.name not in MADE_UP:
                return LeftOut(place, f"no {field.name}")
            row.append(value)
        currency = self.at.get("currency")
        if currency is not None:
            row[currency] = (row[currency] or self.currency).upper()
            if not row[currency]:
                return LeftOut(place, "no currency", "give --currency, or currency in the mapping")
            for at in variant.in_minor_units:
                if row[at] is not None:
                    row[at] = round(row[at] * values.minor_units(row[currency]), DECIMALS)
        self._make_up(row, variant, line)
        return Event(place, tuple(row))

    def _make_up(self, row: list[Any], variant: _Variant, line: int) -> None:
        """Name an event of which the source has no name: by its order and line, else by what it says."""
        at = self.at
        suffix = "" if variant is self._variants[0] else f"/{variant.name}"
        order_id = row[at["order_id"]] if "order_id" in at else None
        if row[at["event_id"]] is None and line and order_id is not None:
            row[at["event_id"]] = f"{order_id}/{line}{suffix}"
        if row[at["event_id"]] is None and self._place_id:
            parts = order_id, self._place_id, str(line or "")
            row[at["event_id"]] = f"{'/'.join(filter(None, parts))}{suffix}"
        if row[at["event_id"]] is None:
            said = [each for name, each in zip(at, row, strict=True) if name not in MADE_UP]
            row[at["event_id"]] = f"{xxh3_128_hexdigest(repr(said).encode())}{suffix}"
        elif suffix and not row[at["event_id"]].endswith(suffix):
            row[at["event_id"]] += suffix
        for name in ("order_id", "session_id"):
            if name in at and row[at[name]] is None:
                row[at[name]] = row[at["event_id"]]

    def _variant(self, event: EventRule) -> _Variant:
        rules = {**self.mapping.fields, **event.fields}
        known = BY_NAME[self._kind].fields
        fields = tuple((field, self._finder(field, rules.get(field.name))) for field in known)
        given = [rules.get(field.name) for field in known]
        minor = tuple(at for at, rule in enumerate(given) if isinstance(rule, Rule) and rule.minor_units)
        return _Variant(event.name, self._compiled(event.when) if event.when else None, fields, minor)

    def _compiled(self, expression: str) -> Getter:
        return compiled(expression, columns=self._columns, where=self._where)

    def _finder(self, field: Field, given: str | Rule | None) -> Find:
        """Make the function that finds one field's value in an element, of the field's own type."""
        if given is None:
            return lambda _: None
        rule = Rule(expression=given) if isinstance(given, str) else given
        read = self.reader(field, rule)
        if rule.constant is not None:
            constant = self._given(field, read, "constant", rule.constant)
            return lambda _: constant
        default = None if rule.default is None else self._given(field, read, "default", rule.default)
        if rule.default is not None and self._columns and rule.expression and rule.expression not in self._columns:
            return lambda _: default  # of a column that not every file has
        get = self._compiled(rule.expression or field.name)
        divisor = self._compiled(rule.divide_by) if rule.divide_by else None
        number = self._number
        shown = rule.expression or field.name
        is_hidden = any(map(is_personal, (field.name, *re.split(r"\W+", shown))))

        def find(element: dict[str, Any]) -> Any:  # noqa: ANN401 - of the field's type
            found = get(element)
            try:
                value = read(found)
            except Unreadable as error:
                # nothing is quoted that may tell of a person: this goes to dead letters, too
                is_shown = not is_hidden and isinstance(found, str | int | float)
                quoted = repr(printable(str(found), _QUOTED)) if is_shown else "not shown"
                msg = f"{shown} is {quoted}, which {error}"
                raise Unreadable(msg) from None
            if value is None:
                return default
            if divisor is not None:
                by = number(divisor(element))
                if not by:
                    msg = f"{shown} cannot be divided by {rule.divide_by}, which is {by}"
                    raise Unreadable(msg)
                value /= by
            return value

        return find

    @property
    def personal_paths(self) -> list[str]:
        """Give the paths of keys in the expressions of fields that tell of a person."""
        found: list[str] = []
        for fields in (self.mapping.fields, *(event.fields for event in self.mapping.events)):
            for name in _PERSONAL.intersection(fields):
                rule = fields[name]
                expression = rule if isinstance(rule, str) else rule.expression
                found += re.findall(r"[A-Za-z_][\w.]*", expression or "")
        return found

    def _given(self, field: Field, read: Callable[[Any], Any], what: str, value: object) -> Any:  # noqa: ANN401
        """Read a value that the mapping itself gives."""
        try:
            found = read(value)
            if found is not None or field.nullable or field.name in MADE_UP:
                return found
            why = "is no value, which events need"
        except Unreadable as error:
            why = str(error)
        msg = f"{self._where}: {what} of {field.name} is {value!r}, which {why}"
        raise BadInput(msg)

    def _number(self, value: object) -> float | None:
        return values.as_number(value, decimal=self.mapping.decimal, thousands=self.mapping.thousands)

    def reader(self, field: Field, rule: Rule) -> Callable[[Any], Any]:
        """Make what reads a value that was found, of the field's own type; `Unreadable` where it is none."""
        if field.name == "event_time_ms":
            form, zone = rule.time or self.mapping.time, rule.zone or self._zone
            return lambda value: values.as_time_ms(value, form=form, zone=zone)
        if field.type == "double":
            scale = rule.scale

            def scaled(value: object) -> float | None:
                number = self._number(value)
                # 1999 * .01 is 19.990000000000002
                return number if number is None or scale == 1 else round(number * scale, DECIMALS)

            return scaled
        if rule.values:
            return lambda value: _translated(values.as_text(value), rule.values)
        return values.as_text


def _translated(text: str | None, known: dict[str, str]) -> str | None:
    if text is None or text in known:
        return None if text is None else known[text]
    msg = f"is none of {', '.join(known)}"
    raise Unreadable(msg)
