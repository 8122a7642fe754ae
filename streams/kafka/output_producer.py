"""The write path of one partition: all outputs go through `put`, and are durable once `commit` has returned.

With a transactional id all that was put since the last `commit` is one Kafka transaction: readers of committed records
see all of it or nothing, and a producer that initialises the same id later fences this one.

Measured against one local broker with 800-byte values, the producer's plain `produce` takes 200,000 to 600,000 records
a second from a loop; its `produce_batch` 150,000 to 300,000, since it wants a dict per record. Hence the loop.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Message

from schemas.errors import BadSetting, Fenced, FlushFailed, Refused
from streams.kafka import clients
from streams.kafka.deadline import Deadline
from streams.kafka.producer_errors import ProducerErrors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import TopicPartition

QUEUE_MESSAGES: Final = "queue.buffering.max.messages"
QUEUE_RECORDS: Final = 100_000  # librdkafka's default of it
POLL_S: Final = 0.05  # how long to let the network take records when the queue is full
_LEAST_SLICE_S: Final = 0.05
_SHOWN_BYTES: Final = 64  # of a key, in sentences
SLICE_S: Final = 0.5  # how soon a call that waits notices a shortened deadline
ANY_PARTITION: Final = -1
DEFAULTS: Final[Mapping[str, Any]] = {
    "partitioner": "murmur2_random",  # as the Java client and aiokafka do; librdkafka's own default is CRC32
    "acks": "all",
    "enable.idempotence": True,
    "compression.type": "lz4",
    "message.max.bytes": 64 << 20,  # what a topic takes is for the broker to say
    "linger.ms": 20,  # `commit` does not wait for it
}
TRANSACTIONS: Final[Mapping[str, Any]] = {
    "transaction.timeout.ms": 60_000,
    "retry.backoff.ms": 20,  # init_transactions aborts its predecessor's transaction, and waits so long
}
REPORTED_BYTES: Final = 64 << 10
"""Of a transaction's records only the first of each `put` and those from this size on report why they failed.

