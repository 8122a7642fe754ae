"""What names may consist of that become names of topics, groups, transactional ids and directories."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from schemas.errors import BadSetting

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST: Final = 249  # characters of a topic's name, by Kafka's own rule
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._-]")
_SHOWN: Final = 40


def check_part(variable: str, value: str) -> None:
    """Refuse a value that could not be part of a topic's name (`BadSetting` naming the variable). Empty is fine."""
    foreign = _FOREIGN.search(value)
    if foreign:
        what = f"the character {foreign[0]!r} is not allowed"
    elif value in {".", ".."}:
        what = "as a directory that would be another one"
    else:
        return
    msg = (
        f"{variable} is {_cut(value)!r}: {what}; it becomes part of the names of topics, directories and transactional "
        "ids, which take letters without accents, digits, '.', '_' and '-'"
    )
    raise BadSetting(msg)


def check_lengths(variables: str, names: Iterable[str]) -> None:
    """Refuse names that are longer than Kafka takes (`BadSetting`). variables: the settings they are made of."""
    longest = max(names, key=len)
    if len(longest) > MOST:
        msg = (
            f"{variables} make the name {_cut(longest)!r} of {len(longest)} characters, Kafka takes {MOST}; shorten "
            f"them by {len(longest) - MOST}"
        )
        raise BadSetting(msg)


def _cut(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[: _SHOWN - 3]}..."
