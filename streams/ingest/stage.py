"""A batch of messages made into events and letters; no Kafka here, nothing is kept from one batch to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec
from xxhash import xxh3_64_hexdigest

from schemas.errors import BadSetting
from schemas.inputs import BY_NAME, InputName
from schemas.personal import letters_of
from schemas.printable import printable
from schemas.refusals import ID_REUSED
from streams.events.replay import encode_columns
from streams.ingest.envelopes import DELETE, Change, Decode, NotReadable, opened
from streams.intake.columnar import Columnar
from streams.intake.convert import Local
from streams.intake.mapper import DECIMALS, Event, LeftOut, Mapper, Rows
from streams.intake.mapping import Envelope, MappingFile
from streams.intake.readers import Record, without

if TYPE_CHECKING:
    from streams.ingest.registry import Registry

UNMAPPED: Final = "unmapped"
_FORMATS: Final = "json, json_schema, avro or protobuf"
NOT_JSON: Final = "not_json"
TOMBSTONE: Final = "message without a value"
_PLACE: Final = "the value"
_SHOWN: Final = 60  # characters of an event id, in sentences
UNCHANGED: Final = "change that is none of an event"
_NEW_ROWS: Final = ("", "c", "r")
_CHANGED_ROWS: Final = ("u", DELETE)
_REPLICA_IDENTITY: Final = "Debezium tells all of it where the table has REPLICA IDENTITY FULL: set that"


class Message(Protocol):
    """What is asked of confluent_kafka's messages."""

    def topic(self) -> str:
        """Name the topic."""

    def value(self) -> bytes | None:
        """Give the value."""

    def headers(self) -> Sequence[tuple[str, bytes | None]] | None:
        """Give the headers."""

    def partition(self) -> int:
        """Give the partition."""

    def offset(self) -> int:
        """Give the offset."""


class Letter(NamedTuple):
    """A message of which something could not be used: its place in the batch, the code, and a sentence."""

    at: int
    code: str
    error: str


@dataclass
class Made:
    """What a batch makes: records by input (keys, values), letters, and what was left out, by reason."""

    records: dict[InputName, tuple[list[bytes], list[bytes]]] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    _lettered: set[int] = field(default_factory=set)

    def add_letter(self, at: int, code: str, error: str) -> None:
        """Add the letter of a message, unless it has one."""
        if at not in self._lettered:
            self._lettered.add(at)
            self.letters.append(Letter(at, code, error))


class Source(NamedTuple):
    """How the messages of a topic become events of an input; one topic may hold those of several inputs.

    decode: None where they are JSON. columnar: for many at once, if it can. missing: texts that stand for no value.
    """

    kind: InputName
    mapper: Mapper
    envelope: Envelope
    decode: Decode | None
    columnar: Columnar | None
    missing: frozenset[str]

    def without_missing(self, change: Change) -> Change:
        """Take out of rows what stands for no value, as reading files does; "" does so anyhow."""
        if not self.missing:
            return change
        return change._replace(after=without(change.after, self.missing), before=without(change.before, self.missing))


