"""Files of other systems, read record by record in bounded memory: CSV of any dialect, JSON, JSON lines, Parquet."""

from __future__ import annotations

import codecs
import csv
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow.parquet as pq

from schemas.errors import BadInput
from streams.events.files import blaming
from streams.intake import avro
from streams.intake.expressions import compiled
from streams.intake.mapping import FillDown, Format, InputMapping

_BLOCK_BYTES: Final = 1 << 20
_DELIMITERS: Final = ",;\t|"
_BATCH_ROWS: Final = 8_192
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
FALLBACK_ENCODING: Final = "cp1252"
"""What spreadsheets on Windows write where it is no UTF-8."""


class OtherShape(BadInput):
    """A document without the records that a mapping expects: it may be one of another mapping."""


class Record(NamedTuple):
    """One record of a file: where it stands, such as "line 7", and what it holds; None and why if unreadable."""

    place: str
    values: dict[str, Any] | None
    why: str = ""


class Opened(NamedTuple):
    """A file that was looked into: its columns (of JSON the keys of the first record), its records, and notes.

    is_flat: whether every record has these columns and no others.
    """

    columns: tuple[str, ...]
    records: Iterator[Record]
    notes: tuple[str, ...] = ()
    is_flat: bool = False


def opened(path: Path, mapping: InputMapping) -> Opened:
    """Look into a file and be ready to read it; `BadInput` names it where it cannot be read."""
    with blaming(path):
        found = _READERS[mapping.format](path, mapping)
    return found._replace(records=_blamed(path, found.records))


def _blamed(path: Path, records: Iterator[Record]) -> Iterator[Record]:
    with blaming(path):
        yield from records


def _csv(path: Path, mapping: InputMapping) -> Opened:
    encoding, note = (mapping.encoding, "") if mapping.encoding else encoding_of(path)
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        msg = f"{path} cannot be read: {error}"
        raise BadInput(msg) from error
    csv.field_size_limit(_BLOCK_BYTES)  # a row with a broken quote would else be the rest of the file
    header_text = _first_line(path, encoding)
    delimiter = mapping.delimiter or max(_DELIMITERS, key=header_text.count)
    written = [cell.strip() for cell in next(csv.reader([header_text], delimiter=delimiter), [])]
    spelt = {name.casefold(): name for name in _names(mapping)}  # Sku is sku where nothing else is
    header = tuple(name if name in spelt.values() else spelt.get(name.casefold(), name) for name in written)
    if not any(header):
        msg = f"{path} is empty"
        raise BadInput(msg)
    if twice := sorted({name for name in header if header.count(name) > 1 and name}):
        msg = f"{path}: column {', '.join(twice)} is there twice"
        raise BadInput(msg)
    records = _csv_records(path, encoding, delimiter, header, mapping)
    return Opened(header, records, (note,) if note else (), is_flat=True)


def _names(mapping: InputMapping) -> list[str]:
    """Name the columns that a mapping names, as far as they stand alone."""
    rules = mapping.fields.values()
    return [*mapping.known_by, *(rule if isinstance(rule, str) else rule.expression or "" for rule in rules)]


def _first_line(path: Path, encoding: str) -> str:
    """Read the header, also one with a line break in a quoted name."""
    with path.open(newline="", encoding=encoding) as file:
        text = ""
        for line in file:
            text += line
            if text.count('"') % 2 == 0 or len(text) > _BLOCK_BYTES:
                break
        return text


def encoding_of(path: Path) -> tuple[str, str]:
    """Find a text file's encoding, and a note where that was a guess."""
    return _encoding(path, *_version(path))


