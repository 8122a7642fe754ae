"""What librdkafka reports of one producer, translated into `Fenced`, `FlushFailed` and `Refused`.

Errors come in three ways: raised by a call, in the delivery report of a record, and through the producer's error
callback. After a fatal error every later call says only that there was one; the cause is kept here.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message

from schemas.errors import Fenced, FlushFailed, Refused
from streams.kafka import broker_errors, rights
from streams.kafka.broker_errors import Attempt, ErrorClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from confluent_kafka import Producer

_SWALLOWED: Final = "returned NULL without setting an exception"


class _Loss(NamedTuple):
    """A record that was not delivered, or the end of the whole producer (topic: empty)."""

    code: int
    topic: str
    why: str


class ProducerErrors:
    """The errors of one producer. streams/kafka/broker_errors.py says which pass with time.

    producer: set once it is made, which takes the callbacks of this. config: librdkafka properties, to ask with for
    rights. on_error: called with each error of the producer.
    """

    producer: Producer

    def __init__(
        self, transactional_id: str | None, *, config: Mapping[str, Any], on_error: Callable[[str], None]
    ) -> None:
        """Nothing has failed yet."""
        self._config = config
        self._topics: set[str] = set()  # of all that was put
        self._transactional_id = transactional_id
        self._on_error = on_error
        self._lost: list[_Loss] = []
        self._fatal: KafkaError | None = None

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Delivery report of a record."""
        if error is not None:
            topic = message.topic()
            self._lost.append(_Loss(error.code(), topic, f"{topic} answered {error.name()}: {error.str()}"))

    def reported(self, error: KafkaError) -> None:
        """Error callback of the producer."""
        if error.fatal():
            self._fatal = self._fatal or error
            why = f"the producer met a fatal error, {error.name()}: {error.str()}"
            self._lost.append(_Loss(error.code(), "", why))
        self._on_error(f"{error.name()}: {error.str()}")

    def clear(self) -> None:
        """Forget the records that were not delivered."""
        self._lost.clear()

    def take_lost(self, pending: int) -> Fenced | FlushFailed | Refused | None:
        """Make the error of a flush of `pending` records where some were not delivered, and forget them.

        What will never be accepted is named first.
        """
        lost, self._lost = self._lost, []
        if not lost:
            return None
        named = next((loss for loss in lost if broker_errors.classify(loss.code) is ErrorClass.REFUSED), lost[0])
        # of a transaction not every record reports
        share = f"{len(lost)} of {pending}" if self._transactional_id is None else f"some of {pending}"
        return self._error(f"{share} records were not written, the first because {named.why}", named.code, named.topic)

    @contextmanager
    def translated(self, what: Callable[[], str], topic: str = "") -> Iterator[None]:
        """Translate librdkafka's errors; `what` says what has failed. topic: what is put goes there."""
        if topic:
            self._topics.add(topic)
        try:
            yield
        except KafkaException as error:
            raise self._failure(what(), error, topic) from error
        except SystemError as error:
            # A fatal error is raised from within whichever call meets it, also one that is about to call us back. A
            # callback that follows it in the same call, such as a line for the log, swallows it.
            fatal = error.__cause__
            if not isinstance(fatal, KafkaException):
                if _SWALLOWED not in str(error):
                    raise
                fatal = KafkaException(KafkaError(KafkaError._FATAL, "a fatal error", True))  # noqa: SLF001
            raise self._failure(what(), fatal, topic) from error

    def _failure(self, what: str, error: KafkaException, topic: str) -> Fenced | FlushFailed | Refused:
        cause: KafkaError = error.args[0]
        if cause.code() == KafkaError._FATAL:  # noqa: SLF001  # what every call after a fatal error raises
            cause = self._fatal_cause() or cause
        elif cause.fatal():
            self._fatal = self._fatal or cause
        return self._error(f"{what}, {cause.name()}: {cause.str()}", cause.code(), topic)

    def _fatal_cause(self) -> KafkaError | None:
        if self._fatal is None:
            with suppress(KafkaException, SystemError):
                self.producer.poll(0)  # calls `reported`
        return self._fatal

    def _error(self, what: str, code: int, topic: str) -> Fenced | FlushFailed | Refused:
        kind = broker_errors.classify(code)
        if kind is ErrorClass.FENCED and self._transactional_id is not None:
            return Fenced(what)
        is_missing = kind is ErrorClass.ABSENT and bool(topic) and broker_errors.is_absent(self.producer, topic)
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED and not topic:
            topic = self._unwritable()
        if code in broker_errors.GROUP_REMEDIES:  # of offsets in a transaction: the consumer hears why, with the names
            return FlushFailed(what)
        if kind is ErrorClass.REFUSED or is_missing:
            attempt = Attempt("Write", topic=topic, transactional_id=self._transactional_id or "")
            return Refused(f"{what}; {attempt.remedy(code)}")
        return FlushFailed(what)

    def _unwritable(self) -> str:
        """Name the topics that may not be written, of which a transaction that cannot take them in tells nothing."""
        lacking = rights.missing(self._config, dict.fromkeys(self._topics, (rights.WRITE,)))
        named = [topic for topic in sorted(self._topics) if any(repr(topic) in right for right in lacking)]
        return ", ".join(named or sorted(self._topics))
