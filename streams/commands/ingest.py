"""The `ingest` command: a bus's topics in, the input topics out, until SIGTERM."""

from __future__ import annotations

import logging
import signal
from threading import Event
from typing import TYPE_CHECKING

from schemas.errors import BadSetting
from schemas.inputs import INPUT_NAMES
from streams.commands.serve import partition_counts, start_http
from streams.ingest.registry import Registry
from streams.ingest.stage import Stage
from streams.ingest.transfer import Outputs, Transfer
from streams.kafka import rights, topics
from streams.observe import logs
from streams.observe.metrics import Metrics
from streams.state import directories

if TYPE_CHECKING:
    from streams.intake.convert import Local
    from streams.intake.mapping import MappingFile
    from streams.settings import Settings

log = logging.getLogger(__name__)


def ingest(settings: Settings, mapping: MappingFile, local: Local) -> None:
    """Run one member of the stage until SIGTERM or SIGINT; raises what broke it (`Broken`)."""
    logs.set_up(settings.log_level)
    stage = Stage(mapping, local, lambda: Registry(settings.schema_registry))
    if not stage.topics:
        msg = f"mapping {mapping.name} names no topics: give an input `topics = [...]`"
        raise BadSetting(msg)
    if stage.upserts:
        what = f"the directory {settings.ingest_dir} (SKUTREND_STATE_DIR) of the latest values of upsert topics"
        directories.prepare(settings.ingest_dir, what=what, error=BadSetting)
    outputs = _outputs(settings, stage)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics = Metrics()
    transfer = Transfer(settings, stage, outputs, metrics)
    log.info("reading %s as group %s", ", ".join(stage.topics), transfer.group)
    server = start_http(settings, metrics, live=transfer.live, ready=transfer.ready)
    try:
        transfer.run(stop)
    finally:
        if server is not None:
            server.stop()


def _outputs(settings: Settings, stage: Stage) -> Outputs:
    """See that all topics are there and may be used; waits a while for brokers that do not answer yet.

    `BrokerTrouble`, `Refused` or `BadSetting` where they are not.
    """
    events = {name: settings.topic(name) for name in INPUT_NAMES}
    dead_letters = settings.output("dead-letters")
    if own := sorted({*events.values(), dead_letters}.intersection(stage.topics)):
        msg = f"the mapping reads {', '.join(own)}, which this stage writes; give the bus's topics other names"
        raise BadSetting(msg)
    partition_counts(settings, (*stage.topics, *events.values(), dead_letters))
    needed = dict.fromkeys(stage.topics, (rights.READ,))
    needed |= dict.fromkeys((*events.values(), dead_letters), (rights.WRITE,))
    rights.demand(settings.client, needed)
    limit_bytes = topics.letter_limit_bytes(settings.client, prefix=settings.output(""))
    return Outputs(events, dead_letters, limit_bytes)
