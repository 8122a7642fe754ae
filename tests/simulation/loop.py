"""An event loop whose time stands still while there is something to do, and jumps to the next timer when there is not.

So a batch that would wait two seconds for a hand waits for as long as it takes everybody else to come to rest.
"""

from __future__ import annotations

import asyncio
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs until nothing can happen any more by itself."""

    _ready: Any  # of asyncio.BaseEventLoop
    _scheduled: Any

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._elsewhere = 0

    def time(self) -> float:
        return self._now_s

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # noqa: ANN401
        """As ever; until its result has arrived time does not jump."""
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._elsewhere += 1
        future.add_done_callback(self._back)
        return future

    def _back(self, _: asyncio.Future[Any]) -> None:
        self._elsewhere -= 1

    def _run_once(self) -> None:
        if not self._ready and not self._elsewhere:
            due_s = min((timer.when() for timer in self._scheduled if not timer.cancelled()), default=None)
            if due_s is None:
                self.stop()
            else:
                self._now_s = max(self._now_s, due_s)
        super()._run_once()  # type: ignore[misc]  # not for the public

    def rest(self) -> None:
        """Let everything go on as far as it gets."""
        self.run_forever()