What refuses a topic refuses its first record, what refuses a size the large ones; a report for every record costs a
fifth of the time that producing takes.
"""


class OutputProducer:
    """One producer; not shared between partitions, so that one can be fenced or fail without the others.

    config: librdkafka properties; wins over `DEFAULTS`. on_error: called with a sentence about an error that librdkafka
    still retries, such as a broker that does not answer; from within `put` and `commit`. With a
    transactional_id, `init_transactions` comes before the first `put`.

    Calls block: `put` while the producer's queue is full and the brokers take some of it (ask `has_room` before, where
    nothing may block), `commit` until they have answered. Not thread-safe between `put` and `commit`. After
    `FlushFailed`, `Fenced` or `Refused` a producer is of no more use than to be closed. `Refused` is what does not pass
    with time: streams/kafka/broker_errors.py has the table.
    """

    def __init__(
        self, config: Mapping[str, Any], *, on_error: Callable[[str], None], transactional_id: str | None = None
    ) -> None:
        """Make the producer; it connects when there is something to send."""
        self.transactional_id = transactional_id
        self._errors = ProducerErrors(transactional_id, config=config, on_error=on_error)
        self._pending = 0
        self._in_transaction = False
        self._marked: int | None = None
        self._answer_s = clients.answer_ms(config) / 1000
        self._deadline: Deadline | None = None  # of the flush that has begun
        self._stall: _Stall | None = None  # since when `has_room` has seen too many records waiting
        properties = {**DEFAULTS, **config, "error_cb": self._errors.reported}
        self._most_waiting = _queue_records(properties) / 2
        if transactional_id is None:
            properties |= {"on_delivery": self._errors.delivered, "delivery.report.only.error": True}
        else:
            properties = {**TRANSACTIONS, **properties, "transactional.id": transactional_id}
        self._producer = self._errors.producer = clients.producer(properties)

    def init_transactions(self, timeout_s: float, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Take the transactional id over: its last owner is fenced, and the transaction that it left open is aborted.

        meanwhile: called now and then while the brokers do not answer; may raise.
        """
        what = f"the transactional id {self.transactional_id!r} could not be taken over"
        self._retry(self._producer.init_transactions, what, Deadline(timeout_s), meanwhile)

    def begin(self, deadline: Deadline) -> None:
        """Begin a flush: its `put` and the next `commit` end by this deadline, which another thread may shorten."""
        self._deadline = deadline

    def put(
        self, topic: str, keys: Sequence[bytes], values: Sequence[bytes | None], partition: int = ANY_PARTITION
    ) -> None:
        """Queue records in this order; `keys` and `values` are of one length. `FlushFailed` when one is not taken."""
        produce, key = self._producer.produce, b""
        reported = report = self._report
        with self._errors.translated(lambda: f"a record of key {key[:_SHOWN_BYTES]!r} for {topic} was refused", topic):
            self._begin()
            for key, value in zip(keys, values, strict=True):
                if value is not None and len(value) >= REPORTED_BYTES:
                    report = reported
                while True:
                    try:
                        produce(topic, value, key, partition, report)
                    except BufferError:
                        self._await_room()
                    else:
                        break
                report = None
            self._pending += len(keys)
            self._producer.poll(0)

    def put_one(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> None:
        """Queue one record with headers."""
        self._one(topic, key, value, headers=list(headers), on_delivery=self._report)

    def put_marked(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        """Queue one record whose offset `marked_offset` is after the next `commit`."""
        self._marked = None
        self._one(topic, key, value, partition=partition, on_delivery=self._mark)

    def _one(self, topic: str, key: bytes | None, value: bytes | None, **how: Any) -> None:  # noqa: ANN401
        shown = (key or b"")[:_SHOWN_BYTES]
        with self._errors.translated(lambda: f"a record of key {shown!r} for {topic} was refused", topic):
            self._begin()
            while True:
                try:
                    self._producer.produce(topic, value, key, **how)
                except BufferError:
                    self._await_room()
                else:
                    break
            self._pending += 1

    def has_room(self, *, by_s: float = math.inf) -> bool:
        """Whether half of the queue is free, so that `put` need not wait for the brokers; does not block.

        by_s: until when they may take their time (time.monotonic). Asked again and again it raises `FlushFailed` as
        `put` does: when they have taken nothing for the time of an answer, or `by_s` is over.
        """
        with self._errors.translated(lambda: "no more records are taken"):
            self._producer.poll(0)
        waiting = len(self._producer)
        if waiting <= self._most_waiting:
            self._stall = None
            return True
        if self._stall is None or waiting < self._stall.waiting:
            self._stall = _Stall(waiting, time.monotonic())
        self._stall.check(self._answer_s, left_s=by_s - time.monotonic())
        return False

    def _await_room(self) -> None:
        """Wait until a full queue has room; fails after the time of an answer, or at the deadline of the flush."""
        stall = _Stall(len(self._producer), time.monotonic())
        while len(self._producer) >= stall.waiting:
            stall.check(self._answer_s, left_s=math.inf if self._deadline is None else self._deadline.left_s)
            self._producer.poll(POLL_S)

    @property
    def marked_offset(self) -> int | None:
        """Offset of the last record given to `put_marked`; None before it has been written."""
        return self._marked

    def commit(self, timeout_s: float | None = None) -> int:
        """Wait until the brokers have acknowledged all that was put since the last commit; returns how many records.

        timeout_s: None waits by the deadline that was given to `begin`. `FlushFailed` when some of it is not there by
        then: records may then be there, missing, or still come. `Fenced` when another worker has taken the
        transactional id over: none of it will ever be visible. `Refused` when the brokers will never accept some of it,
        however often it is sent.
        """
        deadline = self._deadline if timeout_s is None else Deadline(timeout_s)
        if deadline is None:
            msg = "commit() without timeout_s needs a deadline from begin()"
            raise ValueError(msg)
        what = f"{self._pending} records were not written"
        with self._errors.translated(lambda: what):
            while (left := self._producer.flush(_slice_s(deadline))) and deadline.left_s > 0:
                continue
        pending, self._pending = self._pending, 0
        lost = self._errors.take_lost(pending)
        if lost is not None and (isinstance(lost, Refused) or not self._in_transaction):
            raise lost
        if left:
            msg = (
                f"{left} of {pending} records were not acknowledged within {deadline.span_s:.1f} s; "
                "see whether the brokers answer and have enough in-sync replicas"
            )
            raise FlushFailed(msg)
        if self._in_transaction:  # what was not delivered fails the commit, which knows whether it was fenced
            self._retry(self._producer.commit_transaction, str(lost or what), deadline)
            self._in_transaction = False
        if lost is not None:
            raise lost
        self._deadline = None
        return pending

    def send_offsets(self, offsets: Sequence[TopicPartition], group: Any) -> None:  # noqa: ANN401 - opaque
        """Let the offsets that a consumer has read up to be committed with the transaction that is under way.

        group: the consumer's `consumer_group_metadata()`, by which one that has lost its partitions is refused.
        """
        deadline = self._deadline
        if deadline is None:
            msg = "send_offsets() needs a deadline from begin()"
            raise ValueError(msg)
        what = "the offsets were not added to the transaction"
        with self._errors.translated(lambda: what):
            self._begin()
        self._retry(lambda s: self._producer.send_offsets_to_transaction(offsets, group, s), what, deadline)

    def abort(self, timeout_s: float) -> None:
        """Abort all that was put since the last `commit`, so that readers of committed records need not wait for it."""
        if self._in_transaction:
            self._in_transaction = False
            with suppress(Fenced, FlushFailed, Refused):
                self._producer.purge()
                self._retry(self._producer.abort_transaction, "the transaction was not aborted", Deadline(timeout_s))
            self._errors.clear()  # what was purged was not lost

    def _begin(self) -> None:
        if self.transactional_id is not None and not self._in_transaction:
            self._producer.begin_transaction()
            self._in_transaction = True

    def _retry(
        self, call: Callable[[float], Any], what: str, deadline: Deadline, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Repeat a call about transactions while librdkafka says that its error is retriable, up to the deadline."""
        with self._errors.translated(lambda: what):
            while True:
                try:
                    call(_slice_s(deadline))
                except KafkaException as error:
                    if not error.args[0].retriable() or deadline.left_s < 0:
                        raise
                else:
                    return
                meanwhile()

    def close(self) -> None:
        """Drop what is still queued and end the producer's threads."""
        with suppress(Fenced, FlushFailed, Refused), self._errors.translated(lambda: "closing"):
            self._producer.purge()
            self._producer.flush(1)

    @property
    def _report(self) -> Callable[[KafkaError | None, Message], None] | None:
        """Callback for the delivery of one record; None where the producer has one for all that fail."""
        return None if self.transactional_id is None else self._errors.delivered

    def _mark(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._marked = message.offset()
        else:
            self._errors.delivered(error, message)


@dataclass(frozen=True, slots=True)
class _Stall:
    """So many records are waiting since then (time.monotonic), and none of them has been taken."""

    waiting: int
    since_s: float

    def check(self, most_s: float, *, left_s: float) -> None:
        """Raise `FlushFailed` where that is for too long."""
        waited_s = time.monotonic() - self.since_s
        if waited_s > most_s:
            msg = f"the brokers took none of {self.waiting} records within {waited_s:.0f} s; see whether they answer"
            raise FlushFailed(msg)
        if left_s < 0:
            msg = f"{self.waiting} records were still waiting for the brokers when the time for them was over"
            raise FlushFailed(msg)


def _queue_records(properties: Mapping[str, Any]) -> float:
    """Give how many records librdkafka queues; math.inf where that is not limited."""
    text = str(properties.get(QUEUE_MESSAGES, QUEUE_RECORDS))
    try:
        return int(text, 0) or math.inf
    except ValueError as error:
        msg = f"the Kafka property {QUEUE_MESSAGES} is {text!r}: expected a whole number"
        raise BadSetting(msg) from error


def _slice_s(deadline: Deadline) -> float:
    """Seconds to wait at a time, so that a shortened deadline is noticed."""
    return min(SLICE_S, max(_LEAST_SLICE_S, deadline.left_s))
