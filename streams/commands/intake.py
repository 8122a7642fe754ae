"""The commands `convert` and `mapping`, and event files made of exports for the other commands."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from features import dates
from schemas.errors import BadInput
from schemas.inputs import BY_NAME
from schemas.printable import printable
from streams.intake import convert as conversion
from streams.intake import mapping as mappings
from streams.intake.convert import MAX_ERRORS, Local, Source
from streams.intake.mapper import Event
from streams.intake.recognise import recognised, source_for
from streams.intake.report import Report
from streams.observe.progress import track_progress
from streams.state import directories

if TYPE_CHECKING:
    from schemas.inputs import InputName
    from streams.intake.mapping import MappingFile

CHECKED_EVENTS: Final = 10
_CHECKED_RECORDS: Final = 1_000
_CELL: Final = 28


@dataclass(frozen=True)
class Wanted:
    """How exports are to be read.

    preset: name of a mapping that comes with skutrend, or the part before a dash that several share; mapping: a file;
    neither: found out, which `is_sure` asks nobody about. kind: the input that the files are of, None found out.
    """

    preset: str | None = None
    mapping: Path | None = None
    kind: InputName | None = None
    local: Local = conversion.NOT_TOLD
    decimal: str | None = None
    max_errors: float = MAX_ERRORS
    is_sure: bool = False


def sources_of(files: Sequence[Path], wanted: Wanted, confirm: Callable[[str], bool]) -> list[Source]:
    """Open every file with its mapping; `confirm` is asked whether a file is what it looks like."""
    sources = []
    for path in files:
        if wanted.mapping is not None:
            source = source_for(path, mappings.load(wanted.mapping), wanted.kind)
        elif wanted.preset is not None:
            source = _of_family(path, mappings.family(wanted.preset), wanted.kind)
        else:
            source = recognised(path)
            question = f"{path} looks like {source.where} ({mappings.named(source.where).title})"
            if not wanted.is_sure and not confirm(question):
                msg = f"{question}: say --preset {source.where}, or --yes"
                raise BadInput(msg)
        if wanted.decimal is not None:
            thousands = "" if source.mapping.thousands == wanted.decimal else source.mapping.thousands
            source = source._replace(mapping=mappings.changed(source.mapping, wanted.decimal, thousands))
        sources.append(source)
    return sources


def _of_family(path: Path, family: Mapping[str, MappingFile], kind: InputName | None) -> Source:
    """Open a file with that mapping of a family whose columns it has."""
    if len(family) == 1:
        return source_for(path, next(iter(family.values())), kind)
    return recognised(path, family)


def convert_files(files: Sequence[Path], out: Path, wanted: Wanted, confirm: Callable[[str], bool]) -> None:
    """Write event files to the folder `out` and print the report; raises `BadInput`."""
    directories.prepare(out, what=f"the directory {out} (--out)", error=BadInput)
    sources = sources_of(files, wanted, confirm)
    written, report = _converted(sources, out, wanted)
    _show(report, Console(), wanted.local.zone)
    for kind, path in written.items():
        Console().print(f"{path}: {report.events[kind]:,} {kind}", highlight=False, markup=False, soft_wrap=True)


def _converted(sources: Sequence[Source], out: Path, wanted: Wanted) -> tuple[dict[InputName, Path], Report]:
    report = Report(now_ms=time.time_ns() // 1_000_000)
    with track_progress("reading records") as progress:
        try:
            written = conversion.convert(
                sources, out, report, local=wanted.local, max_errors=wanted.max_errors, told=progress
            )
        except BadInput:
            _show(report, Console(stderr=True), wanted.local.zone)
            raise
    return written, report


def _show(report: Report, console: Console, zone: str) -> None:
    for line in report.lines(zone or "UTC"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def event_files(
    given: dict[InputName, Path], files: Sequence[Path], wanted: Wanted, confirm: Callable[[str], bool]
) -> Iterator[dict[InputName, Path]]:
    """Give event files by input: those given as such, and what the other files become, for as long as it is needed."""
    if not files:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="skutrend-") as folder:
        written, report = _converted(sources_of(files, wanted, confirm), Path(folder), wanted)
        _show(report, Console(stderr=True), wanted.local.zone)
        if twice := sorted(written.keys() & given.keys()):
            msg = f"{', '.join(twice)} are given twice: as an event file and in {', '.join(map(str, files))}"
            raise BadInput(msg)
        yield given | written


def list_mappings() -> None:
    """Print the presets."""
    table = Table("preset", "input", "reads", box=None, pad_edge=False)
    for name, preset in mappings.presets().items():
        table.add_row(name, ", ".join(preset.inputs), preset.title)
    Console().print(table)


def show_mapping(name: str) -> str:
    """Give the text of a preset."""
    mappings.named(name)
    return dict(mappings.preset_texts())[name]


def check_mapping(name: str, sample: Path | None, wanted: Wanted) -> None:
    """Print the first events that a mapping makes of a sample, and what it leaves out; raises `BadInput`."""
    path = Path(name)
    mapping = mappings.load(path) if path.suffix == ".toml" or path.exists() else mappings.named(name)
    console = Console()
    console.print(f"{mapping.name}: {mapping.title} -> {', '.join(mapping.inputs)}", highlight=False)
    if sample is None:
        return
    source = source_for(sample, mapping, wanted.kind)
    report = Report(now_ms=time.time_ns() // 1_000_000)
    shown: list[Event] = []
    made = 0
    for found in conversion.mapped(source, wanted.local, report):
        if isinstance(found, Event):
            made += 1
            shown += [found] if len(shown) < CHECKED_EVENTS else []
        else:
            report.leave_out(sample.name, found)
        if report.records >= _CHECKED_RECORDS:
            break
    _print_events(console, source.kind, shown)
    console.print(f"{report.records:,} records make {made:,} {source.kind}, {report.left_out:,} left out")
    for line in (*report.lines_left_out(), *report.lines_to_know()):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not made:
        msg = f"{name} makes no event of {sample}"
        raise BadInput(msg)


def _cell(name: str, value: object) -> str:
    """Write a field as people read it: a time as such, so that a zone that is wrong is seen."""
    if value is None:
        return ""
    return dates.stamp(value) if name == "event_time_ms" and isinstance(value, int) else printable(str(value), _CELL)


def _print_events(console: Console, kind: InputName, events: Sequence[Event]) -> None:
    if not console.is_terminal:
        console = Console(width=200, file=sys.stdout)
    names = [field.name for field in BY_NAME[kind].fields]
    shown = [at for at in range(len(names)) if any(event.row[at] is not None for event in events)]
    table = Table(box=None, pad_edge=False)
    for name in ("from", *(names[at] for at in shown)):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for event in events:
        table.add_row(event.place, *(_cell(names[at], event.row[at]) for at in shown))
    console.print(table)
