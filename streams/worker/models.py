"""The model that serves, and its shadow, may change while the worker runs: new bundles are noticed and taken over.

A new bundle is loaded and warmed up beside the old one; where it cannot serve, that is said once and the old one stays.
Each partition goes over to it between two windows, all of them before the same window as far as this worker owns them:
those that lag behind close with the old one what the others have closed with it. The state of each SKU is rebuilt from
its ring in a thread, while the partition's lock is held; other partitions go on.

A shadow is compared over all partitions of this worker. One that is not worse is put in the place of the bundle that
serves, where that is wished for: then all workers notice it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from inference.shadow import verdict
from schemas.errors import BadSetting, BundleMismatch
from streams.config.bundle_source import BundleSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.session import Session
    from inference.shadow import Verdict
    from streams.partition.partition import Partition
    from streams.worker.environment import Environment
    from streams.worker.open_partitions import OpenPartitions

log = logging.getLogger(__name__)


class Watched(NamedTuple):
    """Bundles that are looked at: that which serves and its shadow, None where there is none or it cannot change.

    make: loads and checks what is there now (`BundleMismatch`, `BadSetting`).
    """

    serving: BundleSource | None
    shadow: BundleSource | None
    make: Callable[[BundleSource], Session]


class _Look:
    """What is known of a bundle that is looked at again and again."""

    def __init__(self, source: BundleSource, make: Callable[[BundleSource], Session]) -> None:
        self.source, self._make = source, make
        self._seen = ""  # what the files were when they were last found to be whole
        self._bad: str | None = None  # what they were when they were last found not to be
        self._said = ""

    async def new(self) -> Session | None:
        """Load the bundle if it is another one than the last time; None if not. `BundleMismatch` if it cannot serve.

        Not before it stays so: it may still be on its way here.
        """
        stamp = ""
        try:
            stamp = await asyncio.to_thread(self.source.stamp)
            if stamp == self._seen:
                return None
            session = await asyncio.to_thread(self._make, self.source)
        except (BundleMismatch, BadSetting) as error:
            was, self._bad = self._bad, stamp
            if was == stamp:
                raise BundleMismatch(str(error)) from error
            return None
        self._seen, self._bad, self._said = stamp, None, ""
        return session

    def is_news(self, why: str) -> bool:
        """Whether that has not been said of it yet."""
        is_new, self._said = why != self._said, why
        return is_new


class Models:
    """Looks for new bundles, and brings partitions over. watched: None where none is looked at."""

    def __init__(self, environment: Environment, opened: OpenPartitions, watched: Watched | None = None) -> None:
        """Start with the model that the environment has."""
        self._environment, self._opened = environment, opened
        serving, shadow, make = watched or (None, None, None)
        self._serving = None if serving is None or make is None else _Look(serving, make)
        self._shadow = None if shadow is None or make is None else _Look(shadow, make)
        self._since: int | None = None  # the first window to close with the newest model
        self._advised = ""
        self.show()

    def show(self) -> None:
        """Show in the metrics which model serves."""
        session, gauge = self._environment.serving.session, self._environment.metrics.provider
        gauge.clear()
        if session is not None:
            gauge.labels(session.model, session.provider).set(1)

    async def begin(self) -> None:
        """Load the shadow before the first partition is opened, so that none closes a window without it."""
        await self._look_for_shadow()

    async def look(self) -> None:
        """See whether there are other bundles, take over what can serve, and judge the shadow."""
        serving = self._environment.serving
        session = await self._new(self._serving)
        if session is not None and serving.session is not None and session.model != serving.session.model:
            self._take_over(session, serving.session)
        await self._look_for_shadow()
        if serving.shadow is not None:
            await self._judge(serving.shadow)

    async def _look_for_shadow(self) -> None:
        shadow = await self._new(self._shadow)
        if shadow is not None:
            log.info("bundle %s is the shadow from now on", shadow.model)
            self._environment.serving.shadow = shadow

    async def _new(self, look: _Look | None) -> Session | None:
        """Load a bundle that is another one than before, and say what is wrong with one that cannot serve."""
        if look is None:
            return None
        try:
            return await look.new()
        except BundleMismatch as error:
            self._environment.metrics.bundles_refused.inc()
            if look.is_news(str(error)):
                current = self._environment.serving.session
                log.error("%s; %s goes on serving", error, "nothing" if current is None else current.model)
            return None

    def _take_over(self, session: Session, before: Session) -> None:
        """Let the partitions go over to a model."""
        log.info("bundle %s is there, and will serve in place of %s", session.model, before.model)
        self._environment.serving.session = session
        standing = [partition.sku_state.windows.first_open for partition in self._opened.by_number.values()]
        self._since = max((first for first in standing if first is not None), default=None)
        self.show()

    # ------------------------------------------------------------------ the shadow
    async def _judge(self, shadow: Session) -> None:
        """Show how the shadow compares, and do what is wished for once it is not worse."""
        compared = [p.pipeline.shadow_score for p in self._opened.by_number.values() if p.shadow is shadow]
        found = verdict(compared)
        self._show_verdict(shadow, found)
        wish, current = self._environment.settings.shadow_promotion, self._environment.serving.session
        if found is None or not found.is_not_worse or wish == "off" or self._advised == shadow.model:
            return
        self._advised = shadow.model
        against = "what is served" if current is None else current.model
        is_promoted = wish == "automatic" and self._serving is not None
        what = "it is put in its place" if is_promoted else "put it in the place of SKUTREND_BUNDLE, if you wish"
        log.warning("shadow %s is not worse than %s: loss %s; %s", shadow.model, against, found, what)
        if is_promoted and self._serving is not None:
            try:
                await asyncio.to_thread(self._serving.source.put, shadow.bundle.directory)
            except BundleMismatch as error:
                log.error("%s; %s goes on serving", error, against)

    def _show_verdict(self, shadow: Session, found: Verdict | None) -> None:
        metrics = self._environment.metrics
        metrics.shadow_loss.clear()
        metrics.shadow_windows.set(0 if found is None else found.windows)
        if found is not None:
            for bound in ("low", "mean", "high"):
                metrics.shadow_loss.labels(shadow.model, bound).set(getattr(found, bound))

    # ------------------------------------------------------------------ partitions
    async def adopt_due(self, partition: Partition) -> None:
        """Bring a partition over to the newest models, unless windows are to close with the old; holds its lock."""
        serving, first_open = self._environment.serving, partition.sku_state.windows.first_open
        is_behind = self._since is not None and first_open is not None and first_open < self._since
        if serving.session is not None and partition.session is not serving.session and not is_behind:
            await self._change(partition, partial(partition.change_model, serving.session), "served", serving.session)
        same = serving.shadow is None or serving.session is None or serving.shadow.model == serving.session.model
        wanted = None if same else serving.shadow
        if partition.session is not None and partition.shadow is not wanted:
            await self._change(partition, partial(partition.change_shadow, wanted), "shadowed", wanted)

    async def _change(
        self, partition: Partition, change: Callable[[], None], what: str, session: Session | None
    ) -> None:
        began_ms = self._environment.monotonic()
        await self._opened.locks.run_blocking(change)
        took_ms = self._environment.monotonic() - began_ms
        partition.watermark.missed(took_ms)
        name = "nobody" if session is None else session.model
        log.info("partition %d: %s by %s from now on, warmed up in %d ms", partition.number, what, name, took_ms)
