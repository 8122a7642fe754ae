"""Liveness and readiness of a worker, asked from the thread of the HTTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.worker.assignment import Assignment
    from streams.worker.inputs import Inputs
    from streams.worker.open_partitions import OpenPartitions
    from streams.worker.opening import Opener
    from streams.worker.reopening import Reopener


class Probes:
    """Answers for `/livez` and `/readyz`: whether it is so, and a sentence.

    All that is read here may be read while the event loop changes it.
    """

    def __init__(
        self,
        opened: OpenPartitions,
        *,
        assignment: Assignment,
        opener: Opener,
        reopener: Reopener,
        inputs: Inputs,
        unusable: Mapping[int, str],
    ) -> None:
        """Take what is asked. unusable: by input, why nothing of it can be used; empty where something can."""
        self._unusable = unusable
        self._opened, self._assignment, self._opener = opened, assignment, opener
        self._reopener, self._inputs = reopener, inputs

    def live(self) -> tuple[bool, str]:
        """Whether it makes progress: lag without progress for long is stuck, lag zero is idle."""
        stuck = self._reopener.stuck() or self._inputs.stuck()
        return not stuck, stuck or "live"

    def ready(self) -> tuple[bool, str]:
        """Whether it owns partitions, has restored them, and can use something of every input."""
        restoring = self._assignment.restoring
        if restoring:
            return False, "; ".join(self._opener.progress.values()) or restoring
        waiting = sorted(self._reopener.waiting)
        if waiting:
            return False, f"partitions {waiting} are about to be opened anew"
        if not self._assignment.is_restored:
            return False, "no partitions assigned yet"
        unusable = list(self._unusable.values())
        if unusable:
            return False, "; ".join(unusable)
        return True, f"partitions {sorted(self._opened.by_number)}"
