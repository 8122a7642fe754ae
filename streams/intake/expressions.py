"""Expressions of a mapping: a column by its name, a path of keys, or anything JMESPath can say."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError

from schemas.errors import BadInput

Record = Mapping[str, Any]
Getter = Callable[[Record], Any]
_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_UNSUITED: Final = (JMESPathError, TypeError, ValueError, ArithmeticError, RecursionError, AttributeError)
BESIDE: Final = ("parent", "line", "file", "row")
"""What an expression sees beside an element's own keys: the record that it is of and its number there, from 1; the
name of the file, and the record's number in it, from 1."""


def compiled(expression: str, *, columns: Collection[str] = (), where: str = "") -> Getter:
    """Make a function that finds the value of an expression in a record; None where there is none.

    columns: those of a flat file; a text that is one of them means the column, also where it is no JMESPath. where:
    what errors call the mapping. Raises `BadInput` for what is neither a column nor JMESPath.

    >>> find = compiled("join('/', [id, sku])")
    >>> find({"id": "7", "sku": "A"})
    '7/A'
    """
    if expression in columns:
        return lambda record: record.get(expression)
    if _PATH.fullmatch(expression):
        keys = expression.split(".")
        if columns and keys[0] not in (*columns, *BESIDE):
            msg = f"{where}: there is no column {expression}; the file has {', '.join(columns)}"
            raise BadInput(msg)
        return _key(keys[0]) if len(keys) == 1 else _path(keys)
    try:
        parsed = jmespath.compile(expression)
    except JMESPathError as error:
        hint = f", nor a column: the file has {', '.join(columns)}" if columns else ""
        said = str(error).splitlines()[0]
        msg = f"{where}: {expression!r} is no JMESPath{hint} ({said})"
        raise BadInput(msg) from error

    def search(record: Record) -> Any:  # noqa: ANN401 - whatever the record holds
        try:
            return parsed.search(record)
        except _UNSUITED:  # a function was given what it does not take, such as a null; a text is held against a number
            return None

    return search


def is_path(expression: str) -> bool:
    """Tell whether an expression is a path of keys, which needs no JMESPath."""
    return _PATH.fullmatch(expression) is not None


def _key(key: str) -> Getter:
    return lambda record: record.get(key)


def _path(keys: list[str]) -> Getter:
    def find(record: Record) -> Any:  # noqa: ANN401 - whatever the record holds
        found: Any = record
        for key in keys:
            if not isinstance(found, dict):
                return None
            found = found.get(key)
        return found

    return find


def holds(value: object) -> bool:
    """Tell whether a condition holds: as in JMESPath all does but null, false and what is empty; 0 does."""
    return value is not None and value is not False and value not in ("", [], {})
