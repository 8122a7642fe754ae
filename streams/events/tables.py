"""Event files as decoded columns, for everything that works offline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from schemas.columns import InputColumns as Columns
from schemas.errors import BadInput
from schemas.inputs import BY_NAME, INPUT_NAMES, InputName
from schemas.printable import printable
from streams.events.files import read, survey
from streams.events.repeats import MOST_REUSED, Repeats
from streams.events.replay import encode_rows
from streams.observe.progress import track_progress


@dataclass
class Account:
    """What became of the rows of a file. reasons: by code, how many were refused, the first row and the sentence."""

    path: Path
    kind: InputName
    rows: int = 0
    used: int = 0
    repeated: int = 0
    reused: int = 0
    first_reused: str = ""
    reasons: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Say what was left out and why; nothing where all was used."""
        if self.used < self.rows:
            why = (
                f"{count:,} {code} (first in row {row:,}: {sentence})"
                for code, (count, row, sentence) in sorted(self.reasons.items(), key=lambda each: -each[1][0])
            )
            yield f"{self.path}: {self.used:,} of {self.rows:,} {self.kind} used; left out: {'; '.join(why)}"
        if self.reused:
            yield (
                f"{self.path}: {self.reused:,} {self.kind} have an event_id that was there with other contents, and "
                f"are not counted while its window is open ({self.first_reused})"
            )
        if self.repeated:
            yield f"{self.path}: {self.repeated:,} {self.kind} are there twice and count once"


def load_with_progress(files: Mapping[InputName, Path]) -> dict[int, Columns]:
    """Do as `load`, and tell on stderr how far it is, and what was left out."""
    with track_progress("surveying the event files"):
        rows = sum(survey(path, kind).rows for kind, path in files.items())
    console = Console(stderr=True)
    with track_progress("reading events", rows) as told:
        return load(
            files, told=told, say=lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
        )


def load(
    files: Mapping[InputName, Path],
    *,
    told: Callable[[int], object] = lambda _: None,
    say: Callable[[str], object] = lambda _: None,
) -> dict[int, Columns]:
    """Read event files whole: {input: columns}. Rows that the worker would refuse are left out, as there.

    Every row goes through the bytes that `replay` would send and the decoder of the worker: what holds live holds
    here. told: gets the number of each further rows read. say: gets sentences about what was left out. Raises
    `BadInput` where a file cannot be read, holds no usable row, or has ids that are not those of events.
    """
    return dict(_read(kind, path, told, say) for kind, path in files.items())


def _read(
    kind: InputName, path: Path, told: Callable[[int], object], say: Callable[[str], object]
) -> tuple[int, Columns]:
    decode = BY_NAME[kind].decode
    parts, account, repeats = [], Account(path, kind), Repeats()
    for batch in read(path, kind):
        values = encode_rows(kind, batch)[1]
        columns, refused = decode(values)
        parts.append(dataclasses.replace(columns, row=columns.row + np.int32(account.rows)))
        for refusal in refused:
            count, row, sentence = account.reasons.get(refusal.code, (0, account.rows + refusal.row + 1, refusal.error))
            account.reasons[refusal.code] = (count + 1, row, sentence)
        _note_repeats(account, repeats, columns, values)
        account.rows += len(values)
        account.used += len(columns.row)
        told(len(values))
    for line in account.lines():
        say(line)
    if not account.used:
        msg = f"{path} holds no usable {kind}"
        raise BadInput(msg)
    if account.reused > MOST_REUSED * account.rows:
        msg = (
            f"{path}: {account.reused:,} of {account.rows:,} {kind} have an event_id that was there with other "
            f"contents ({account.first_reused}); none but the first would count: make it unique per "
            "event, such as order and line (`skutrend convert` does)"
        )
        raise BadInput(msg)
    return INPUT_NAMES.index(kind), _joined(parts)


def _note_repeats(account: Account, repeats: Repeats, columns: Columns, values: list[bytes]) -> None:
    rows = columns.row.tolist()
    new_id, new = repeats.split(columns.event_id, [values[row].decode() for row in rows])
    if new_id.all():
        return
    account.repeated += int(np.count_nonzero(~new))
    reused = np.flatnonzero(~new_id & new)
    account.reused += len(reused)
    if len(reused) and not account.first_reused:
        at = int(reused[0])
        account.first_reused = f"first {printable(columns.event_id[at], 60)!r} in row {account.rows + rows[at] + 1:,}"


def _joined(parts: list[Columns]) -> Columns:
    joined: dict[str, Any] = {}
    for item in dataclasses.fields(parts[0]):
        values = [getattr(part, item.name) for part in parts]
        is_array = isinstance(values[0], np.ndarray)
        joined[item.name] = np.concatenate(values) if is_array else [each for value in values for each in value]
    return type(parts[0])(**joined)
