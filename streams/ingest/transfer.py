"""Reads the bus, maps, writes: consumed offsets, events and letters of a batch are one Kafka transaction (KIP-447)."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import Broken, BrokerTrouble, Fenced, FlushFailed, LoginRefused, Refused, StateMismatch, Unavailable
from schemas.inputs import InputName
from schemas.provenance import Source, dead_letter_headers
from streams.ingest.latest import LatestValues
from streams.ingest.stage import Made, Stage
from streams.kafka import broker_errors, clients
from streams.kafka.broker_errors import Attempt, ErrorClass
from streams.kafka.deadline import Deadline
from streams.kafka.output_producer import OutputProducer
from streams.observe.metrics import Metrics
from streams.partition.side_outputs import Original, letter_of
from streams.settings import Settings

log = logging.getLogger(__name__)
BATCH: Final = 5_000  # messages of one transaction, at most
POLL_S: Final = 0.25
FLUSH_S: Final = 30.0
CLAIM_S: Final = 60.0
_FATAL: Final = KafkaError._FATAL  # noqa: SLF001  # librdkafka's own codes have no other names
_ABORT_S: Final = 5.0
_SEEK_S: Final = 10.0
_ANSWER_S: Final = 10.0
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_TRANSACTION_MS: Final = 45_000  # more than FLUSH_S, less than what a topic's readers should wait for a dead stage


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where events and letters go: topics by input, the letters' topic, and how large a letter may be."""

    events: Mapping[InputName, str]
    dead_letters: str
    limit_bytes: int


