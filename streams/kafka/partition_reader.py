"""Reading a partition to its end, committed records only, without a group: for changelogs, dead letters and markers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.errors import Refused, Unavailable
from streams.kafka import broker_errors, clients
from streams.kafka.broker_errors import Attempt, ErrorClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from confluent_kafka import Message

READER: Final = "skutrend-changelog-reader"  # a group that is never joined and commits nothing
AT_ONCE: Final = 10_000
WAIT_S: Final = 0.05
ANSWER_S: Final = 10.0
ABSENT_S: Final = 60.0  # so long a topic must be unknown before it is taken for missing
FIRST_ANSWER_S: Final = 1.0  # timeout of the first request for the bounds; each next one waits twice as long, so that
LAST_ANSWER_S: Final = 8.0  # a caller can stop in between, and slow brokers still get to answer
RETRY_S: Final = 0.25
SILENCE_S: Final = 60.0
_STARTS_ANEW: Final = frozenset({
    # the partition is no longer as `bounds` has found it: asking for the bounds again raises the reason
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  # librdkafka's own codes have no other names
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
})  # fmt: skip


class _ErrorBudget:
    """How long errors are retried: a refusal never, one that passes for `ANSWER_S`, an unknown topic for `ABSENT_S`."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._absent_since_s: float | None = None
        self._answer_s = FIRST_ANSWER_S / 2

    def answer_s(self) -> float:
        self._answer_s = min(2 * self._answer_s, LAST_ANSWER_S)
        return self._answer_s

    def is_over(self, code: int) -> bool:
        kind, now_s = broker_errors.classify(code), time.monotonic()
        if kind is not ErrorClass.ABSENT:
            self._absent_since_s = None
            return kind is ErrorClass.REFUSED or now_s - self._began_s > ANSWER_S
        if self._absent_since_s is None:
            self._absent_since_s = now_s
        return now_s - self._absent_since_s > ABSENT_S


class Reader:
    """Reads one partition; what: what the topic is, for sentences.

    `Unavailable` where it cannot be read just now: a broker or its leader is away, or has come back and does not know
    its own topics yet. `Refused` where it may not be read, or is not there, for `ABSENT_S` and by the metadata of
    brokers that know other topics.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        partition: int,
        *,
        what: str,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """config: librdkafka properties. meanwhile: called now and then while bounds are waited for; may raise."""
        self._meanwhile = meanwhile
        self._at = topic, partition
        self._what = what
        self._consumer = clients.consumer(
            {
                **config,
                "group.id": READER,
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
        budget = _ErrorBudget()
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(*self._at), timeout=budget.answer_s())
            except KafkaException as error:
                if budget.is_over(error.args[0].code()):
                    raise self._trouble(error.args[0]) from error
                self._meanwhile()
                time.sleep(RETRY_S)
            else:
                return low, high

    def records(self, start: int, end: int) -> Iterator[list[Message]]:
        """Give the records from `start` on, in batches, up to the partition's end; none where `end` is not beyond.

        While the brokers are silent (a quota, a slow network) batches are empty, so that the caller can stop.
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
                if error is not None and error.code() in _STARTS_ANEW:
                    raise self._unavailable(error)
                if error is not None and self._is_refusal(error.code()):
                    raise self._trouble(error)
            if time.monotonic() - heard_s > SILENCE_S:
                msg = "{}[{}] gave nothing for {:.0f} s".format(*self._at, SILENCE_S)
                raise Unavailable(msg)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def _trouble(self, error: KafkaError) -> Refused | Unavailable:
        topic, code = self._at[0], error.code()
        kind = broker_errors.classify(code)
        if kind is ErrorClass.REFUSED or (kind is ErrorClass.ABSENT and broker_errors.is_absent(self._consumer, topic)):
            return Refused(f"{self._failed(error)}; {Attempt('Read', topic=topic).remedy(code)}")
        return self._unavailable(error)

    @staticmethod
    def _is_refusal(code: int) -> bool:
        """Whether the topic may not be read; what concerns the group, which is never joined, is of no account."""
        return code != KafkaError.GROUP_AUTHORIZATION_FAILED and broker_errors.classify(code) is ErrorClass.REFUSED

    def _unavailable(self, error: KafkaError) -> Unavailable:
        return Unavailable(f"{self._failed(error)}; see whether the brokers answer")

    def _failed(self, error: KafkaError) -> str:
        topic, partition = self._at
        return f"{self._what} {topic}[{partition}] cannot be read ({error.name()}: {error.str()})"
