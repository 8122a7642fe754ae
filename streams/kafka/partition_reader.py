"""Reading a partition to its end, committed records only, without a group: for changelogs, dead letters and markers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.errors import BrokerTrouble, Unavailable
from streams.kafka import clients

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confluent_kafka import Message

AT_ONCE: Final = 10_000
WAIT_S: Final = 0.05
ANSWER_S: Final = 10.0
RETRY_S: Final = 0.25
SILENCE_S: Final = 60.0
_REFUSALS: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_FOR_GOOD: Final = _REFUSALS | frozenset({
    # also what a broker says that comes back and has not read its own metadata yet
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  # librdkafka's own codes have no other names
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
})  # fmt: skip


class Reader:
    """Reads one partition; what: what the topic is, for sentences.

    `Unavailable` where it cannot be read just now (a broker or its leader is away), `BrokerTrouble` where it may not or
    is not there.
    """

    def __init__(self, config: Mapping[str, Any], topic: str, partition: int, *, what: str) -> None:
        """config: librdkafka properties."""
        self._at = topic, partition
        self._what = what
        self._consumer = clients.consumer(
            {
                **config,
                "group.id": "skutrend-changelog-reader",  # never joins, never commits
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 10,
                "queued.min.messages": 100_000,
                "queued.max.messages.kbytes": 16_384,
            }
        )

    def bounds(self) -> tuple[int, int]:
        """First offset and the one after the last; a leader that is not there yet is waited for."""
        deadline_s = time.monotonic() + ANSWER_S
        while True:
            left_s = max(RETRY_S, deadline_s - time.monotonic())
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(*self._at), timeout=left_s)
            except KafkaException as error:
                if error.args[0].code() in _REFUSALS or time.monotonic() > deadline_s:
                    raise self._trouble(error.args[0]) from error
                time.sleep(RETRY_S)
            else:
                return low, high

    def records(self, start: int, end: int) -> Iterator[list[Message]]:
        """Give the records from `start` on, in batches, up to the partition's end; none where `end` is not beyond.

        While the brokers are silent (a quota, a slow network) batches are empty: whoever reads can give up.
        """
        if start >= end:
            return
        self._consumer.assign([TopicPartition(*self._at, start)])
        heard_s = time.monotonic()
        while True:
            got = self._consumer.consume(AT_ONCE, WAIT_S)
            rows = [message for message in got if message.error() is None]
            if rows:
                heard_s = time.monotonic()
            yield rows
            for message in got:
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # its only name
                    return
                if error is not None and error.code() in _FOR_GOOD:
                    raise self._trouble(error)
            if time.monotonic() - heard_s > SILENCE_S:
                msg = "{}[{}] gave nothing for {:.0f} s".format(*self._at, SILENCE_S)
                raise Unavailable(msg)

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def _trouble(self, error: KafkaError) -> BrokerTrouble:
        topic, partition = self._at
        what = f"{self._what} {topic}[{partition}] cannot be read ({error.name()}: {error.str()})"
        if error.code() in _FOR_GOOD:
            return BrokerTrouble(f"{what}; see whether it is there (`skutrend topics check`) and may be read")
        return Unavailable(f"{what}; see whether the brokers answer")
