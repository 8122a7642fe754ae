"""Event files: the input topics' columns as Parquet, CSV or JSON lines, read in bounded memory and checked.

All three formats come out the same: `RecordBatch`es with exactly the columns of `schema(kind)`, whatever the order
of the file's columns and whatever else it holds. A file may write whole numbers where fractions are meant, and may
leave out the columns that allow null; NaN in such a column (what pandas writes for a missing number) is a null.
Everything else that does not fit is `BadInput`, which names the file, the column, what was found and what was
expected. Values are not judged beyond that: a negative price is a matter for the dead letters.
"""

from __future__ import annotations

import csv
import importlib.resources
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from features.grid import EARLIEST_MS, LATEST_MS
from schemas.errors import BadInput
from schemas.inputs import BY_NAME, INPUT_NAMES, INPUTS, Field, FieldType, InputName
from schemas.printable import printable

# pa.array() and to_numpy() import pandas where it is installed: the Parquet path, which the demo takes, uses neither.

Times = np.ndarray[tuple[int], np.dtype[np.int64]]

BATCH_ROWS = 16_384
_INT64 = msgspec.Meta(ge=-(2**63), le=2**63 - 1)
_JSON_BLOCK_BYTES = 4 << 20
_ARROW: Mapping[FieldType, Any] = {"string": pa.string(), "double": pa.float64(), "int64": pa.int64()}
TIME = next(each for each in BY_NAME["orders"].fields if each.name == "event_time_ms")


class Survey(NamedTuple):
    """What one pass over the event times of a file tells. `first_ms` and `last_ms` are inclusive, None without rows."""

    rows: int
    first_ms: int | None
    last_ms: int | None
    in_order: bool


def schema(kind: InputName) -> pa.Schema:
    """Name and type the columns that `read` yields for this kind, in order; such a file may be written with it."""
    fields = BY_NAME[kind].fields
    return pa.schema([pa.field(each.name, _ARROW[each.type], nullable=each.nullable) for each in fields])


