"""The `dead-letters` commands, the reading half: what lies among the dead letters, and into which file to mend it."""

from __future__ import annotations

import textwrap
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from features import dates
from schemas.errors import Malformed
from schemas.printable import printable
from schemas.provenance import Source, left_out, read_dead_letter_headers
from streams.config.personal import REMOVED_BYTES
from streams.dead_letters import letter_files
from streams.dead_letters.letter_files import Letter, Newest
from streams.ingest.envelopes import attributes
from streams.kafka import topics
from streams.kafka.partition_reader import Reader
from streams.observe.progress import track_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from confluent_kafka import Message

    from streams.settings import Settings

WIDTH: Final = 80
UNREADABLE: Final = "unreadable_headers"
"""Code shown of records among the dead letters that no worker has put there."""
_INDENT: Final = " " * 4
_SIZE_DIGITS: Final = 9


def list_letters(
    settings: Settings, *, code: str | None, limit: int, out: Path | None = None, all_out: bool = False
) -> Iterator[str]:
    """Give the lines that tell a person of the newest `limit` letters, the newest last, and of how many there are.

    code: only these. out: where to write the same letters for `dead-letters replay`; with all_out those beyond
    `limit` too. Raises `BrokerTrouble`, and `BadInput` where `out` cannot be written.
    """
    topic = settings.output(topics.DEAD_LETTERS)
    newest, counts = Newest(limit), Counter[str]()
    with letter_files.spool(out) if out is not None and all_out else nullcontext() as spool:
        for letter in read(settings):
            if code is None or letter.code == code:
                counts[letter.code] += 1
                newest.add(letter)
                if spool is not None:
                    spool.add(letter)
        shown = newest.ordered()
        written = 0
        if out is not None:
            lines = map(letter_files.as_line, shown) if spool is None else spool.lines()
            written = letter_files.write(out, lines)
    for letter in shown:
        yield from describe(letter, settings.timezone)
    yield from _counted(topic, counts, code=code, shown=len(shown))
    if out is not None:
        yield f"{written:,} written to {out}; mend their `value`, then `skutrend dead-letters replay {out}`"


def read(settings: Settings) -> Iterator[Letter]:
    """Give every letter that is committed, partition by partition, up to the present ends."""
    topic = settings.output(topics.DEAD_LETTERS)
    readers = [
        Reader(settings.client, topic, number, what="the topic")
        for number in range(topics.partition_count(settings.client, topic))
    ]
    try:
        bounds = [reader.bounds() for reader in readers]
        with track_progress(f"reading {topic}", sum(high - low for low, high in bounds)) as advance:
            for reader, (low, high) in zip(readers, bounds, strict=True):
                yield from _up_to(reader, low, high, advance)
    finally:
        for reader in readers:
            reader.close()


def _up_to(reader: Reader, low: int, high: int, advance: Callable[[int], None]) -> Iterator[Letter]:
    at = low
    for messages in filter(None, reader.records(low, high)):
        for message in messages:
            if message.offset() < high:
                yield as_letter(message)
        advance(messages[-1].offset() + 1 - at)
        at = messages[-1].offset() + 1
        if at >= high:  # what comes while we read would else keep us for ever
            return


def as_letter(message: Message) -> Letter:
    """Read a record of the dead letters, also one that nobody of ours has written."""
    place = (message.timestamp()[1], message.partition(), message.offset())
    try:
        said = read_dead_letter_headers(message.headers() or [])
        source, code, error = said.source, said.code, said.error
    except Malformed as trouble:
        own = Source(topic=message.topic(), partition=message.partition(), offset=message.offset())
        source, code, error = str(own), UNREADABLE, str(trouble)
    cut = left_out(message.headers() or [])
    about = attributes(message.headers() or ())
    return Letter(place, source, code, error, message.key(), message.value(), cut, _removed_bytes(message), about)


def _removed_bytes(message: Message) -> int | None:
    said = dict(message.headers() or []).get(REMOVED_BYTES) or b""
    return int(said) if said.isdigit() and len(said) <= _SIZE_DIGITS else None


def describe(letter: Letter, timezone: str = "UTC") -> Iterator[str]:
    """Give the lines that tell of one letter, each of at most `WIDTH` characters; timezone: the shop's."""
    key = "no key" if letter.key is None else f"key {_beginning(letter.key, 24)[0]}"
    yield from _wrapped(
        f"{dates.stamp(letter.place[0], timezone)}  {letter.code}  {letter.source}  {key}", later=_INDENT
    )
    yield from _wrapped(letter.error, first=_INDENT, later=_INDENT)
    if letter.cut:
        yield from _wrapped(f"not whole, it lacks {letter.cut}", first=_INDENT, later=_INDENT)
    if letter.value is None and letter.removed_bytes is not None:
        yield f"{_INDENT}({letter.removed_bytes:,} bytes removed that may tell of a person; see the source)"
    else:
        yield _INDENT + _value(letter.value)


def _value(value: bytes | None) -> str:
    if value is None:
        return "(no value)"
    text, is_whole = _beginning(value, WIDTH - len(_INDENT))
    if is_whole:
        return text or "(empty value)"
    size = f"  ({len(value):,} bytes)"
    return _beginning(value, WIDTH - len(_INDENT) - len(size))[0] + size


def _beginning(raw: bytes, room: int) -> tuple[str, bool]:
    """Give the beginning as printable text of at most `room` characters, and whether that is all."""
    text = raw[: 4 * room + 4].decode("utf-8", "backslashreplace")  # at least a character more than there is room for
    shown = printable(text, room)
    return shown, shown == printable(text)


def _wrapped(text: str, *, first: str = "", later: str = "") -> list[str]:
    return textwrap.wrap(printable(text), WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def _counted(topic: str, counts: Counter[str], *, code: str | None, shown: int) -> Iterator[str]:
    total = sum(counts.values())
    what = "dead letter" if total == 1 else "dead letters"
    of_code = "" if code is None else f" of code {code}"
    left = "" if shown == total else f", the newest {shown:,} shown"
    yield f"{total:,} {what}{of_code} in {topic}{left}"
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield f"{count:>9,}  {printable(name)}"
