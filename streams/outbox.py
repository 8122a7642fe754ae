"""The write path of one partition: everything it says goes through `put`, and counts once `settle` has returned.

Measured against one local broker with 800-byte values, the producer's plain `produce` takes 200,000 to 600,000 records
a second from a loop; its `produce_batch` 150,000 to 300,000, since it wants a dict per record. Hence the loop.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.errors import FlushFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

POLL_S: Final = 0.05  # how long to let the network take records when the queue is full
DEFAULTS: Final[Mapping[str, Any]] = {
    "partitioner": "murmur2_random",  # as the Java client and aiokafka do; librdkafka's own default is CRC32
    "acks": "all",
    "enable.idempotence": True,
    "compression.type": "lz4",
    "message.max.bytes": 64 << 20,  # what a topic takes is for the broker to say
    "linger.ms": 20,  # `settle` does not wait for it
    "delivery.report.only.error": True,
}


class Outbox:
    """One producer; not shared between partitions, so that one can be fenced or fail without the others.

    config: librdkafka properties; wins over `DEFAULTS`. on_error: told, in a sentence, of trouble that librdkafka is
    still trying to mend, such as a broker that does not answer; called from within `put` and `settle`.

    Calls block: `put` while the producer's queue is full, `settle` until the broker has answered. Not thread-safe
    between `put` and `settle`. After `FlushFailed` an outbox is of no more use than to be closed.
    """

    def __init__(self, config: Mapping[str, Any], *, on_error: Callable[[str], None]) -> None:
        """Make the producer; it connects when there is something to send."""
        self._failed: list[str] = []
        self._pending = 0
        self._on_error = on_error
        properties = {**DEFAULTS, **config, "on_delivery": self._delivered, "error_cb": self._troubled}
        self._producer = Producer(properties, logger=log)

    def put(self, topic: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Queue records in this order; `keys` and `values` are of one length. `FlushFailed` when one is refused."""
        produce = self._producer.produce
        for key, value in zip(keys, values, strict=True):
            while True:
                try:
                    produce(topic, value, key)
                except BufferError:
                    self._producer.poll(POLL_S)
                except KafkaException as error:
                    raise _refused(topic, key, error) from error
                else:
                    break
        self._pending += len(keys)
        self._producer.poll(0)

    def put_one(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> None:
        """Queue one record with headers."""
        while True:
            try:
                self._producer.produce(topic, value, key, headers=list(headers))
            except BufferError:
                self._producer.poll(POLL_S)
            except KafkaException as error:
                raise _refused(topic, key, error) from error
            else:
                break
        self._pending += 1

    def settle(self, timeout_s: float) -> int:
        """Wait until all that was put since the last settle is safely with the broker; returns how many that were.

        `FlushFailed` when some of it is not within `timeout_s`: records may then be there, missing, or still come.
        """
        left = self._producer.flush(timeout_s)
        failed, self._failed = self._failed, []
        pending, self._pending = self._pending, 0
        if failed:
            msg = f"{len(failed)} of {pending} records were not written, the first because {failed[0]}"
            raise FlushFailed(msg)
        if left:
            msg = (
                f"{left} of {pending} records were not acknowledged within {timeout_s:g} s; "
                "see whether the brokers answer and have enough in-sync replicas"
            )
            raise FlushFailed(msg)
        return pending

    def close(self) -> None:
        """Give up what is still queued and end the producer's threads."""
        self._producer.purge()
        self._producer.flush(1)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:  # never None, as long as only errors are reported
            self._failed.append(f"{message.topic()} answered {error.name()}: {error.str()}")

    def _troubled(self, error: KafkaError) -> None:
        if error.fatal():
            self._failed.append(f"the producer met a fatal error, {error.name()}: {error.str()}")
        self._on_error(f"{error.name()}: {error.str()}")


def _refused(topic: str, key: bytes | None, error: KafkaException) -> FlushFailed:
    what: KafkaError = error.args[0]
    return FlushFailed(f"a record of key {key!r} for {topic} was refused, {what.name()}: {what.str()}")