def read(path: Path, kind: InputName, *, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """Yield the file's rows in its own order, as non-empty batches of at most `batch_rows` rows with `schema(kind)`.

    The header is checked at once, the values batch by batch. Raises `BadInput`.
    """
    return _read(Path(path), BY_NAME[kind].fields, batch_rows)


def read_in_order(
    path: Path, kind: InputName, found: Survey | None = None, *, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Like `read`, in event-time order; rows of equal time keep the order of the file.

    A file that is in order already, as `found` tells (None: survey it now), is streamed; one that is not is held in
    memory whole.
    """
    batches = read(path, kind, batch_rows=batch_rows)
    if (found or survey(path, kind)).in_order:
        return batches
    table = pa.Table.from_batches(batches, schema=schema(kind))
    by_time = table.take(pc.sort_indices(table[TIME.name]))
    return iter(by_time.combine_chunks().to_batches(max_chunksize=batch_rows))


def survey(path: Path, kind: InputName) -> Survey:
    """Check the whole file, count its rows, find the first and last event time and whether the rows are in order.

    One pass in bounded memory; whoever sends or learns from the rows afterwards meets no `BadInput` halfway. Raises it
    also where no event time is one: seconds or microseconds, say, taken for milliseconds.
    """
    rows, first_ms, last_ms, previous_ms, in_order = 0, None, None, None, True
    for batch in read(path, kind):
        times = event_times(batch)
        low, high = int(times.min()), int(times.max())
        in_order &= bool((times[1:] >= times[:-1]).all()) and (previous_ms is None or previous_ms <= times[0])
        previous_ms = times[-1]
        first_ms = low if first_ms is None else min(first_ms, low)
        last_ms = high if last_ms is None else max(last_ms, high)
        rows += len(times)
    if first_ms is not None and last_ms is not None:
        _check_unit(Path(path), first_ms, last_ms)
    return Survey(rows, first_ms, last_ms, bool(in_order))


def _check_unit(path: Path, first_ms: int, last_ms: int) -> None:
    """Raise `BadInput` where all event times lie out of all reason."""
    if last_ms >= EARLIEST_MS and first_ms < LATEST_MS:
        return
    where = "before the year 2000" if last_ms < EARLIEST_MS else "too far in the future"
    unit = unit_guess(first_ms, last_ms)
    guess = f": they look like {unit}" if unit else ""
    msg = (
        f"{path}: all event times lie {where} ({first_ms} to {last_ms}); "
        f"event_time_ms counts milliseconds since 1970-01-01T00:00Z{guess}"
    )
    raise BadInput(msg)


def unit_guess(first: int, last: int) -> str:
    """Name the unit in which such numbers would be times since 1970 within reason; "" where none would.

    >>> unit_guess(1_700_000_000, 1_700_000_019)
    'seconds'
    """
    units = {"seconds": 1_000, "milliseconds": 1, "microseconds": 1 / 1_000, "nanoseconds": 1 / 1_000_000}
    fitting = (unit for unit, scale in units.items() if EARLIEST_MS <= first * scale <= last * scale < LATEST_MS)
    return next(fitting, "")


def event_times(batch: pa.RecordBatch) -> Times:
    """Event times of a batch of `read`: int64 (n,), epoch milliseconds, read-only, sharing the batch's memory."""
    times: Any = np.from_dlpack(batch.column(TIME.name))
    return cast("Times", times)


def sample_paths() -> dict[InputName, Path]:
    """Locate the shipped sample, whose README tells what it is: its files by kind."""
    folder = importlib.resources.files("streams.demo") / "sample"
    return {name: Path(str(folder / f"{name}.parquet")) for name in INPUT_NAMES}


def _read(path: Path, columns: tuple[Field, ...], batch_rows: int) -> Iterator[pa.RecordBatch]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        msg = f"{path} is of no known format: expected a name ending in {', '.join(_READERS)}"
        raise BadInput(msg)
    with blaming(path):
        found, batches = reader(path, columns, batch_rows)
        _check_header(path, found, columns)
    return _checked(path, batches, columns)


def _checked(path: Path, batches: Iterator[Any], columns: tuple[Field, ...]) -> Iterator[pa.RecordBatch]:
    wanted = pa.schema([pa.field(column.name, _ARROW[column.type], nullable=column.nullable) for column in columns])
    row = 0
    with blaming(path):
        for batch in batches:
            if batch.num_rows:
                held = set(batch.schema.names)
                arrays = [
                    _conform(path, batch.column(column.name), column, row)
                    if column.name in held
                    else pa.nulls(batch.num_rows, _ARROW[column.type])
                    for column in columns
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=wanted)
                row += batch.num_rows


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn what the operating system and pyarrow say into a sentence that begins with the file."""
    try:
        yield
    except FileNotFoundError as error:
        msg = f"{path} does not exist"
        raise BadInput(msg) from error
    except (OSError, UnicodeDecodeError, pa.lib.ArrowException) as error:
        msg = f"{path} cannot be read: {error}"
        raise BadInput(msg) from error


def _check_header(path: Path, found: Mapping[str, pa.DataType], columns: tuple[Field, ...]) -> None:
    for column in columns:
        if column.name in found:
            if not _fits(found[column.name], column):
                msg = f"{path}: column {column.name} is {found[column.name]}, expected {_meaning(column)}"
                raise BadInput(msg)
        elif not column.nullable:
            msg = f"{path} lacks the column {column.name} ({_meaning(column)}); it has {', '.join(found) or 'none'}"
            raise BadInput(msg)


def _fits(found: pa.DataType, column: Field) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return column.nullable
    if column.type == "string":
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found))
    number = pa.types.is_floating(found) or pa.types.is_decimal(found)
    return bool(pa.types.is_integer(found) or (column.type == "double" and number))


def _meaning(column: Field) -> str:
    if column is TIME:
        return "a whole number (epoch milliseconds)"
    return _MEANINGS[column.type]


def _conform(path: Path, found: Any, column: Field, rows_before: int) -> Any:  # noqa: ANN401 - any pyarrow array
    """Give the array the column's own type, without NaN; a complaint counts rows from 1, without the header."""
    try:
        array = found if found.type == _ARROW[column.type] else found.cast(_ARROW[column.type])
    except pa.ArrowInvalid as error:
        msg = f"{path}: column {column.name} holds what is not {_meaning(column)}: {error}"
        raise BadInput(msg) from error
    if column.type == "double" and not pc.all(pc.is_finite(array)).as_py():
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array) if column.nullable else array
        for row, value in enumerate(array.to_pylist(), rows_before + 1):
            if value is not None and not np.isfinite(value):
                msg = f"{path}: column {column.name} is {value} in row {row}, expected a finite number"
                raise BadInput(msg)
    if array.null_count and not column.nullable:
        row = rows_before + array.to_pylist().index(None) + 1
        msg = f"{path}: column {column.name} is empty in row {row}, expected {_meaning(column)}"
        raise BadInput(msg)
    if column.choices:
        strange = set(array.unique().to_pylist()).difference(column.choices)
        if strange:
            value = min(strange)
            row = rows_before + array.to_pylist().index(value) + 1
            wanted = ", ".join(column.choices)
            msg = f"{path}: column {column.name} is {value!r} in row {row}, expected one of {wanted}"
            raise BadInput(msg)
    return array


_Found = tuple[Mapping[str, Any], Iterator[Any]]  # the columns found with their types, and the rows


def _read_parquet(path: Path, columns: tuple[Field, ...], batch_rows: int) -> _Found:
    file = pq.ParquetFile(path)
    found = {field.name: field.type for field in file.schema_arrow}
    wanted = [column.name for column in columns if column.name in found]
    return found, file.iter_batches(batch_size=batch_rows, columns=wanted)


def _read_csv(path: Path, columns: tuple[Field, ...], batch_rows: int) -> _Found:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    if twice := sorted({name for name in header if header.count(name) > 1}.intersection(c.name for c in columns)):
        msg = f"{path}: column {', '.join(twice)} is there twice"
        raise BadInput(msg)
    types = {column.name: _ARROW[column.type] for column in columns if column.name in header}
    return {name: types.get(name, pa.string()) for name in header}, _csv_batches(path, header, types, batch_rows)


def _csv_batches(path: Path, header: list[str], types: dict[str, Any], batch_rows: int) -> Iterator[Any]:
    convert = pa_csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=False
    )
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    try:
        for batch in pa_csv.open_csv(path, convert_options=convert, parse_options=parse):
            for start in range(0, batch.num_rows, batch_rows):
                yield _empty_to_null(batch.slice(start, batch_rows))
    except pa.ArrowInvalid as error:
        raise _csv_complaint(path, header, types) or BadInput(f"{path}: {_without_row(error)}") from error


