"""What a change of a row says in events: its own of a new one, the opposite of one that is gone, else a difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec
from xxhash import xxh3_64_hexdigest

from schemas.columns import Refusal
from schemas.inputs import BY_NAME, InputName
from schemas.printable import printable
from schemas.refusals import ID_REUSED
from streams.events.replay import encode_columns
from streams.ingest.envelopes import DELETE, UPDATE, Change
from streams.intake.mapper import DECIMALS, Event, LeftOut, Mapper
from streams.intake.readers import Record

VALUE: Final = "the value"
"""What sentences call the place of an event in its message."""
UNCHANGED: Final = "change that is none of an event"
_SHOWN: Final = 60  # characters of an event id, in sentences
_NEW_ROWS: Final = ("", "c", "r")
_CHANGED_ROWS: Final = (UPDATE, DELETE)
_REPLICA_IDENTITY: Final = "Debezium tells all of it where the table has REPLICA IDENTITY FULL: set that"


class Encoded(NamedTuple):
    """Events as records of an input, and what its decoder refuses of them."""

    keys: list[bytes]
    values: list[bytes]
    refused: list[Refusal]


def encoded(kind: InputName, events: Sequence[Event]) -> Encoded:
    """Encode events (one at the least) as the worker wants them."""
    columns = [list(column) for column in zip(*(event.row for event in events), strict=True)]
    keys, values = encode_columns(kind, columns)
    return Encoded(keys, values, BY_NAME[kind].decode(values)[1])


def events_of(change: Change, mapper: Mapper, kind: InputName, place: str) -> Iterator[Event | LeftOut]:
    """Make the events of a change.

    place: of the message in its topic, which is part of the ids of what is not a row's own, unless the change names its
    position in the database's log: that stays when a connector sends the change again.
    """
    if change.op in _NEW_ROWS:
        if change.after is not None:
            if change.op == "c" and change.position:  # several rows may have one; and all that are read at the start
                place = f"{change.position}/{xxh3_64_hexdigest(msgspec.json.encode(change.after))}"
            yield from mapper.events(Record(VALUE, change.after), place_id=place, is_alone=True)
        return
    if change.op not in _CHANGED_ROWS:
        yield LeftOut("", f"change of kind {change.op!r}", is_error=False)
        return
    if change.before is None:
        yield LeftOut("", "change without the row before", _REPLICA_IDENTITY)
        return
    after = {} if change.after is None else _by_id(mapper, change.after)
    before = _by_id(mapper, change.before)
    if change.before_is_ours:
        after = _judged(after, kind)
        before = {event_id: each for event_id, each in _judged(before, kind).items() if isinstance(each, Event)}
    bad = [each for each in before.values() if isinstance(each, LeftOut) and each.is_error]
    if bad:
        why = ": ".join(filter(None, bad[0][:3]))
        why = why if bad[0].reason == ID_REUSED else f"{why}; {_REPLICA_IDENTITY}"
        yield LeftOut("", "the row before cannot be read", why)
        return  # once both letters are mended, this one's and that of the row before, they add up
    yield from _differences(before, after, BY_NAME[kind].places, change, change.position or place)


def _judged(found: dict[str, Event | LeftOut], kind: InputName) -> dict[str, Event | LeftOut]:
    """Leave those events out that the worker would refuse, and that are sent to nobody."""
    events = [(event_id, each) for event_id, each in found.items() if isinstance(each, Event)]
    if not events:
        return found
    refused = {}
    for refusal in encoded(kind, [event for _, event in events]).refused:
        event_id, event = events[refusal.row]
        refused[event_id] = LeftOut(event.place, refusal.code, refusal.error)
    kept = {event_id: each for event_id, each in found.items() if event_id not in refused}
    return kept | {f"\0{event_id}": each for event_id, each in refused.items()}


def _differences(
    before: dict[str, Event | LeftOut],
    after: dict[str, Event | LeftOut],
    fields: Mapping[str, int],
    change: Change,
    place: str,
) -> Iterator[Event | LeftOut]:
    """Make the events of a changed row, by what its events were and are."""
    was_changed = False
    for event_id, found in (before | after).items():
        old, new = before.get(event_id), after.get(event_id)
        if isinstance(found, LeftOut):
            if new is not None:
                yield found
            continue
        if old == new:
            continue
        for event in _difference(old, new, fields, change, place):
            was_changed = True
            yield event
    if not was_changed:
        yield LeftOut("", UNCHANGED, is_error=False)


def _by_id(mapper: Mapper, row: dict[str, Any]) -> dict[str, Event | LeftOut]:
    """Map a row; what is left out is named by its place, and so is a line with the id of another one.

    Lines that have no ids of their own and say the same are numbered.
    """
    found: dict[str, Event | LeftOut] = {}
    has_ids = "event_id" in mapper.mapping.fields
    for at, each in enumerate(mapper.events(Record(VALUE, row), is_alone=True)):
        if isinstance(each, LeftOut):
            found[f"\0{each.place}"] = each
        elif each.row[0] not in found:
            found[each.row[0]] = each
        elif has_ids:
            shown = printable(each.row[0], _SHOWN)
            why = f"event_id {shown!r} is that of another line, too: it must be unique per line"
            found[f"\0{at}"] = LeftOut(each.place, ID_REUSED, why)
        else:
            event_id = next(name for n in count(2) if (name := f"{each.row[0]}/{n}") not in found)
            found[event_id] = _as(each, {0: event_id})
    return found


def _difference(
    old: Event | LeftOut | None, new: Event | LeftOut | None, fields: Mapping[str, int], change: Change, place: str
) -> Iterator[Event]:
    """Take the old event back and let the new one happen, as far as they differ; only order lines can be taken back."""
    quantity, time = fields.get("quantity"), fields["event_time_ms"]
    was, now = (each if isinstance(each, Event) else None for each in (old, new))
    if now is not None and (was is None or quantity is None):
        yield _as(now, {time: change.at_ms or now.row[time], 0: f"{now.row[0]}/change/{place}"})
        return
    if was is None or quantity is None:
        return
    gone = {quantity: -was.row[quantity], time: change.at_ms or was.row[time], 0: f"{was.row[0]}/gone/{place}"}
    if now is None:
        yield _as(was, gone)
        return
    happened = {time: change.at_ms or now.row[time], 0: f"{now.row[0]}/change/{place}"}
    if any(was.row[fields[name]] != now.row[fields[name]] for name in ("sku", "unit_price", "currency")):
        yield _as(now, happened)
        yield _as(was, gone)
    elif now.row[quantity] != was.row[quantity]:
        yield _as(now, happened | {quantity: round(now.row[quantity] - was.row[quantity], DECIMALS)})


def _as(event: Event, changes: Mapping[int, Any]) -> Event:
    return Event(event.place, tuple(changes.get(at, value) for at, value in enumerate(event.row)))
