"""Dead letters in a file, one JSON object a line, for a person to mend with an editor and to send again."""

from __future__ import annotations

import heapq
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, UnsetType

from schemas.errors import BadInput, Malformed
from schemas.provenance import Source
from schemas.refusals import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_MARK: Final = b"\xef\xbb\xbf"  # some editors begin a file with it


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. place: (written_ms, partition, offset) among the dead letters, the order of their age.

    cut: what it lacks of the original, because that did not fit; empty where it is whole.
    removed_bytes: length of a value that was removed, since it may tell of a person. cloudevent: attributes of a
    CloudEvent that it has in its headers.
    """

    place: tuple[int, int, int]
    source: str
    code: str
    error: str
    key: bytes | None
    value: bytes | None
    cut: str = ""
    removed_bytes: int | None = None
    cloudevent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mended:
    """One line of a file. line: its number, from 1; size: its bytes; cut, cloudevent: see `Letter`."""

    line: int
    size: int
    source: Source
    key: bytes | None
    value: bytes | None
    cut: str = ""
    cloudevent: Mapping[str, str] = field(default_factory=dict)


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line as it is written; key and value are text where they are UTF-8, else Base64 in the field that says so."""

    source: str
    code: str = ""
    error: str = ""
    cut: str | UnsetType = UNSET
    key: str | UnsetType | None = UNSET
    key_base64: bytes | UnsetType = UNSET
    value: str | UnsetType | None = UNSET
    value_base64: bytes | UnsetType = UNSET
    cloudevent: dict[str, str] | UnsetType = UNSET


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(_Line)


def as_line(letter: Letter) -> bytes:
    r"""Write a letter as a line, its end included.

    >>> as_line(Letter((0, 0, 0), "orders[0]@7", "empty", "no value", b"\xff", b"{}"))
    b'{"source":"orders[0]@7","code":"empty","error":"no value","key_base64":"/w==","value":"{}"}\n'
    """
    key, key_base64 = _split(letter.key)
    value, value_base64 = _split(letter.value)
    line = _Line(
        source=letter.source,
        code=letter.code,
        error=letter.error,
        cut=letter.cut or UNSET,
        key=key,
        key_base64=key_base64,
        value=value,
        value_base64=value_base64,
        cloudevent=dict(letter.cloudevent) or UNSET,
    )
    return _ENCODER.encode(line) + b"\n"


def _split(raw: bytes | None) -> tuple[str | UnsetType | None, bytes | UnsetType]:
    try:
        return (None if raw is None else raw.decode()), UNSET
    except UnicodeDecodeError:
        return UNSET, raw or b""


def read(path: Path) -> Iterator[Mended]:
    """Give the letters of a file, line by line; empty lines are passed over.

    `BadInput` names the line that cannot be read, and what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                text = raw.removeprefix(_MARK) if number == 1 else raw
                if text.strip():
                    yield _read_line(path, number, text)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise BadInput(msg) from error


def _read_line(path: Path, number: int, text: bytes) -> Mended:
    where = f"line {number} of {path} cannot be read"
    try:
        line = _DECODER.decode(text)
        source = Source.parse(line.source)
    except (*DECODE_ERRORS, Malformed, ValueError) as error:  # ValueError: a number of thousands of digits
        msg = f"{where}: {error}; a line is one JSON object, as `skutrend dead-letters list --out` writes it"
        raise BadInput(msg) from error
    if (line.value is UNSET) is (line.value_base64 is UNSET):
        msg = f"{where}: it has {'no' if line.value is UNSET else 'both'} `value` and `value_base64`; leave one of them"
        raise BadInput(msg)
    key, value = _joined(line.key, line.key_base64), _joined(line.value, line.value_base64)
    about = {} if isinstance(line.cloudevent, UnsetType) else line.cloudevent
    return Mended(number, len(text), source, key, value, "" if isinstance(line.cut, UnsetType) else line.cut, about)


def _joined(text: str | UnsetType | None, raw: bytes | UnsetType) -> bytes | None:
    if isinstance(text, str):
        return text.encode()
    return None if isinstance(raw, UnsetType) else raw


class Newest:
    """The newest `limit` letters of all that are added; no more are held."""

    def __init__(self, limit: int) -> None:
        """limit: at least 1."""
        self._limit = limit
        self._heap: list[tuple[tuple[int, int, int], Letter]] = []

    def add(self, letter: Letter) -> None:
        """Keep the letter if it is among the newest."""
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, (letter.place, letter))
        else:
            heapq.heappushpop(self._heap, (letter.place, letter))

    def ordered(self) -> list[Letter]:
        """Give them, the newest last."""
        return [letter for _, letter in sorted(self._heap, key=lambda kept: kept[0])]


class Spool:
    """Any number of letters in a temporary file, of which memory holds the places only."""

    def __init__(self, file: IO[bytes]) -> None:
        """file: an empty one, open for reading and writing."""
        self._file = file
        self._index: list[tuple[tuple[int, int, int], int]] = []

    def add(self, letter: Letter) -> None:
        """Put the letter aside."""
        self._index.append((letter.place, self._file.tell()))
        self._file.write(as_line(letter))

    def lines(self) -> Iterator[bytes]:
        """Give the lines, the newest last."""
        for _, at in sorted(self._index):
            self._file.seek(at)
            yield self._file.readline()


@contextmanager
def spool(path: Path) -> Iterator[Spool]:
    """Make a spool beside `path`, which is gone afterwards."""
    with _unwritable(path), tempfile.TemporaryFile(dir=path.absolute().parent) as file:
        yield Spool(file)


def write(path: Path, lines: Iterable[bytes]) -> int:
    """Write a file, all of it or nothing; returns how many lines it has."""
    count = 0
    part = path.with_name(f".{path.name}.part")
    with _unwritable(path):
        try:
            with part.open("wb") as file:
                for line in lines:
                    file.write(line)
                    count += 1
            os.replace(part, path)  # at once, also over a file that is there
        finally:
            part.unlink(missing_ok=True)
    return count


@contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise BadInput(msg) from error
