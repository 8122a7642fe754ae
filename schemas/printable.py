"""Text of others, made safe to show: in an error, a sentence, a table or on a terminal."""

from __future__ import annotations

from typing import Final

_CUT: Final = "..."


def printable(text: str, limit: int | None = None) -> str:
    r"""Escape what could steer a terminal or break the line.

    limit: the most characters to return, at least 3; longer text ends in `...` and is never cut within an escape.

    >>> print(printable("A\n1\x1b[31m"))
    A\n1\x1b[31m
    >>> print(printable("85123A\n85123A", limit=10))
    85123A...
    """
    if text.isprintable() and (limit is None or len(text) <= limit):
        return text
    considered = text if limit is None else text[: limit + 1]
    escaped = [c if c.isprintable() else c.encode("unicode_escape").decode() for c in considered]
    shown = "".join(escaped)
    if limit is None or len(shown) <= limit:
        return shown
    while len(shown) > limit - len(_CUT):
        shown = shown[: len(shown) - len(escaped.pop())]
    return shown + _CUT
