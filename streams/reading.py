"""Reading a partition to its end, committed records only, without a group: for changelogs, dead letters and markers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.errors import BrokerTrouble
from streams import clients

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confluent_kafka import Message

AT_ONCE: Final = 10_000
WAIT_S: Final = 0.05
ANSWER_S: Final = 30.0
SILENCE_S: Final = 60.0


class Reader:
    """Reads one partition; `BrokerTrouble` where it cannot. what: what the topic is, for that sentence."""

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
            }
        )

    def bounds(self) -> tuple[int, int]:
        """First offset and the one after the last."""
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*self._at), timeout=ANSWER_S)
        except KafkaException as error:
            raise self._trouble(error.args[0]) from error
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
                if error is not None and not error.retriable():
                    raise self._trouble(error)
            if time.monotonic() - heard_s > SILENCE_S:
                msg = "{}[{}] gave nothing for {:.0f} s".format(*self._at, SILENCE_S)
                raise BrokerTrouble(msg)

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def _trouble(self, error: KafkaError) -> BrokerTrouble:
        topic, partition = self._at
        return BrokerTrouble(
            f"{self._what} {topic}[{partition}] cannot be read ({error.name()}: {error.str()}); "
            "see whether it is there (`skutrend topics check`) and may be read"
        )
