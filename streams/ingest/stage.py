"""A batch of messages made into events and letters; no Kafka here, nothing is kept from one batch to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from schemas.errors import BadSetting
from schemas.inputs import InputName
from schemas.personal import letters_of
from streams.ingest.changes import VALUE, encoded, events_of
from streams.ingest.envelopes import DELETE, UPDATE, Change, Decode, Headers, NotReadable, opened
from streams.intake.columnar import Columnar
from streams.intake.convert import Local
from streams.intake.mapper import Event, Mapper, Rows
from streams.intake.mapping import Envelope, MappingFile
from streams.intake.readers import without

if TYPE_CHECKING:
    from streams.ingest.registry import Registry

UNMAPPED: Final = "unmapped"
_FORMATS: Final = "json, json_schema, avro or protobuf"
NOT_JSON: Final = "not_json"
TOMBSTONE: Final = "message without a value"
GONE: Final = b""
"""What stands for the state of a key whose latest message has no value."""
_NO_KEY: Final = "the message has no key, and of an upsert topic only the key says which row it tells of"
States = dict[tuple[str, int], dict[bytes, bytes]]
"""The latest value of keys, by topic and partition."""
Lookup = Callable[[str, int, bytes], "bytes | None"]


class Message(Protocol):
    """What is asked of confluent_kafka's messages."""

    def topic(self) -> str:
        """Name the topic."""

    def key(self) -> bytes | None:
        """Give the key."""

    def value(self) -> bytes | None:
        """Give the value."""

    def headers(self) -> Sequence[tuple[str, bytes | None]] | None:
        """Give the headers."""

    def partition(self) -> int:
        """Give the partition."""

    def offset(self) -> int:
        """Give the offset."""

    def timestamp(self) -> tuple[int, int]:
        """Give its kind, 0 where there is none, and epoch ms."""


class Letter(NamedTuple):
    """A message of which something could not be used: its place in the batch, the code, and a sentence."""

    at: int
    code: str
    error: str


@dataclass
class Made:
    """What a batch makes: records by input (keys, values), letters, and what was left out, by reason.

    states: what keys of upsert topics say now.
    """

    records: dict[InputName, tuple[list[bytes], list[bytes]]] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    states: States = field(default_factory=dict)
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

    def open(self, value: bytes, headers: Headers) -> Change:
        """Take a message's value out of its envelope, without what stands for no value, as reading files does.

        "" does so anyhow. Raises `NotReadable`.
        """
        change = opened(value, headers, self.envelope, self.decode)
        if not self.missing:
            return change
        return change._replace(after=without(change.after, self.missing), before=without(change.before, self.missing))


class Stage:
    """Maps messages by the topic that they come from.

    A message of which several events were made and one cannot be is a letter, and the others go out: sent again once
    mended, they have the same ids. upserts: the topics whose values are the latest state of their key's row.
    personal: the fields of messages from which the mapping takes persons, by `letters_of`.
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
        self.upserts = frozenset(
            topic for topic, sources in self._sources.items() if any(source.envelope == "upsert" for source in sources)
        )
        for topic in self.upserts:
            if any(source.envelope != "upsert" for source in self._sources[topic]):
                msg = f'{mapping.name}: inputs that read {topic} must all have it in the envelope "upsert", or none'
                raise BadSetting(msg)
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

    def run(self, messages: Sequence[Message], latest: Lookup = lambda *_: None) -> Made:
        """Map a batch, in its order. `Unavailable` where the schema registry cannot say just now what it holds.

        latest: gives what a key of an upsert topic said last before this batch, None where it never said anything.
        """
        made = Made()
        read: dict[tuple[str, int], list[tuple[int, Change]]] = {}
        for at, message in enumerate(messages):
            for number, change in self._changes(at, message, made, latest):
                read.setdefault((message.topic(), number), []).append((at, change))
        rows: dict[InputName, list[tuple[int, Event]]] = {}
        for (topic, number), changes in read.items():
            source = self._sources[topic][number]
            rows.setdefault(source.kind, []).extend(self._map(source, changes, messages, made))
        for kind, found in rows.items():
            self._encode(kind, sorted(found, key=itemgetter(0)), made)
        made.letters.sort(key=lambda letter: letter.at)
        return made

    def states(self, messages: Sequence[Message]) -> States:
        """Give what messages of upsert topics leave as the latest of their keys; raises what `run` does."""
        made = Made()
        for at, message in enumerate(messages):
            for _ in self._upserted(at, message, made, lambda *_: None):
                pass
        return made.states

    def _changes(self, at: int, message: Message, made: Made, latest: Lookup) -> Iterator[tuple[int, Change]]:
        """Read a message, by the number of the source."""
        topic = message.topic()
        if topic in self.upserts:
            yield from self._upserted(at, message, made, latest)
        elif message.value() is None:
            made.left_out[TOMBSTONE] += 1
        else:
            for number, source in enumerate(self._sources[topic]):
                change = _read(source, at, message, made)
                if change is not None:
                    yield number, change

    def _upserted(self, at: int, message: Message, made: Made, latest: Lookup) -> Iterator[tuple[int, Change]]:
        """Read how a row is now, beside how it was when its key came last."""
        topic, partition, key = message.topic(), message.partition(), message.key()
        if key is None:
            made.add_letter(at, UNMAPPED, _NO_KEY)
            return
        states = made.states.setdefault((topic, partition), {})
        before = states[key] if key in states else latest(topic, partition, key)
        sources, value = self._sources[topic], message.value()
        if value is None:
            states[key] = GONE
            if not before:
                made.left_out[TOMBSTONE] += 1
                return
        now = []
        for source in sources:
            change = Change(None) if value is None else _read(source, at, message, made)
            if change is None:  # what this key says next is told by what it said before this
                return
            now.append(change)
        if value is not None:
            states[key] = value
        for number, (source, change) in enumerate(zip(sources, now, strict=True)):
            yield number, change if before is None else _since(before, change, source, message)

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
                    yield at, Event(VALUE, row)
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
        found = encoded(kind, [event for _, event in events])
        for refusal in found.refused:
            at, event = events[refusal.row]
            made.add_letter(at, refusal.code, f"{event.place}: {refusal.error}")
        bad = {refusal.row for refusal in found.refused}
        good = [row for row in range(len(events)) if row not in bad]
        into = made.records.setdefault(kind, ([], []))
        into[0].extend(found.keys[row] for row in good)
        into[1].extend(found.values[row] for row in good)


def _read(source: Source, at: int, message: Message, made: Made) -> Change | None:
    """Take a message's value out of its envelope; None where it is a letter."""
    try:
        return source.open(message.value() or b"", message.headers() or ())
    except NotReadable as error:
        made.add_letter(at, NOT_JSON if source.decode is None else UNMAPPED, str(error))
        return None


def _since(before: bytes, now: Change, source: Source, message: Message) -> Change:
    """Tell how a row is now beside what its key said before."""
    try:
        was = source.open(before, ()).after if before else {}
    except NotReadable:  # by a mapping that was another one then
        was = {}
    kind, at_ms = message.timestamp()
    op = DELETE if now.after is None else UPDATE
    return Change(now.after, was or {}, op, at_ms if kind else None, before_is_ours=True)


def _place_of(message: Message) -> str:
    """Name the place of a message, for ids."""
    return f"{message.topic()}/{message.partition()}@{message.offset()}"
