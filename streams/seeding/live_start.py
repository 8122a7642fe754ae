"""Where the live topics begin: the earliest event times they hold, and the offsets from which to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException, TopicPartition

from schemas.errors import StateMismatch, Unavailable
from schemas.inputs import INPUTS
from streams.kafka import clients
from streams.kafka.partition_reader import READER, Reader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka import Message

HEAD: Final = 1_000  # records of each partition that are looked at
_ANSWER_S: Final = 15.0
_MEMBERS_S: Final = 5.0


@dataclass(frozen=True)
class LiveStart:
    """How a topic begins, by what its first `HEAD` records of each partition say.

    first_ms: earliest event time, None where it holds no usable record. lows: first offset of each partition.
    is_stamped: whether no record is stamped earlier than its event by more than `max_ahead_ms`, so that the brokers can
    be asked for the offset of a moment.
    """

    topic: str
    first_ms: int | None
    lows: tuple[int, ...]
    is_stamped: bool


def look(config: Mapping[str, Any], topic: str, source: int, *, partitions: int, max_ahead_ms: int) -> LiveStart:
    """Read the head of each partition of an input. Raises what `Reader` does."""
    firsts, lows, is_stamped = [], [], True
    for number in range(partitions):
        reader = Reader(config, topic, number, what="the topic")
        try:
            low, high = reader.bounds()
            head = _head(reader, low, high)
        finally:
            reader.close()
        lows.append(low)
        columns, _ = INPUTS[source].decode([message.value() for message in head])
        times_ms = columns.event_time_ms.tolist()
        firsts += times_ms
        is_stamped &= all(
            head[row].timestamp()[1] >= time_ms - max_ahead_ms
            for row, time_ms in zip(columns.row.tolist(), times_ms, strict=True)
        )
    return LiveStart(topic, min(firsts, default=None), tuple(lows), is_stamped)


def _head(reader: Reader, low: int, high: int) -> list[Message]:
    head: list[Message] = []
    for messages in reader.records(low, high):
        head += messages
        if len(head) >= HEAD:
            break
    return head[:HEAD]


def offsets_at(config: Mapping[str, Any], start: LiveStart, from_ms: int) -> tuple[int, ...]:
    """Give the offset of each partition from which on records are stamped `from_ms` or later; `lows` at the least.

    Those are the first ones where stamps do not tell. `Unavailable` where the brokers do not say.
    """
    if start.first_ms is None or not start.is_stamped:
        return start.lows
    consumer = clients.consumer({**config, "group.id": READER, "enable.auto.commit": False})
    asked = [TopicPartition(start.topic, number, from_ms) for number in range(len(start.lows))]
    try:
        found = []
        for place, low in zip(consumer.offsets_for_times(asked, timeout=_ANSWER_S), start.lows, strict=True):
            if place.error is not None:
                raise KafkaException(place.error)
            if place.offset >= 0:
                found.append(max(low, place.offset))
            else:  # all records are stamped earlier
                found.append(consumer.get_watermark_offsets(place, timeout=_ANSWER_S)[1])
    except KafkaException as error:
        why = error.args[0].str()
        msg = f"the offsets of {start.topic} at a moment are not known ({why}); see whether the brokers answer"
        raise Unavailable(msg) from error
    finally:
        consumer.close()
    return tuple(found)


def check_idle(config: Mapping[str, Any], group: str) -> None:
    """Raise `StateMismatch` where workers of a group are running; silent where the brokers do not say."""
    asked = clients.admin(config).describe_consumer_groups([group], request_timeout=_MEMBERS_S)
    try:
        members: Sequence[Any] = asked[group].result().members
    except KafkaException:
        return  # nobody has ever been in it, or nobody says: a worker that runs is fenced, and says so
    if members:
        msg = (
            f"group {group} has {len(members)} members: stop the workers, since history goes before the first start; "
            "or seed a group of its own (SKUTREND_GROUP) and start workers of that"
        )
        raise StateMismatch(msg)
