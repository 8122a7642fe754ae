"""The file of days on which a shop does not sell, beyond what its weekdays say."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from schemas.errors import BadSetting

if TYPE_CHECKING:
    from pathlib import Path

_MOST_DAYS = 366  # of one stretch


def read(path: Path) -> frozenset[date]:
    """Read local dates, one a line: `2026-12-25`, or the first and last of a stretch, `2026-12-24..2026-12-26`.

    What follows a `#` is a comment. Raises BadSetting with the line that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the file of closing days {path} (SKUTREND_CLOSING_DAYS): {error}"
        raise BadSetting(msg) from error
    found: set[date] = set()
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if text:
            found |= _days(text, where=f"line {number} of {path} (SKUTREND_CLOSING_DAYS)")
    return frozenset(found)


def _days(text: str, *, where: str) -> set[date]:
    first_text, _, last_text = text.partition("..")
    try:
        first = date.fromisoformat(first_text.strip())
        last = date.fromisoformat(last_text.strip()) if last_text else first
    except ValueError as error:
        msg = f"{where} is {text!r}: expected a date such as 2026-12-25, or two of them with `..` between"
        raise BadSetting(msg) from error
    count = (last - first).days + 1
    if not 1 <= count <= _MOST_DAYS:
        msg = f"{where} is {text!r}: {count} days; the last day must not lie before the first, nor a year after it"
        raise BadSetting(msg)
    return {first + timedelta(days=i) for i in range(count)}
