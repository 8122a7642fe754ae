"""Files of other systems in, event files (Parquet) out: in bounded memory, judged as a worker would judge them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from features.grid import EARLIEST_MS, LATEST_MS
from schemas.errors import BadInput
from schemas.inputs import BY_NAME, InputName
from schemas.refusals import ID_REUSED
from streams.events.files import schema, unit_guess
from streams.events.repeats import Repeats
from streams.events.replay import encode_rows
from streams.intake.mapper import Event, LeftOut, Mapper
from streams.intake.mapping import InputMapping
from streams.intake.readers import Opened
from streams.intake.report import Report

BATCH_ROWS: Final = 16_384
MAX_ERRORS: Final = 0.05
"""Share of records with something wrong beyond which a conversion is refused, unless told otherwise."""


class Local(NamedTuple):
    """What records do not tell: the IANA name of their time zone, and their currency; "" where they do."""

    zone: str = ""
    currency: str = ""


NOT_TOLD: Final = Local()


class Source(NamedTuple):
    """A file, what it becomes, and how."""

    path: Path
    kind: InputName
    mapping: InputMapping
    opened: Opened
    where: str


def convert(
    sources: Sequence[Source],
    out: Path,
    report: Report,
    *,
    local: Local = NOT_TOLD,
    max_errors: float = MAX_ERRORS,
    told: Callable[[int], object] = lambda _: None,
) -> dict[InputName, Path]:
    """Write the events of all files, one Parquet file an input, to the folder `out`; returns them by input.

    report: is filled. local: what records do not tell. told: gets the number of each further records.
    Raises `BadInput` where more than `max_errors` of what should be events cannot be used, or nothing can: then no file
    is left.
    """
    written: dict[InputName, Path] = {}
    try:
        with ExitStack() as open_files:
            for kind in {source.kind: None for source in sources}:
                written[kind] = out / f"{kind}.parquet"
                file = open_files.enter_context(pq.ParquetWriter(written[kind], schema(kind)))
                of_kind = [source for source in sources if source.kind == kind]
                for rows in _batches(kind, of_kind, report, local, told):
                    file.write_batch(as_batch(kind, rows))
        _check(report, max_errors)
    except BaseException:
        for path in written.values():
            path.unlink(missing_ok=True)
        raise
    return written


def _check(report: Report, max_errors: float) -> None:
    if not report.events.total():
        why = next(iter(report.lines()), "")
        first = next((f"; {each.place}: {name}: {each.detail}" for name, each in report.reasons.items()), "")
        msg = f"nothing became an event ({why}){first}"
        raise BadInput(msg)
    if report.share_of_errors > max_errors:
        worst = max((each for each in report.reasons.items() if each[1].is_error), key=lambda each: each[1].times)
        detail = f": {worst[1].detail}" if worst[1].detail else ""
        msg = (
            f"{report.share_of_errors:.0%} of the events cannot be used, more than {max_errors:.0%} (--max-errors); "
            f"most of them: {worst[0]}, {worst[1].times:,} times, first {worst[1].place}{detail}"
        )
        raise BadInput(msg)


def _batches(
    kind: InputName, sources: Sequence[Source], report: Report, local: Local, told: Callable[[int], object]
) -> Iterator[list[tuple[Any, ...]]]:
    """Give usable events of one input, each once, in batches of about BATCH_ROWS; the report counts the others."""
    repeats = Repeats()
    for source in sources:
        report.notes += [note for note in source.opened.notes if note not in report.notes]
        found = mapped(source, local, report)
        while batch := list(itertools.islice(found, BATCH_ROWS)):
            told(len(batch))
            made = []
            for each in batch:
                if isinstance(each, Event):
                    made.append(each)
                else:
                    report.leave_out(source.path.name, each)
            usable = _once(repeats, _usable(kind, made, source, report), source, report)
            rows = [event.row for event in usable]
            report.add(kind, rows)
            if rows:
                yield rows


def mapped(source: Source, local: Local, report: Report | None = None) -> Iterator[Event | LeftOut]:
    """Map the records of a file. report: counts them."""
    columns = source.opened.columns if source.opened.is_flat else ()
    mapper = Mapper(
        source.mapping,
        source.kind,
        columns=columns,
        zone=local.zone,
        currency=local.currency,
        file=source.path.name,
        where=source.where,
    )
    for record in source.opened.records:
        if report is not None:
            report.records += 1
        yield from mapper.events(record)
    if report is not None:
        report.noted += mapper.noted


def as_batch(kind: InputName, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """Lay events out as columns of `files.schema`."""
    columns = zip(*rows, strict=True)
    wanted = schema(kind)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, wanted, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def _usable(kind: InputName, events: list[Event], source: Source, report: Report) -> list[Event]:
    """Leave out what a worker would make a dead letter, for its reasons."""
    if not events:
        return []
    columns, refused = BY_NAME[kind].decode(encode_rows(kind, as_batch(kind, [event.row for event in events]))[1])
    for refusal in refused:
        at = events[refusal.row]
        report.leave_out(source.path.name, LeftOut(at.place, refusal.code, refusal.error))
    usable = []
    for row, time_ms in zip(columns.row.tolist(), columns.event_time_ms.tolist(), strict=True):
        if EARLIEST_MS <= time_ms < LATEST_MS:
            usable.append(events[row])
        else:
            report.leave_out(source.path.name, LeftOut(events[row].place, "implausible_time", _implausible(time_ms)))
    return usable


def _implausible(time_ms: int) -> str:
    unit = unit_guess(time_ms, time_ms)
    guess = f', but would be one in {unit}: say time = "{_FORMS[unit]}"' if unit else ""
    return f"{time_ms} is no time in milliseconds within reason{guess}"


_FORMS: Final = {"seconds": "s", "microseconds": "us", "nanoseconds": "ns"}


def _once(repeats: Repeats, events: list[Event], source: Source, report: Report) -> list[Event]:
    """Leave out an event that was there already; one whose id was, but which says something else, is an error."""
    if not events:
        return []
    at = BY_NAME[source.kind].places["event_id"]
    ids = [event.row[at] for event in events]
    new_id, new = repeats.split(ids, [repr(event.row) for event in events])
    kept = []
    for event, event_id, is_new_id, is_new in zip(events, ids, new_id.tolist(), new.tolist(), strict=True):
        if is_new_id:
            kept.append(event)
        elif is_new:
            detail = f"event_id {event_id!r} was there with other contents; it must be unique per event"
            report.leave_out(source.path.name, LeftOut(event.place, ID_REUSED, detail))
        else:
            report.duplicates += 1
    return kept
