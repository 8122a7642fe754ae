"""The `dead-letters replay` command: mended letters go back to where they came from, each of them once.

Letters of a bus's topics are not written to the bus again, which is somebody else's: they are mapped as
`skutrend ingest` maps them, and their events go to the input topics.

The events and, per letter, a marker under its source are one Kafka transaction. Whoever runs the command claims the
transactional id of the group before reading the markers: a run before it is then over, and what that has sent is either
marked, or was never sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from schemas.errors import BadInput
from schemas.inputs import BY_NAME, INPUT_NAMES
from schemas.refusals import DECODE_ERRORS, sku_complaint
from streams.dead_letters import letter_files
from streams.dead_letters.letter_files import Mended
from streams.ingest.envelopes import CE
from streams.ingest.registry import Registry
from streams.ingest.stage import Made, Stage
from streams.kafka import topics
from streams.kafka.output_producer import OutputProducer
from streams.kafka.partition_reader import Reader
from streams.observe.progress import track_progress

if TYPE_CHECKING:
    from streams.intake.convert import Local
    from streams.intake.mapping import MappingFile
    from streams.settings import Settings

REPLAYED_FROM: Final = "replayed_from"
CLAIM_S: Final = 60.0
SETTLE_S: Final = 60.0
ABANDON_S: Final = 10.0
_NAMED: Final = 5
_AGAIN: Final = (
    "what its key says next is told by its latest usable state: write the row to that topic again, as it is now"
)


class _AboutSku(msgspec.Struct):
    sku: str


_SKU: Final = msgspec.json.Decoder(_AboutSku)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay has done. skipped: letters that had been sent before."""

    sent: int
    skipped: int


class BusLetter(NamedTuple):
    """A letter as the stage takes messages."""

    letter: Mended

    def topic(self) -> str:
        """Name the topic that it came from."""
        return self.letter.source.topic

    def key(self) -> bytes | None:
        """Give the key as it is mended."""
        return self.letter.key

    def value(self) -> bytes | None:
        """Give the value as it is mended."""
        return self.letter.value

    def headers(self) -> list[tuple[str, bytes | None]]:
        """Give those of a CloudEvent: a file of letters has no others."""
        return [(f"{CE}{name}", value.encode()) for name, value in self.letter.cloudevent.items()]

    def partition(self) -> int:
        """Give the partition that it came from."""
        return self.letter.source.partition

    def offset(self) -> int:
        """Give the offset that it had."""
        return self.letter.source.offset

    def timestamp(self) -> tuple[int, int]:
        """Give none: a file of letters does not tell it."""
        return 0, -1


class Routes:
    """What becomes of letters: by the topic that they came from, which is an input or one of the bus."""

    def __init__(self, settings: Settings, bus: tuple[MappingFile, Local] | None) -> None:
        """bus: how letters of the bus's topics are mapped; None where there are none."""
        self._settings = settings
        self._kinds = {settings.topic(name): name for name in INPUT_NAMES}
        self._stage = None if bus is None else Stage(*bus, lambda: Registry(settings.schema_registry))
        self._upserts = frozenset() if self._stage is None else self._stage.upserts
        self.topics = [*self._kinds, *(() if self._stage is None else self._stage.topics)]

    def events(self, letter: Mended) -> list[tuple[str, bytes | None, bytes | None]]:
        """Give what goes out for a letter: (topic, key, value)."""
        if letter.source.topic in self._kinds:
            return [(letter.source.topic, sku_of(letter.value) or letter.key, letter.value)]
        if letter.source.topic in self._upserts:
            return []
        return [
            (self._settings.topic(kind), key, value)
            for kind, records in self._made(letter).records.items()
            for key, value in zip(*records, strict=True)
        ]

    def complaints(self, letter: Mended) -> list[str]:
        """Say why a letter is still unusable."""
        if letter.source.topic in self._upserts:
            return [_AGAIN]
        kind = self._kinds.get(letter.source.topic)
        if kind is None and letter.value is None:
            return ["its value was removed, since it may tell of a person: take it from its source"]
        if kind is None:
            return [f"{each.code}: {each.error}" for each in self._made(letter).letters]
        return [f"{each.code}: {each.error}" for each in BY_NAME[kind].decode([letter.value])[1]]

    def _made(self, letter: Mended) -> Made:
        assert self._stage is not None  # noqa: S101 - else its topic were none of ours
        return self._stage.run([BusLetter(letter)])


def replay_letters(
    settings: Settings, path: Path, *, force: bool = False, bus: tuple[MappingFile, Local] | None = None
) -> Outcome:
    """Send the letters of a file again, each once however often this is called.

    bus: how letters of a bus's topics are mapped.
    force: also those whose value the decoder of their topic still refuses, but none that is not whole. `BadInput` where
    the file cannot be used, before anything is sent; `BrokerTrouble`, `FlushFailed` and `Fenced` (by another run) leave
    nothing sent either.
    """
    routes = Routes(settings, bus)
    checked = _checked(routes, path, force=force)
    inputs = {settings.topic(name) for name in INPUT_NAMES}
    came_from = {source.partition("[")[0] for source in checked}
    for topic in sorted(came_from & inputs | (inputs if came_from - inputs else set())):
        topics.partition_count(settings.client, topic)  # one that is missing is said before anything is sent
    producer = OutputProducer(
        {**settings.client, "partitioner": "murmur2_random"},
        on_error=lambda _: None,  # what matters comes back from `init_transactions` and `commit`
        transactional_id=transactional_id(settings),
    )
    try:
        producer.init_transactions(CLAIM_S)
        done = _marked(settings, checked.keys())
        try:
            return _send(routes, path, producer, markers=markers_topic(settings), checked=checked, done=done)
        except BaseException:
            producer.abort(ABANDON_S)
            raise
    finally:
        producer.close()