def _version(path: Path) -> tuple[int, int]:
    """Tell one content of a file from another: a file is held against many mappings, and read for all of them once."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=1)
def _encoding(path: Path, _size: int, _changed_ns: int) -> tuple[str, str]:
    with path.open("rb") as file:
        start = file.read(4)
        for mark, name in _MARKS:
            if start.startswith(mark):
                return name, ""
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for block in chain([start], iter(lambda: file.read(_BLOCK_BYTES), b"")):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            note = f'{path} is not UTF-8 and was read as Windows-1252; say encoding = "..." if that is wrong'
            return FALLBACK_ENCODING, note
    return "utf-8", ""


def _csv_records(
    path: Path, encoding: str, delimiter: str, header: tuple[str, ...], mapping: InputMapping
) -> Iterator[Record]:
    missing = frozenset(mapping.missing)
    fill = _Filler(mapping.fill_down) if mapping.fill_down else None
    with path.open(newline="", encoding=encoding, errors="replace") as file:
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        line = 0  # the last one of the row before
        while True:
            place = f"line {line + 1}"
            try:
                cells = next(rows, None)
            except csv.Error as error:
                yield Record(place, None, f"is no CSV: {error}")
                line = rows.line_num
                continue
            if cells is None:
                return
            is_header, line = line == 0, rows.line_num
            if is_header or not any(cells):
                continue
            if len(cells) != len(header):
                yield Record(place, None, f"has {len(cells)} columns, expected {len(header)} as in the header")
                continue
            values: dict[str, Any] = {
                name: None if cell in missing else cell for name, cell in zip(header, cells, strict=True)
            }
            yield Record(place, fill.filled(values) if fill else values)


class _Filler:
    """Fills what only the first row of a group holds into the rows below it."""

    def __init__(self, rule: FillDown) -> None:
        self._rule = rule
        self._group: Any = None
        self._kept: dict[str, Any] = {}

    def filled(self, values: dict[str, Any]) -> dict[str, Any]:
        group = values.get(self._rule.by)
        if group != self._group or group is None:
            self._group, self._kept = group, {name: values.get(name) for name in self._rule.columns}
            return values
        for name, kept in self._kept.items():
            if values.get(name) is None:
                values[name] = kept
        return values


def _json_lines(path: Path, mapping: InputMapping) -> Opened:
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"{}")
    try:
        found = msgspec.json.decode(first.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = {}
    columns = tuple(found) if isinstance(found, dict) else ()
    return Opened(columns, _json_line_records(path, frozenset(mapping.missing)))


def _json_line_records(path: Path, missing: frozenset[str]) -> Iterator[Record]:
    decoder = msgspec.json.Decoder()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not text.strip():
                continue
            try:
                found = decoder.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield Record(f"line {number}", None, f"is no JSON: {error}")
                continue
            yield _of_json(f"line {number}", found, missing)


def _json(path: Path, mapping: InputMapping) -> Opened:
    """Read a whole document, such as the body of a webhook or a page of an API: held in memory."""
    found = document = _document(path, *_version(path))
    is_record = isinstance(document, dict) and all(key in document for key in mapping.known_by)
    if mapping.records and isinstance(document, dict) and not (is_record and mapping.known_by):
        found = compiled(mapping.records, where=f"records of {path}")(document)
        if found is None:
            has = ", ".join(document) or "nothing"
            msg = f"{path} has no records at {mapping.records!r}; it has {has}"
            raise OtherShape(msg)
    records = found if isinstance(found, list) else [found]
    first = records[0] if records and isinstance(records[0], dict) else {}
    missing = frozenset(mapping.missing)
    return Opened(tuple(first), (_of_json(f"record {n}", each, missing) for n, each in enumerate(records, 1)))


@lru_cache(maxsize=1)
def _document(path: Path, _size: int, _changed_ns: int) -> Any:  # noqa: ANN401 - any JSON
    try:
        return msgspec.json.decode(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f'{path} is no JSON document ({error}); one record a line is format = "jsonl"'
        raise BadInput(msg) from error


def _of_json(place: str, found: object, missing: frozenset[str]) -> Record:
    if not isinstance(found, dict):
        return Record(place, None, "is no JSON object")
    return Record(place, without(found, missing))


def without(found: Any, missing: frozenset[str]) -> Any:  # noqa: ANN401 - any JSON
    """Replace texts that stand for no value, at any depth, by null."""
    if isinstance(found, dict):
        return {sys.intern(key): without(each, missing) for key, each in found.items()}
    if isinstance(found, list):
        return [without(each, missing) for each in found]
    return None if isinstance(found, str) and found in missing else found


def _parquet(path: Path, mapping: InputMapping) -> Opened:
    file = pq.ParquetFile(path)
    records = _parquet_records(file, frozenset(mapping.missing))
    return Opened(tuple(file.schema_arrow.names), records, is_flat=True)


def _parquet_records(file: pq.ParquetFile, missing: frozenset[str]) -> Iterator[Record]:
    row = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        for values in batch.to_pylist():
            row += 1
            yield Record(f"row {row}", without(values, missing))


def _avro(path: Path, mapping: InputMapping) -> Opened:
    """Read an Avro object container file."""
    missing = frozenset(mapping.missing)
    found = (_of_json(f"record {number}", each, missing) for number, each in enumerate(avro.records(path), 1))
    first = next(found, None)
    columns = tuple((first.values or {}) if first is not None else ())
    return Opened(columns, chain([] if first is None else [first], found))


def _only_messages(path: Path, mapping: InputMapping) -> Opened:
    msg = f"{path}: {mapping.format} is a format of messages, which `skutrend ingest` reads; no file has it"
    raise BadInput(msg)


_READERS: Final[dict[str, Callable[[Path, InputMapping], Opened]]] = {
    "csv": _csv,
    "jsonl": _json_lines,
    "json": _json,
    "parquet": _parquet,
    "avro": _avro,
    "protobuf": _only_messages,
    "json_schema": _only_messages,
}
FORMATS: Final[dict[str, Format]] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".avro": "avro",
}