def _without_row(error: pa.ArrowInvalid) -> str:
    """Give what pyarrow says, without the row, which may tell of a person."""
    return re.sub(r"(columns, got \d+):.*", r"\1", str(error), flags=re.DOTALL)


def _csv_complaint(path: Path, header: list[str], types: dict[str, Any]) -> BadInput | None:
    """Find the first row that does not fit: pyarrow names neither its number nor its line. None if all seem to."""
    numbers = [(header.index(name), name, kind) for name, kind in types.items() if kind != pa.string()]
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        line = 1
        for cells in rows:
            if len(cells) != len(header) and cells:
                return BadInput(f"{path}, line {line}: {len(cells)} columns, expected {len(header)} as in the header")
            for at, name, kind in numbers if line > 1 and cells else ():
                wanted = _MEANINGS[str(kind)]
                if not _is_number(cells[at], whole=kind == pa.int64()):
                    found = printable(cells[at], _QUOTED_CHARACTERS)
                    hint = _HINTS.get(number_shape(cells[at]), "")
                    return BadInput(f"{path}, line {line}: column {name} is {found!r}, expected {wanted}{hint}")
            line = rows.line_num + 1
    return None


def _is_number(cell: str, *, whole: bool) -> bool:
    """Whether a CSV cell is empty, which is a null, or a number as pyarrow reads it."""
    try:
        return cell == "" or (-(2**63) <= int(cell) < 2**63 if whole else float(cell) is not None)
    except ValueError:
        return False


