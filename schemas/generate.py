"""Writes the JSON Schema of every message next to the types that it is made from, or checks that they agree.

`python -m schemas.generate` writes schemas/*.schema.json; with `--check` it only compares, and exits 1 with a sentence
if they differ. Consumers in other languages read these files; the types stay the one source.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.alerts import Alert
from schemas.forecasts import Forecast
from schemas.inputs import INPUTS
from schemas.provenance import DeadLetterHeaders, LateEventHeaders
from schemas.windows import WindowClosed

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DIRECTORY: Final = Path(__file__).parent

MESSAGES: Final[dict[str, tuple[type[msgspec.Struct], str]]] = {
    **{each.name: (each.message, f"value of a record of `{each.name}`") for each in INPUTS},
    "windows": (WindowClosed, "value of a record of `windows`"),
    "forecasts": (Forecast, "value of a record of `forecasts`"),
    "alerts": (Alert, "value of a record of `alerts`"),
    "late-events": (LateEventHeaders, "headers of a record of `late-events`, as one object"),
    "dead-letters": (DeadLetterHeaders, "headers of a record of `dead-letters`, as one object"),
}
"""Type and title by topic."""


def schema_of(topic: str) -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of what is said on a topic; KeyError for a topic that has none."""
    message, title = MESSAGES[topic]
    schema = {"$schema": DIALECT, "title": title, **msgspec.json.schema(message)}
    for definition in schema["$defs"].values():
        # The docstring as paragraphs; how it is indented differs between versions of Python
        paragraphs = inspect.cleandoc(definition["description"]).split("\n\n")
        definition["description"] = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return schema


def texts() -> dict[str, bytes]:
    """Content of every schema file by file name."""
    return {
        f"{topic}.schema.json": msgspec.json.format(msgspec.json.encode(schema_of(topic)), indent=2) + b"\n"
        for topic in MESSAGES
    }


def differences(directory: Path) -> list[str]:
    """Names of schema files in `directory` that are missing, stale, or of no message; sorted."""
    expected = texts()
    present = {path.name: path.read_bytes() for path in directory.glob("*.schema.json")}
    return sorted(name for name in expected.keys() | present.keys() if expected.get(name) != present.get(name))


def main(arguments: Sequence[str] | None = None, *, directory: Path = DIRECTORY) -> int:
    """Write or check the schema files in `directory`; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if a file is not up to date")
    checks_only = parser.parse_args(arguments).check
    stale = differences(directory)
    if not checks_only:
        written = texts()
        for name in stale:
            if name in written:
                (directory / name).write_bytes(written[name])
            else:
                (directory / name).unlink()
        return 0
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run python -m schemas.generate and commit what it writes\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
