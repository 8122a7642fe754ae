"""The write path of one partition: everything it says goes through `put`, and counts once `commit` has returned.

With a transactional id all that was put since the last `commit` is one Kafka transaction: readers of committed records
see all of it or nothing, and whoever claims the same id later fences this producer.

Measured against one local broker with 800-byte values, the producer's plain `produce` takes 200,000 to 600,000 records
a second from a loop; its `produce_batch` 150,000 to 300,000, since it wants a dict per record. Hence the loop.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message

from schemas.errors import Fenced, FlushFailed, Refused
from streams.kafka import broker_errors, clients, rights
from streams.kafka.broker_errors import Attempt, Fate
from streams.kafka.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

POLL_S: Final = 0.05  # how long to let the network take records when the queue is full
_LEAST_SLICE_S: Final = 0.05
_SHOWN_BYTES: Final = 64  # of a key, in sentences
SLICE_S: Final = 0.5  # how soon somebody who waits hears that he is to hurry
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
    "retry.backoff.ms": 20,  # a claim meets its predecessor's end once, and waits so long
}
REPORTED_BYTES: Final = 64 << 10
"""Of a transaction's records only the first of each `put` and those from this size on report why they failed.

What refuses a topic refuses its first record, what refuses a size the large ones; a report for every record costs a
fifth of the time that producing takes.
"""


class _Loss(NamedTuple):
    """A record that was not delivered, or the end of the whole producer (topic: empty)."""

    code: int
    topic: str
    why: str


class OutputProducer:
    """One producer; not shared between partitions, so that one can be fenced or fail without the others.

    config: librdkafka properties; wins over `DEFAULTS`. on_error: told, in a sentence, of trouble that librdkafka is
    still trying to mend, such as a broker that does not answer; called from within `put` and `commit`. With a
    transactional_id, `init_transactions` comes before the first `put`.

    Calls block: `put` while the producer's queue is full and the brokers take some of it, `commit` until they have
    answered. Not thread-safe between `put` and `commit`. After `FlushFailed`, `Fenced` or `Refused` a producer is of no
    more use than to be closed. `Refused` is what does not pass with time: streams/kafka/broker_errors.py has the table.
    """

    def __init__(
        self, config: Mapping[str, Any], *, on_error: Callable[[str], None], transactional_id: str | None = None
    ) -> None:
        """Make the producer; it connects when there is something to send."""
        self.transactional_id = transactional_id
        self._failed: list[_Loss] = []
        self._fatal: KafkaError | None = None
        self._config = config
        self._topics: set[str] = set()  # of all that was put
        self._pending = 0
        self._on_error = on_error
        self._in_transaction = False
        self._marked: int | None = None
        self._answer_s = clients.answer_ms(config) / 1000
        self._deadline: Deadline | None = None  # of the flush that has begun
        properties = {**DEFAULTS, **config, "error_cb": self._troubled}
        if transactional_id is None:
            properties |= {"on_delivery": self._delivered, "delivery.report.only.error": True}
        else:
            properties = {**TRANSACTIONS, **properties, "transactional.id": transactional_id}
        self._producer = clients.producer(properties)

    def init_transactions(self, timeout_s: float, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Take the transactional id: its last owner is fenced, and what that left open is undone.

        meanwhile: called now and then while the brokers do not answer; may raise.
        """
        what = "the partition could not be claimed"
        self._patiently(self._producer.init_transactions, what, Deadline(timeout_s), meanwhile)

    def begin(self, deadline: Deadline) -> None:
        """Hear of a flush: its `put` and the next `commit` end by then, however often another thread hurries it."""
        self._deadline = deadline

    def put(
        self, topic: str, keys: Sequence[bytes], values: Sequence[bytes | None], partition: int = ANY_PARTITION
    ) -> None:
        """Queue records in this order; `keys` and `values` are of one length. `FlushFailed` when one is not taken."""
        produce, key = self._producer.produce, b""
        reported = report = self._report
        self._topics.add(topic)
        with self._translated(lambda: f"a record of key {key[:_SHOWN_BYTES]!r} for {topic} was refused", topic):
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
        """Queue one record whose offset `marked_offset` tells after the next `commit`."""
        self._marked = None
        self._one(topic, key, value, partition=partition, on_delivery=self._mark)

    def _one(self, topic: str, key: bytes | None, value: bytes | None, **how: Any) -> None:  # noqa: ANN401
        self._topics.add(topic)
        shown = (key or b"")[:_SHOWN_BYTES]
        with self._translated(lambda: f"a record of key {shown!r} for {topic} was refused", topic):
            self._begin()
            while True:
                try:
                    self._producer.produce(topic, value, key, **how)
                except BufferError:
                    self._await_room()
                else:
                    break
            self._pending += 1

    def _await_room(self) -> None:
        """Let the network take some of a full queue; it fails when that takes none for as long as an answer may.

        Or until the flush that has begun is to be over.
        """
        before, began_s = len(self._producer), time.monotonic()
        while len(self._producer) >= before:
            waited_s = time.monotonic() - began_s
            if waited_s > self._answer_s or (self._deadline is not None and self._deadline.left_s < 0):
                msg = f"the brokers took none of {before} records within {waited_s:.0f} s; see whether they answer"
                raise FlushFailed(msg)
            self._producer.poll(POLL_S)

    @property
    def marked_offset(self) -> int | None:
        """Offset of the last record given to `put_marked`; None before it has been written."""
        return self._marked

    def commit(self, timeout_s: float | None = None) -> int:
        """Wait until all that was put since the last settle is safely with the broker; returns how many that were.

        timeout_s: None waits by the deadline that was given to `begin`. `FlushFailed` when some of it is not there by
        then: records may then be there, missing, or still come. `Fenced` when another worker has claimed the
        transactional id: none of it will ever be seen. `Refused` when the brokers will never take some of it, however
        often it is sent.
        """
        deadline = self._deadline if timeout_s is None else Deadline(timeout_s)
        if deadline is None:
            msg = "settle() without a time comes after begin()"
            raise ValueError(msg)
        what = f"{self._pending} records were not written"
        with self._translated(lambda: what):
            while (left := self._producer.flush(_slice_s(deadline))) and deadline.left_s > 0:
                continue
        failed, self._failed = self._failed, []
        pending, self._pending = self._pending, 0
        lost = self._lost(failed, pending) if failed else None
        if lost is not None and (isinstance(lost, Refused) or not self._in_transaction):
            raise lost
        if left:
            msg = (
                f"{left} of {pending} records were not acknowledged within {deadline.span_s:.1f} s; "
                "see whether the brokers answer and have enough in-sync replicas"
            )
            raise FlushFailed(msg)
        if self._in_transaction:  # what was not delivered fails the commit, which knows whether it was fenced
            self._patiently(self._producer.commit_transaction, str(lost or what), deadline)
            self._in_transaction = False
        if lost is not None:
            raise lost
        self._deadline = None
        return pending

    def abort(self, timeout_s: float) -> None:
        """Undo all that was put since the last `commit`, so that readers of committed records need not wait for it."""
        if self._in_transaction:
            self._in_transaction = False
            with suppress(Fenced, FlushFailed, Refused):
                self._producer.purge()
                self._patiently(self._producer.abort_transaction, "the transaction was not undone", Deadline(timeout_s))
            self._failed.clear()  # what was purged was not lost

    def _begin(self) -> None:
        if self.transactional_id is not None and not self._in_transaction:
            self._producer.begin_transaction()
            self._in_transaction = True

    def _patiently(
        self, call: Callable[[float], Any], what: str, deadline: Deadline, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Repeat a call about transactions for as long as librdkafka says that repeating helps, within the time."""
        with self._translated(lambda: what):
            while True:
                try:
                    call(_slice_s(deadline))
                except KafkaException as error:
                    if not error.args[0].retriable() or deadline.left_s < 0:
                        raise
                else:
                    return
                meanwhile()

    @contextmanager
    def _translated(self, what: Callable[[], str], topic: str = "") -> Iterator[None]:
        """Turn librdkafka's errors into ours; `what` says what has failed."""
        try:
            yield
        except KafkaException as error:
            raise self._failure(what(), error, topic) from error
        except SystemError as error:
            # a fatal error is raised from within whichever call meets it, also one that is about to call us back
            if not isinstance(error.__cause__, KafkaException):
                raise
            raise self._failure(what(), error.__cause__, topic) from error

    def _failure(self, what: str, error: KafkaException, topic: str) -> Fenced | FlushFailed | Refused:
        cause: KafkaError = error.args[0]
        if cause.code() == KafkaError._FATAL:  # noqa: SLF001  # what every later call says of whatever came first
            cause = self._cause_of_death() or cause
        elif cause.fatal():
            self._fatal = self._fatal or cause
        return self._error(f"{what}, {cause.name()}: {cause.str()}", cause.code(), topic)

    def _cause_of_death(self) -> KafkaError | None:
        if self._fatal is None:
            with suppress(KafkaException, SystemError):
                self._producer.poll(0)  # `_troubled` is told
        return self._fatal

    def _lost(self, failed: Sequence[_Loss], pending: int) -> Fenced | FlushFailed | Refused:
        """Make the error of a flush of which records were not delivered; what was refused for good goes first."""
        told = next((loss for loss in failed if broker_errors.fate(loss.code) is Fate.REFUSED), failed[0])
        # of a transaction not every record reports
        share = f"{len(failed)} of {pending}" if self.transactional_id is None else f"some of {pending}"
        return self._error(f"{share} records were not written, the first because {told.why}", told.code, told.topic)

    def _error(self, what: str, code: int, topic: str) -> Fenced | FlushFailed | Refused:
        fate = broker_errors.fate(code)
        if fate is Fate.FENCED and self.transactional_id is not None:
            return Fenced(what)
        is_missing = fate is Fate.ABSENT and bool(topic) and broker_errors.is_absent(self._producer, topic)
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED and not topic:
            topic = self._unwritable()
        if fate is Fate.REFUSED or is_missing:
            attempt = Attempt("Write", topic=topic, transactional_id=self.transactional_id or "")
            return Refused(f"{what}; {attempt.remedy(code)}")
        return FlushFailed(what)

    def _unwritable(self) -> str:
        """Name the topics that may not be written, of which a transaction that cannot take them in tells nothing."""
        lacking = rights.missing(self._config, dict.fromkeys(self._topics, (rights.WRITE,)))
        named = [topic for topic in sorted(self._topics) if any(repr(topic) in right for right in lacking)]
        return ", ".join(named or sorted(self._topics))

    def close(self) -> None:
        """Give up what is still queued and end the producer's threads."""
        with suppress(Fenced, FlushFailed, Refused), self._translated(lambda: "closing"):
            self._producer.purge()
            self._producer.flush(1)

    @property
    def _report(self) -> Callable[[KafkaError | None, Message], None] | None:
        """Who is told of a delivery; None: whom the producer tells of all that fail."""
        return None if self.transactional_id is None else self._delivered

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            topic = message.topic()
            self._failed.append(_Loss(error.code(), topic, f"{topic} answered {error.name()}: {error.str()}"))

    def _mark(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._marked = message.offset()
        else:
            self._delivered(error, message)

    def _troubled(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = self._fatal or error
            why = f"the producer met a fatal error, {error.name()}: {error.str()}"
            self._failed.append(_Loss(error.code(), "", why))
        self._on_error(f"{error.name()}: {error.str()}")


def _slice_s(deadline: Deadline) -> float:
    """Seconds to wait at a time, so that a deadline that was brought forward is heard of."""
    return min(SLICE_S, max(_LEAST_SLICE_S, deadline.left_s))
