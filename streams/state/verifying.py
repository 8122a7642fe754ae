"""Whether a partition's store and its changelog hold the same.

The changelog is read into a second store beside the first, as a recovery would do it, and both are gone through in the
order of their keys: it takes the disk of one more copy, and little memory however much there is.
"""

from __future__ import annotations

import tempfile
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from features.corrections import Corrections
from schemas.errors import BadInput, StateMismatch
from streams.kafka.partition_reader import Reader
from streams.kafka.topic_ids import TopicIds
from streams.observe.progress import track_progress
from streams.state import keys
from streams.state.recovery import recover, unread
from streams.state.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.settings import Settings
    from streams.state.recovery import RecoveryProgress

NAMED: Final = 3
REPORT_EVERY: Final = 10_000
Record = tuple[bytes, bytes]


def compare(settings: Settings, store: Store, number: int) -> int:
    """Compare a partition's open store with its changelog; returns how many records they have in common.

    `StateMismatch` where the store is not at the changelog's end, or not the same; then it names the first differences.
    """
    if settings.changelog == "off":
        msg = "there is no changelog to compare with (SKUTREND_CHANGELOG is off)"
        raise BadInput(msg)
    where = f"{settings.changelog_topic}[{number}]"
    _at_the_end(settings, store, number, where)
    with tempfile.TemporaryDirectory(prefix=".verify-", dir=store.path.parent) as folder:
        copy = Store(Path(folder) / store.path.name)
        try:
            topic = settings.changelog_topic
            reader = Reader(settings.client, topic, number, what="the changelog")
            recover(copy, reader, topic=topic, partition=number, report=_say)
            return _compare(store, copy, where, settings)
        finally:
            copy.close()


def _at_the_end(settings: Settings, store: Store, number: int, where: str) -> None:
    position = store.position()
    if position is None:
        msg = f"{store.path} contains nothing of {where} yet: start a worker, which brings it up to that"
        raise StateMismatch(msg)
    before, now = store.changelog_id(), TopicIds(settings.client, [settings.changelog_topic]).ask()
    if before is not None and now.get(settings.changelog_topic, before) != before:
        msg = (
            f"{store.path} contains {where} as it was when the topic's id was {before}, now it is "
            f"{now[settings.changelog_topic]}: the topic was made again; start a worker, which says what to do"
        )
        raise StateMismatch(msg)
    behind = unread(settings.client, topic=settings.changelog_topic, partition=number, position=position)
    if behind is None:
        msg = (
            f"{store.path} contains {where} up to offset {position}, which lies beyond its end: the topic was made "
            "again; start a worker, which says what to do"
        )
        raise StateMismatch(msg)
    if behind:
        msg = (
            f"{store.path} contains {where} up to offset {position}, while that goes on ({behind:,} records more): a "
            "worker was killed between the two, or another one has the partition now; whichever gets it next brings "
            "the store up"
        )
        raise StateMismatch(msg)


def _say(progress: RecoveryProgress) -> None:
    click.echo(str(progress), err=True)


def _compare(store: Store, copy: Store, where: str, settings: Settings) -> int:
    meta = store.meta()
    first_open = None if meta is None else meta.first_open
    in_reach = (
        None
        if first_open is None
        else Corrections(settings.grid, within_ms=settings.correct_within_ms).first_in_reach(first_open)
    )
    same = differing = 0
    named: list[str] = []
    with track_progress(f"comparing with {where}", store.estimate()) as advance:
        for done, (key, here, there) in enumerate(_pairs(store.scan.records(), copy.scan.records()), start=1):
            if done % REPORT_EVERY == 0:
                advance(REPORT_EVERY)
            if here == there:
                same += 1
            elif not (there is None and _is_closed(key, first_open, in_reach)):
                differing += 1
                if len(named) < NAMED:
                    named.append(f"{keys.name_of(key)} {_how(here, there)}")
    if differing:
        more = f" and {differing - len(named):,} more" if differing > len(named) else ""
        msg = (
            f"{store.path} and {where} differ in {differing:,} of {same + differing:,} records: "
            f"{', '.join(named)}{more}; delete that directory to rebuild it from the changelog"
        )
        raise StateMismatch(msg)
    return same


def _is_closed(key: bytes, first_open: int | None, in_reach: int | None) -> bool:
    """Whether a record is of a window that is done with: the next flush removes it, a restart passes over it."""
    window, before = keys.window_of(key), in_reach if key[:1] in keys.IN_REACH else first_open
    return before is not None and window is not None and window < before


def _how(here: bytes | None, there: bytes | None) -> str:
    if there is None:
        return "is only in the store"
    return "is only in the changelog" if here is None else "has other bytes"


def _pairs(left: Iterator[Record], right: Iterator[Record]) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Bring two ascending sequences together: key, and what each has under it.

    >>> list(_pairs(iter([(b"a", b"1"), (b"b", b"2")]), iter([(b"b", b"2"), (b"c", b"3")])))
    [(b'a', b'1', None), (b'b', b'2', b'2'), (b'c', None, b'3')]
    """
    both = merge(((key, 0, value) for key, value in left), ((key, 1, value) for key, value in right))
    for key, found in groupby(both, key=itemgetter(0)):
        values = {side: value for _, side, value in found}
        yield key, values.get(0), values.get(1)