def number_shape(cell: str) -> str:
    """Name what a cell that should be a number is instead; "" where nothing is known of it."""
    for name, pattern in _SHAPES.items():
        if pattern.fullmatch(cell.strip()):
            return name
    return ""


_QUOTED_CHARACTERS = 40
_MEANINGS = {"string": "text", "double": "a number", "int64": "a whole number"}
_SHAPES = {
    "decimal comma": re.compile(r"-?\d+(\.\d{3})*,\d{1,2}"),
    "thousands": re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?"),
    "currency": re.compile(r"[^\w\s.,-]\s?-?[\d.,]+|-?[\d.,]+\s?[^\w\s.,-]"),
    "date": re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*"),
}
_HINTS = {
    "decimal comma": " with a decimal point",
    "thousands": " without signs for thousands",
    "currency": " without a currency sign; the currency has a column of its own",
    "date": " of epoch milliseconds, UTC",
}


_NULLABLE_TEXT = {c.name for each in INPUTS for c in each.fields if c.nullable and c.type == "string"}


def _empty_to_null(batch: Any) -> Any:  # noqa: ANN401 - a RecordBatch
    """CSV knows no null: an empty field is one where null is allowed, and stays "" where it is not."""
    for name in _NULLABLE_TEXT.intersection(batch.schema.names):
        text = batch.column(name)
        emptied = pc.if_else(pc.equal(text, pa.scalar("")), pa.scalar(None, pa.string()), text)
        batch = batch.set_column(batch.schema.names.index(name), name, emptied)
    return batch


def _read_json_lines(path: Path, columns: tuple[Field, ...], batch_rows: int) -> _Found:
    with path.open("rb"):  # a missing file is a complaint now, not at the first row
        pass
    return {column.name: _ARROW[column.type] for column in columns}, _json_batches(path, columns, batch_rows)


def _json_batches(path: Path, columns: tuple[Field, ...], batch_rows: int) -> Iterator[Any]:
    types: dict[str, Any] = {"string": str, "double": float, "int64": Annotated[int, _INT64]}
    fields: list[Any] = [
        (c.name, types[c.type] | None, None) if c.nullable else (c.name, types[c.type])
        for c in sorted(columns, key=lambda c: c.nullable)
    ]
    decoder = msgspec.json.Decoder(msgspec.defstruct("Row", fields, gc=False))
    line = 0
    with path.open("rb") as file:
        while lines := file.readlines(_JSON_BLOCK_BYTES):
            try:
                rows = decoder.decode_lines(b"".join(lines))
            except msgspec.DecodeError:
                raise _json_complaint(path, decoder, lines, line) from None
            line += len(lines)
            for start in range(0, len(rows), batch_rows):
                part = rows[start : start + batch_rows]
                arrays = [pa.array([getattr(row, c.name) for row in part], _ARROW[c.type]) for c in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=[c.name for c in columns])


def _json_complaint(path: Path, decoder: msgspec.json.Decoder[Any], lines: list[bytes], lines_before: int) -> BadInput:
    for number, line in enumerate(lines, lines_before + 1):
        try:
            decoder.decode_lines(line)
        except msgspec.DecodeError as error:
            return BadInput(f"{path}, line {number}: {error}")
    return BadInput(f"{path}, lines {lines_before + 1} to {lines_before + len(lines)}: not JSON lines")


_READERS: dict[str, Callable[[Path, tuple[Field, ...], int], _Found]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json_lines,
}