class Transfer:
    """One member of the stage's consumer group.

    Nothing is written that is not committed with the offsets it came from: a member that dies, or is taken for dead,
    leaves an open transaction that nobody reads, and its messages are read again by another.
    """

    def __init__(self, settings: Settings, stage: Stage, outputs: Outputs, metrics: Metrics) -> None:
        """Make the consumer; it connects in `run`."""
        self._settings, self._stage, self._outputs, self._metrics = settings, stage, outputs, metrics
        self._masker = settings.masker
        self.group = settings.output(f"{settings.group}-ingest")
        self._id = f"{self.group}-{settings.instance or uuid.uuid4().hex}"
        self._trouble, self._is_held_up = "", False
        self._behind = ""  # what is still to be done before messages are read
        self.assigned: tuple[str, ...] = ()
        self._broken: Broken | None = None
        self._has_moved = False  # partitions were given or taken away since the last fetch
        self._must_rewind = False
        self._moved_s = time.monotonic()
        member = {"group.instance.id": settings.instance} if settings.instance else {}
        self._consumer = clients.consumer(
            {
                "session.timeout.ms": settings.session_timeout_ms,
                **settings.client,
                **member,
                "auto.offset.reset": "earliest",
                "group.id": self.group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",  # an aborted order was never placed
                "error_cb": self._reported,
            }
        )
        self._producer = self._make_producer()
        self._latest = LatestValues(settings.client, stage, settings.ingest_dir)

    def run(self, stop: Flag) -> None:
        """Transfer until `stop` is set, then leave the group; raises what does not pass with time."""
        wait_s = 0.0
        try:
            self._producer.init_transactions(CLAIM_S)
            self._consumer.subscribe(
                self._stage.topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )
            while not stop.is_set():
                messages = self._fetch()
                if not messages:
                    continue
                try:
                    self._transfer(messages)
                    wait_s = 0.0
                except (FlushFailed, Fenced, Unavailable) as error:
                    wait_s = min(max(2 * wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
                    log.warning("a batch was not written and is read again in %.1f s: %s", wait_s, error)
                    self._is_held_up, self._trouble = True, f" ({error})"
                    self._begin_anew(stop, wait_s)
        finally:
            self._producer.close()
            self._consumer.close()
            self._latest.keep(())

    def live(self) -> tuple[bool, str]:
        """Tell whether it goes on: a batch that is not written for long is stuck."""
        stood_s = time.monotonic() - self._moved_s
        if stood_s * 1_000 > self._settings.stalled_after_ms:
            return False, f"nothing was read or written for {stood_s:.0f} s{self._trouble}"
        return True, "live"

    def ready(self) -> tuple[bool, str]:
        """Tell whether it is a member of its group, and the last batch has been written."""
        if self._is_held_up or self._behind:
            return False, self._behind or f"a batch waits to be written{self._trouble}"
        return bool(self.assigned), ", ".join(self.assigned) or f"no partitions assigned yet{self._trouble}"

    def _make_producer(self) -> OutputProducer:
        config = {"transaction.timeout.ms": _TRANSACTION_MS, **self._settings.client}
        return OutputProducer(config, on_error=self._note, transactional_id=self._id)

    def _fetch(self) -> list[Message]:
        """Wait a moment for messages; raises what the brokers refuse for good."""
        is_behind = self._must_rewind and not self._can_rewind()
        if is_behind:  # messages are not wanted yet, but the group must hear of this member
            self._consumer.pause(self._consumer.assignment())
        self._has_moved = False
        try:
            found = self._consumer.consume(BATCH, POLL_S)
        except (KafkaException, SystemError):  # a fatal error may be raised from within, and be swallowed there
            if self._broken is None:
                raise
            found = []
        if self._broken is not None:
            raise self._broken
        if self._has_moved:
            # what came before is another member's now, or comes again: offsets are committed by whoever has the group's
            # newest generation, whatever its partitions
            self._must_rewind = True
            return []
        messages = []
        for message in found:
            error = message.error()
            if error is None:
                messages.append(message)
            else:
                self._heed(error, message.topic() or "")
        if is_behind:
            return []
        if not messages:
            self._moved_s = time.monotonic()
        return messages

    def _heed(self, error: KafkaError, topic: str) -> None:
        """Take an error that came in the place of a message; raises what the brokers refuse for good."""
        if error.code() == _FATAL:
            raise self._end(error)
        if broker_errors.classify(error.code()) is ErrorClass.REFUSED:
            session_ms = self._settings.session_timeout_ms
            attempt = Attempt(topic=topic, group=self.group, instance=self._settings.instance, session_ms=session_ms)
            remedy = attempt.remedy(error.code())
            msg = f"the bus cannot be read, {error.name()}: {error.str()}; {remedy}"
            raise Refused(msg)
        self._note(f"{error.name()}: {error.str()}")

    def _reported(self, error: KafkaError) -> None:
        """Error callback of the consumer: keeps what it cannot go on after, for `_fetch` to raise."""
        if error.code() in broker_errors.LOGIN:
            self._broken = LoginRefused(f"the brokers refused authentication ({error.str()})")
        elif error.code() == _FATAL:
            self._broken = self._end(error)
        else:
            self._note(f"{error.name()}: {error.str()}")

    def _end(self, error: KafkaError) -> Refused:
        """Say why the consumer cannot go on, of which librdkafka tells in words only."""
        if self._settings.instance and "group.instance.id" in error.str():
            return Refused(
                f"SKUTREND_INSTANCE={self._settings.instance} is in use by another member of group {self.group}: give "
                "each a name of its own"
            )
        return Refused(f"the consumer cannot go on: {error.str()}")

    def _note(self, said: str) -> None:
        self._trouble = f" ({said})"
        log.info("%s", said)

    def _transfer(self, messages: Sequence[Message]) -> None:
        made = self._stage.run(messages, self._latest.get)
        positions = _after(messages)
        producer = self._producer
        producer.begin(Deadline(FLUSH_S))
        for kind, (keys, values) in made.records.items():
            producer.put(self._outputs.events[kind], keys, values)
        for letter in made.letters:
            self._put_letter(messages[letter.at], letter.code, letter.error)
        producer.send_offsets(positions, self._consumer.consumer_group_metadata())
        producer.commit()
        self._is_held_up, self._trouble, self._moved_s = False, "", time.monotonic()
        self._count(messages, made)
        self._latest.write(made.states, positions)

    def _put_letter(self, message: Message, code: str, error: str) -> None:
        source = Source(topic=message.topic(), partition=message.partition(), offset=message.offset())
        original = Original(message.key(), message.value(), message.headers() or ())
        ours = dead_letter_headers(code=code, error=error, source=source)
        letter = letter_of(
            original, ours, masker=self._masker, limit_bytes=self._outputs.limit_bytes, names=self._stage.personal
        )
        self._producer.put_one(self._outputs.dead_letters, letter.key, letter.value, letter.headers)

    def _count(self, messages: Sequence[Message], made: Made) -> None:
        for message in messages:
            self._metrics.ingested.labels(message.topic()).inc()
        for kind, (keys, _) in made.records.items():
            self._metrics.published.labels(self._outputs.events[kind]).inc(len(keys))
        for letter in made.letters:
            self._metrics.refusals.labels(messages[letter.at].topic(), letter.code).inc()
        for reason, count in made.left_out.items():
            self._metrics.ingest_left_out.labels(reason).inc(count)

    def _begin_anew(self, stop: Flag, wait_s: float) -> None:
        """Give the transaction up, and read again from what is committed."""
        self._producer.abort(_ABORT_S)
        self._producer.close()
        stop.wait(wait_s)
        self._producer = self._make_producer()
        while not stop.is_set():
            try:
                self._producer.init_transactions(CLAIM_S)
                self._must_rewind = True
            except (FlushFailed, Fenced) as error:
                log.warning("the transactional id %s cannot be claimed yet: %s", self._id, error)
                stop.wait(_FIRST_WAIT_S)
            else:
                return

    def _can_rewind(self) -> bool:
        """Read on from what is committed, once the latest values are as far; or say why that has to wait."""
        try:
            found = self._committed()
            left = self._latest.follow(found)
            if not left:
                self._rewind(found)
        except KafkaException as error:
            left = f"the group's committed offsets cannot be read yet: {error}"
        except (FlushFailed, StateMismatch, Unavailable) as error:
            left = str(error)
        else:
            self._moved_s = time.monotonic()
        if left and left != self._behind:
            self._note(left)
        self._behind, self._must_rewind = left, bool(left)
        return not left

    def _rewind(self, found: Sequence[TopicPartition]) -> None:
        """Read on from what is committed; `BrokerTrouble` where the consumer cannot."""
        until_s = time.monotonic() + _SEEK_S
        self._consumer.resume(self._consumer.assignment())
        for committed in found:
            offset = committed.offset if committed.offset >= 0 else OFFSET_BEGINNING
            where = TopicPartition(committed.topic, committed.partition, offset)
            while where in self._consumer.assignment():
                try:
                    self._consumer.seek(where)
                    break
                except KafkaException as error:  # not being read yet
                    if time.monotonic() > until_s:
                        msg = f"{committed.topic}[{committed.partition}] cannot be read from offset {offset}: {error}"
                        raise BrokerTrouble(msg) from error
                    time.sleep(POLL_S)

    def _committed(self) -> list[TopicPartition]:
        assigned = self._consumer.assignment()
        found: list[TopicPartition] = self._consumer.committed(assigned, timeout=_ANSWER_S) if assigned else []
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
        return found

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._has_moved = True
        self.assigned = tuple(sorted(f"{each.topic}[{each.partition}]" for each in partitions))
        log.info("assigned: %s", ", ".join(self.assigned) or "nothing")

    def _on_revoke(self, _: Consumer, __: list[TopicPartition]) -> None:
        self._has_moved, self.assigned = True, ()


def _after(messages: Sequence[Message]) -> list[TopicPartition]:
    """Give the offsets to go on from after these messages."""
    newest: dict[tuple[str, int], int] = {}
    for message in messages:
        newest[message.topic(), message.partition()] = message.offset() + 1
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in newest.items()]