class Stage:
    """Maps messages by the topic that they come from.

    A message of which several events were made and one cannot be is a letter, and the others go out: sent again once
    mended, they have the same ids. personal: the fields of messages from which the mapping takes persons, by
    `letters_of`.
    """

    def __init__(self, mapping: MappingFile, local: Local, registry: Callable[[], Registry] | None = None) -> None:
        """Compile the mapping; every input that names topics takes part.

        registry: makes what decodes formats that need one. `BadSetting` for a format that no message has.
        """
        self._sources: dict[str, list[Source]] = {}
        decoders = dict.fromkeys(("json", "jsonl", "json_schema"), None) | self._decoders(mapping, registry)
        for kind, rules in mapping.inputs.items():
            if rules.topics and rules.format not in decoders:
                msg = f"{mapping.name}: [{kind}] reads topics in format {rules.format!r}; messages are {_FORMATS}"
                raise BadSetting(msg)
            for topic in rules.topics:
                mapper = Mapper(rules, kind, zone=local.zone, currency=local.currency, file=topic, where=mapping.name)
                columnar = Columnar.of(mapper) if rules.envelope == "none" else None
                missing = frozenset(rules.missing) - {""}
                source = Source(kind, mapper, rules.envelope, decoders[rules.format], columnar, missing)
                self._sources.setdefault(topic, []).append(source)
        self.personal = frozenset(
            letters_of(part.rpartition(".")[2])
            for sources in self._sources.values()
            for source in sources
            for part in source.mapper.personal_paths
        )

    @staticmethod
    def _decoders(mapping: MappingFile, registry: Callable[[], Registry] | None) -> dict[str, Decode | None]:
        """Make the decoders that need a registry, where a topic does."""
        formats = {rules.format for rules in mapping.inputs.values() if rules.topics}
        if registry is None or not formats & {"avro", "protobuf"}:
            return {}
        made = registry()
        return {"avro": partial(made.decode, kind="avro"), "protobuf": partial(made.decode, kind="protobuf")}

    @property
    def topics(self) -> list[str]:
        """Name the topics that are read."""
        return sorted(self._sources)

    def run(self, messages: Sequence[Message]) -> Made:
        """Map a batch, in its order. `Unavailable` where the schema registry cannot say just now what it holds."""
        made = Made()
        read: dict[tuple[str, int], list[tuple[int, Change]]] = {}
        for at, message in enumerate(messages):
            topic, value = message.topic(), message.value()
            if value is None:
                made.left_out[TOMBSTONE] += 1
                continue
            for number, source in enumerate(self._sources[topic]):
                try:
                    change = opened(value, message.headers() or (), source.envelope, source.decode)
                except NotReadable as error:
                    made.add_letter(at, NOT_JSON if source.decode is None else UNMAPPED, str(error))
                else:
                    read.setdefault((topic, number), []).append((at, source.without_missing(change)))
        rows: dict[InputName, list[tuple[int, Event]]] = {}
        for (topic, number), changes in read.items():
            source = self._sources[topic][number]
            rows.setdefault(source.kind, []).extend(self._map(source, changes, messages, made))
        for kind, found in rows.items():
            self._encode(kind, sorted(found, key=itemgetter(0)), made)
        made.letters.sort(key=lambda letter: letter.at)
        return made

    @staticmethod
    def _map(
        source: Source, changes: list[tuple[int, Change]], messages: Sequence[Message], made: Made
    ) -> Iterator[tuple[int, Event]]:
        """Map what was read of one topic, many at once where that is possible."""
        known: list[Rows | None] = [None] * len(changes)
        if source.columnar is not None:
            known = source.columnar.run([change.after or {} for _, change in changes])
        for (at, change), rows in zip(changes, known, strict=True):
            if rows is not None:
                for row in rows:
                    yield at, Event(_PLACE, row)
                continue
            for found in events_of(change, source.mapper, source.kind, _place_of(messages[at])):
                if isinstance(found, Event):
                    yield at, found
                elif found.is_error:
                    made.add_letter(at, UNMAPPED, ": ".join(filter(None, found[:3])))
                else:
                    made.left_out[found.reason] += 1

    def _encode(self, kind: InputName, events: list[tuple[int, Event]], made: Made) -> None:
        """Encode events as the worker wants them; what it would refuse makes a letter."""
        if not events:
            return
        columns = [list(column) for column in zip(*(event.row for _, event in events), strict=True)]
        keys, values = encode_columns(kind, columns)
        refused = BY_NAME[kind].decode(values)[1]
        for refusal in refused:
            at, event = events[refusal.row]
            made.add_letter(at, refusal.code, f"{event.place}: {refusal.error}")
        bad = {refusal.row for refusal in refused}
        good = [row for row in range(len(events)) if row not in bad]
        into = made.records.setdefault(kind, ([], []))
        into[0].extend(keys[row] for row in good)
        into[1].extend(values[row] for row in good)


def _place_of(message: Message) -> str:
    """Name the place of a message, for ids."""
    return f"{message.topic()}/{message.partition()}@{message.offset()}"


def events_of(change: Change, mapper: Mapper, kind: InputName, place: str) -> Iterator[Event | LeftOut]:
    """Make the events of a change: of a new row its own, of one that is gone their opposite, else what is different.

    place: of the message in its topic, which is part of the ids of what is not a row's own, unless the change names its
    position in the database's log: that stays when a connector sends the change again.
    """
    if change.op in _NEW_ROWS:
        if change.after is not None:
            if change.op == "c" and change.position:  # several rows may have one; and all that are read at the start
                place = f"{change.position}/{xxh3_64_hexdigest(msgspec.json.encode(change.after))}"
            yield from mapper.events(Record(_PLACE, change.after), place_id=place, is_alone=True)
        return
    if change.op not in _CHANGED_ROWS:
        yield LeftOut("", f"change of kind {change.op!r}", is_error=False)
        return
    if change.before is None:
        yield LeftOut("", "change without the row before", _REPLICA_IDENTITY)
        return
    after = {} if change.after is None else _by_id(mapper, change.after)
    before = _by_id(mapper, change.before)
    bad = [each for each in before.values() if isinstance(each, LeftOut) and each.is_error]
    if bad:
        why = ": ".join(filter(None, bad[0][:3]))
        why = why if bad[0].reason == ID_REUSED else f"{why}; {_REPLICA_IDENTITY}"
        yield LeftOut("", "the row before cannot be read", why)
        return  # once both letters are mended, this one's and that of the row before, they add up
    yield from _differences(before, after, BY_NAME[kind].places, change, change.position or place)


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
    for at, each in enumerate(mapper.events(Record(_PLACE, row), is_alone=True)):
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
