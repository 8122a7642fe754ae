"""Whether a partition has changed since its last flush, and whether that may be flushed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Changes:
    """What is not durable yet. has_any: whether anything is; is_urgent: whether it is to be flushed at once.

    is_torn: something broke off in the midst of a change; what is in memory must not be flushed any more.
    """

    def __init__(self) -> None:
        """Start where everything is durable."""
        self.has_any = self.is_urgent = self.is_torn = False

    @contextmanager
    def wholly(self) -> Iterator[None]:
        """Whatever breaks off in here, such as for want of memory, leaves a state that must not be flushed any more."""
        was_torn, self.is_torn = self.is_torn, True
        yield
        self.is_torn = was_torn

    def stored(self) -> None:
        """Take note that all of it is durable now."""
        self.has_any = self.is_urgent = self.is_torn = False
