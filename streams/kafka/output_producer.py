"""The write path of one partition: everything it says goes through `put`, and counts once `commit` has returned.

With a transactional id all that was put since the last `commit` is one Kafka transaction: readers of committed records
see all of it or nothing, and whoever claims the same id later fences this producer.

Measured against one local broker with 800-byte values, the producer's plain `produce` takes 200,000 to 600,000 records
a second from a loop; its `produce_batch` 150,000 to 300,000, since it wants a dict per record. Hence the loop.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Message

from schemas.errors import Fenced, FlushFailed
from streams.kafka import clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

POLL_S: Final = 0.05  # how long to let the network take records when the queue is full
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
_FENCED: Final = frozenset({
    KafkaError._FENCED,  # noqa: SLF001  # librdkafka's own codes have no other name
    KafkaError._FATAL,  # noqa: SLF001  # what every later call of a fenced producer says
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
})  # fmt: skip


class OutputProducer:
    """One producer; not shared between partitions, so that one can be fenced or fail without the others.

    config: librdkafka properties; wins over `DEFAULTS`. on_error: told, in a sentence, of trouble that librdkafka is
    still trying to mend, such as a broker that does not answer; called from within `put` and `commit`. With a
    transactional_id, `init_transactions` comes before the first `put`.

    Calls block: `put` while the producer's queue is full and the brokers take some of it, `commit` until they have
    answered. Not thread-safe between `put` and `commit`. After `FlushFailed` or `Fenced` a producer is of no more use
    than to be closed.
    """

    def __init__(
        self, config: Mapping[str, Any], *, on_error: Callable[[str], None], transactional_id: str | None = None
    ) -> None:
        """Make the producer; it connects when there is something to send."""
        self.transactional_id = transactional_id
        self._failed: list[str] = []
        self._pending = 0
        self._on_error = on_error
        self._in_transaction = False
        self._marked: int | None = None
        self._answer_s = clients.answer_ms(config) / 1000
        self._latest_s = 0.0  # until when what is waited for may take
        properties = {**DEFAULTS, **config, "error_cb": self._troubled}
        if transactional_id is None:
            properties |= {"on_delivery": self._delivered, "delivery.report.only.error": True}
        else:  # what was not delivered fails the commit
            properties = {**TRANSACTIONS, **properties, "transactional.id": transactional_id}
        self._producer = clients.producer(properties)

    def init_transactions(self, timeout_s: float, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Take the transactional id: its last owner is fenced, and what that left open is undone.

        meanwhile: called now and then while the brokers do not answer; may raise.
        """
        self._latest_s = time.monotonic() + timeout_s
        self._patiently(self._producer.init_transactions, "the partition could not be claimed", meanwhile)

    def put(
        self, topic: str, keys: Sequence[bytes], values: Sequence[bytes | None], partition: int = ANY_PARTITION
    ) -> None:
        """Queue records in this order; `keys` and `values` are of one length. `FlushFailed` when one is not taken."""
        produce, key = self._producer.produce, b""
        with self._translated(lambda: f"a record of key {key!r} for {topic} was refused"):
            self._begin()
            for key, value in zip(keys, values, strict=True):
                while True:
                    try:
                        produce(topic, value, key, partition)
                    except BufferError:
                        self._await_room()
                    else:
                        break
            self._pending += len(keys)
            self._producer.poll(0)

    def put_one(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> None:
        """Queue one record with headers."""
        self._one(topic, key, value, headers=list(headers))

    def put_marked(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        """Queue one record whose offset `marked_offset` tells after the next `commit`."""
        self._marked = None
        self._one(topic, key, value, partition=partition, on_delivery=self._mark)

    def _one(self, topic: str, key: bytes | None, value: bytes | None, **how: Any) -> None:  # noqa: ANN401
        with self._translated(lambda: f"a record of key {key!r} for {topic} was refused"):
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
        """Let the network take some of a full queue; it fails when that takes none for as long as an answer may."""
        before, by_s = len(self._producer), time.monotonic() + self._answer_s
        while len(self._producer) >= before:
            if time.monotonic() > by_s:
                msg = f"the brokers took none of {before} records within {self._answer_s:g} s; see whether they answer"
                raise FlushFailed(msg)
            self._producer.poll(POLL_S)

    @property
    def marked_offset(self) -> int | None:
        """Offset of the last record given to `put_marked`; None before it has been written."""
        return self._marked

    def commit(self, timeout_s: float) -> int:
        """Wait until all that was put since the last settle is safely with the broker; returns how many that were.

        `FlushFailed` when some of it is not within `timeout_s`: records may then be there, missing, or still come.
        `Fenced` when another worker has claimed the transactional id: none of it will ever be seen.
        """
        what, self._latest_s = f"{self._pending} records were not written", time.monotonic() + timeout_s
        with self._translated(lambda: what):
            while (left := self._producer.flush(self._slice_s())) and time.monotonic() < self._latest_s:
                continue
        failed, self._failed = self._failed, []
        pending, self._pending = self._pending, 0
        if failed:
            msg = f"{len(failed)} of {pending} records were not written, the first because {failed[0]}"
            raise FlushFailed(msg)
        if left:
            msg = (
                f"{left} of {pending} records were not acknowledged within {timeout_s:.1f} s; "
                "see whether the brokers answer and have enough in-sync replicas"
            )
            raise FlushFailed(msg)
        if self._in_transaction:
            self._patiently(self._producer.commit_transaction, what)
            self._in_transaction = False
        return pending

    def shorten_deadline(self, by_s: float) -> None:
        """Let whoever waits in another thread give up by then (time.monotonic); what comes later is not concerned."""
        self._latest_s = min(self._latest_s, by_s)

    def abort(self, timeout_s: float) -> None:
        """Undo all that was put since the last `commit`, so that readers of committed records need not wait for it."""
        if self._in_transaction:
            self._in_transaction, self._latest_s = False, time.monotonic() + timeout_s
            with suppress(Fenced, FlushFailed):
                self._producer.purge()
                self._patiently(self._producer.abort_transaction, "the transaction was not undone")

    def _begin(self) -> None:
        if self.transactional_id is not None and not self._in_transaction:
            self._producer.begin_transaction()
            self._in_transaction = True

    def _patiently(self, call: Callable[[float], Any], what: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Repeat a call about transactions for as long as librdkafka says that repeating helps, within the time."""
        with self._translated(lambda: what):
            while True:
                try:
                    call(self._slice_s())
                except KafkaException as error:
                    if not error.args[0].retriable() or time.monotonic() > self._latest_s:
                        raise
                else:
                    return
                meanwhile()

    def _slice_s(self) -> float:
        return min(SLICE_S, max(0.05, self._latest_s - time.monotonic()))

    @contextmanager
    def _translated(self, what: Callable[[], str]) -> Iterator[None]:
        """Turn librdkafka's errors into ours; `what` says what has failed."""
        try:
            yield
        except KafkaException as error:
            raise self._failure(what(), error) from error
        except SystemError as error:
            # a fatal error is raised from within whichever call meets it, also one that is about to call us back
            if not isinstance(error.__cause__, KafkaException):
                raise
            raise self._failure(what(), error.__cause__) from error

    def _failure(self, what: str, error: KafkaException) -> Fenced | FlushFailed:
        cause: KafkaError = error.args[0]
        msg = f"{what}, {cause.name()}: {cause.str()}"
        is_fenced = cause.code() in _FENCED and self.transactional_id is not None
        return Fenced(msg) if is_fenced else FlushFailed(msg)

    def close(self) -> None:
        """Give up what is still queued and end the producer's threads."""
        with suppress(Fenced, FlushFailed), self._translated(lambda: "closing"):
            self._producer.purge()
            self._producer.flush(1)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:  # never None, as long as only errors are reported
            self._failed.append(f"{message.topic()} answered {error.name()}: {error.str()}")

    def _mark(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._marked = message.offset()

    def _troubled(self, error: KafkaError) -> None:
        if error.fatal():
            self._failed.append(f"the producer met a fatal error, {error.name()}: {error.str()}")
        self._on_error(f"{error.name()}: {error.str()}")