def transactional_id(settings: Settings) -> str:
    """Name what only one replay of a group can hold at a time."""
    return settings.transactional_id("replay")


def markers_topic(settings: Settings) -> str:
    """Name the compacted topic that holds a record per letter that was sent again, under its source."""
    return settings.output(f"skutrend-{settings.group}-replayed")


def _checked(routes: Routes, path: Path, *, force: bool) -> dict[str, bytes]:
    """Read the whole file and give each source's digest; `BadInput` tells what is wrong with it."""
    seen: dict[str, bytes] = {}
    unusable: list[str] = []
    hopeless: list[str] = []  # of which no event can be made
    for letter in _read(path, "checking"):
        if letter.source.topic not in routes.topics:
            msg = (
                f"line {letter.line} of {path} comes from {letter.source}, which is none of the topics that are known "
                f"({', '.join(routes.topics)}); see SKUTREND_TOPIC_PREFIX, give the --mapping of `skutrend ingest`, or "
                "take the line out"
            )
            raise BadInput(msg)
        if letter.cut:
            msg = (
                f"line {letter.line} of {path} is not all of {letter.source}, the dead letter lacks {letter.cut}: take "
                "the line out and let the producer send it again, or put the whole key and value into the line and "
                "take `cut` out"
            )
            raise BadInput(msg)
        digest = _digest(letter)
        if seen.setdefault(str(letter.source), digest) != digest:
            # the same twice is what a crash of the worker may leave
            msg = f"{letter.source} is in {path} more than once, and line {letter.line} differs; leave one of them"
            raise BadInput(msg)
        if complaints := [f"{letter.source} in line {letter.line} ({why})" for why in routes.complaints(letter)]:
            unusable += complaints
            hopeless += complaints if not routes.events(letter) else []
    if force and hopeless:
        msg = (
            f"nothing was sent, since no event can be made of {'; '.join(hopeless[:_NAMED])}: mend them, or take their "
            "lines out"
        )
        raise BadInput(msg)
    if unusable and not force:
        more = f" and {len(unusable) - _NAMED:,} more" if len(unusable) > _NAMED else ""
        msg = (
            f"nothing was sent, since {path} has letters that are still unusable: "
            f"{'; '.join(unusable[:_NAMED])}{more}; "
            "mend them, take their lines out, or send them as they are with --force"
        )
        raise BadInput(msg)
    return seen


def _digest(letter: Mended) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode((letter.key, letter.value, letter.cloudevent))).digest()


def _marked(settings: Settings, sources: KeysView[str]) -> set[str]:
    """Give those of the sources that carry a marker."""
    topic = markers_topic(settings)
    found: set[str] = set()
    for number in range(topics.ensure_replayed(settings.client, topic)):
        reader = Reader(settings.client, topic, number, what="the topic")
        try:
            low, high = reader.bounds()
            with track_progress(f"reading {topic}", high - low) as advance:
                for messages in reader.records(low, high):
                    found |= sources & {(message.key() or b"").decode("utf-8", "replace") for message in messages}
                    advance(len(messages))
        finally:
            reader.close()
    return found


def _send(
    routes: Routes, path: Path, producer: OutputProducer, *, markers: str, checked: Mapping[str, bytes], done: set[str]
) -> Outcome:
    sent = skipped = 0
    for letter in _read(path, "sending"):
        source = str(letter.source)
        if checked.get(source) != _digest(letter):
            msg = f"nothing was sent, since {path} was changed at line {letter.line} meanwhile; run this again"
            raise BadInput(msg)
        if source in done:
            skipped += 1
            continue
        done.add(source)
        for topic, key, value in routes.events(letter):
            producer.put_one(topic, key, value, [(REPLAYED_FROM, source.encode())])
        producer.put_one(markers, source.encode(), letter.source.topic.encode())
        sent += 1
    producer.commit(SETTLE_S)
    return Outcome(sent, skipped)


def _read(path: Path, doing: str) -> Iterator[Mended]:
    with track_progress(f"{doing} {path.name} (bytes)", path.stat().st_size) as advance:
        for letter in letter_files.read(path):
            advance(letter.size)
            yield letter


def sku_of(value: bytes | None) -> bytes | None:
    """Find the SKU in a value, also in one that is no event otherwise; None where there is none that could serve.

    >>> sku_of(b'{"sku": "22423", "quantity": "?"}')
    b'22423'
    """
    try:
        sku = _SKU.decode(value or b"").sku
    except DECODE_ERRORS:
        return None
    return None if sku_complaint(sku) else sku.encode()
