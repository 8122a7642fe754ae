"""The log of a worker: one line a record on stderr, and what is said over and over is said once, with its count.

While a broker is away its clients report every attempt to connect, hundreds of times a second over all partitions.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_S: Final = 10.0
KEPT: Final = 1_000  # different texts; a flood of more is let through
_LIBRARIES: Final = ("librdkafka", "aiokafka", "faust", "mode")
_NUMBER: Final = re.compile(r"\d+")


class Damper(logging.Filter):
    """Lets a text pass once in `EVERY_S`; the next to pass says how many were held back.

    What libraries say counts as the same when only numbers differ (ports, times, client ids), what we say does not:
    partitions differ by their number.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """now_s: seconds that only go forward."""
        super().__init__()
        self._now_s = now_s
        self._held: dict[tuple[str, int, str], tuple[float, int]] = {}  # when it last passed, how many since

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record may pass; adds the count of those held back to its text."""
        text, now_s = record.getMessage(), self._now_s()
        is_foreign = record.name.partition(".")[0] in _LIBRARIES
        key = record.name, record.levelno, _NUMBER.sub("#", text) if is_foreign else text
        passed_s, held = self._held.get(key, (now_s - EVERY_S, 0))
        if now_s - passed_s < EVERY_S:
            self._held[key] = passed_s, held + 1
            return False
        if len(self._held) >= KEPT:
            self._held = {each: (at_s, n) for each, (at_s, n) in self._held.items() if now_s - at_s < EVERY_S}
        if len(self._held) < KEPT or key in self._held:
            self._held[key] = now_s, 0
        if held:
            record.msg, record.args = f"{text} [{held} more like it in the last {now_s - passed_s:.0f} s]", ()
        return True


def set_up(level: str) -> None:
    """Log from here on to stderr. level: a name that logging knows."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if level != "debug":  # whose news is which of their services starts and stops
        for talkative in ("aiokafka", "faust", "mode"):
            logging.getLogger(talkative).setLevel(max(logging.WARNING, logging.root.level))
        for handler in logging.root.handlers:
            handler.addFilter(Damper())
