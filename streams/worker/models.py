"""The model that serves may change while the worker runs: a new bundle is noticed, checked, and taken over.

A new bundle is loaded and warmed up beside the old one; where it cannot serve, that is said once and the old one stays.
Each partition goes over to it between two windows, all of them before the same window as far as this worker owns them:
those that lag behind close with the old one what the others have closed with it. The state of each SKU is rebuilt from
its ring in a thread, while the partition's lock is held; other partitions go on.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from schemas.errors import BadSetting, BundleMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.session import Session
    from streams.config.bundle_source import BundleSource
    from streams.partition.partition import Partition
    from streams.worker.environment import Environment
    from streams.worker.open_partitions import OpenPartitions

log = logging.getLogger(__name__)


class Models:
    """Looks for new bundles, and brings partitions over. source: of the bundle; None: none, or never looked at again.

    make: loads and checks what is there now (`BundleMismatch`, `BadSetting`).
    """

    def __init__(
        self,
        environment: Environment,
        opened: OpenPartitions,
        *,
        source: BundleSource | None = None,
        make: Callable[[], Session] | None = None,
    ) -> None:
        """Start with the model that the environment has."""
        self._environment, self._opened = environment, opened
        self._source, self._make = source, make
        self._seen = ""  # what the files were when they were last found to be whole
        self._bad: str | None = None  # what they were when they were last found not to be
        self._said = ""
        self._since: int | None = None  # the first window to close with the newest model
        self.show()

    def show(self) -> None:
        """Show in the metrics which model serves."""
        session, gauge = self._environment.serving.session, self._environment.metrics.provider
        gauge.clear()
        if session is not None:
            gauge.labels(session.model, session.provider).set(1)

    async def look(self) -> None:
        """See whether there is another bundle, and take it over where it can serve."""
        if self._source is None or self._make is None:
            return
        stamp = ""
        try:
            stamp = await asyncio.to_thread(self._source.stamp)
            if stamp == self._seen:
                return
            session = await asyncio.to_thread(self._make)
        except (BundleMismatch, BadSetting) as error:
            self._refuse(stamp, str(error))
            return
        self._seen, self._bad, self._said = stamp, None, ""
        self._take_over(session)

    def _take_over(self, session: Session) -> None:
        """Let the partitions go over to a model, if it is another one."""
        current = self._environment.serving.session
        if current is None or session.model == current.model:
            return
        log.info("bundle %s is there, and will serve in place of %s", session.model, current.model)
        self._environment.serving.session = session
        standing = [partition.sku_state.windows.first_open for partition in self._opened.by_number.values()]
        self._since = max((first for first in standing if first is not None), default=None)
        self.show()

    def _refuse(self, stamp: str, why: str) -> None:
        """Say what is wrong with a bundle, once, and not before it stays so: it may still be on its way here."""
        if stamp != self._bad:
            self._bad = stamp
            return
        self._environment.metrics.bundles_refused.inc()
        if why != self._said:
            self._said = why
            current = self._environment.serving.session
            log.error("%s; %s goes on serving", why, "nothing" if current is None else current.model)

    async def adopt_due(self, partition: Partition) -> None:
        """Bring a partition over to the newest model, unless windows are to close with the old one; holds its lock."""
        session, first_open = self._environment.serving.session, partition.sku_state.windows.first_open
        if session is None or partition.session is session:
            return
        if self._since is not None and first_open is not None and first_open < self._since:
            return
        began_ms = self._environment.monotonic()
        await self._opened.locks.run_blocking(partial(partition.change_model, session))
        took_ms = self._environment.monotonic() - began_ms
        partition.watermark.missed(took_ms)
        log.info(
            "partition %d: served by %s from now on (warmed up in %d ms)", partition.number, session.model, took_ms
        )
