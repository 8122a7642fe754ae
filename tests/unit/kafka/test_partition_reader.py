"""Reading a partition to its end: what is away is told from what is not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import Fenced, Refused, Unavailable
from streams.kafka import clients
from streams.kafka import partition_reader as reading
from streams.kafka.partition_reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUIET = {"log_level": "0"}


@pytest.fixture
def read(broker: str) -> Iterator[Callable[..., Reader]]:
    opened: list[Reader] = []

    def reader(topic: str, *, bootstrap: str = broker) -> Reader:
        opened.append(Reader({"bootstrap.servers": bootstrap, **QUIET}, topic, 0, what="the changelog"))
        return opened[-1]

    yield reader
    for each in opened:
        each.close()


@pytest.fixture
def shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ANSWER_S", 0.5)
    monkeypatch.setattr(reading, "SILENCE_S", 0.5)


def test_a_partition_is_read_from_an_offset_to_its_end(
    broker: str, read: Callable[..., Reader], topic_prefix: str
) -> None:
    topic = topic_prefix + "changelog"
    producer = Producer({"bootstrap.servers": broker, **QUIET})
    for number in range(10):
        producer.produce(topic, b"%d" % number, partition=0)
    assert producer.flush(30) == 0
    reader = read(topic)
    assert reader.bounds() == (0, 10)
    assert [message.value() for rows in reader.records(4, 10) for message in rows] == [b"%d" % n for n in range(4, 10)]
    assert list(reader.records(10, 10)) == []


@pytest.mark.slow
@pytest.mark.usefixtures("shortened")
def test_brokers_that_do_not_answer_are_away_for_now(read: Callable[..., Reader]) -> None:
    reader = read("changelog", bootstrap="127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"^the changelog changelog\[0\] cannot be read \(.*see whether the brokers"):
        reader.bounds()
    with pytest.raises(Unavailable, match=r"^changelog\[0\] gave nothing for \d s"):
        list(reader.records(0, 1))


# ---------------------------------------------------------------------- what passes and what does not
UNKNOWN = KafkaError.UNKNOWN_TOPIC_OR_PART
AWAY = KafkaError.LEADER_NOT_AVAILABLE


class Clock:
    """A clock that moves on when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, for_s: float) -> None:
        self.now_s += for_s


class Scripted:
    """A consumer whose brokers give an answer for every moment since the start: a code, or bounds."""

    def __init__(self, clock: Clock, answer: Callable[[float], int | tuple[int, int]], known: tuple[str, ...]) -> None:
        self._clock, self._answer, self._known = clock, answer, known
        self.timeouts: list[float] = []
        self.events: list[int] = []

    def get_watermark_offsets(self, _: object, *, timeout: float) -> tuple[int, int]:
        self.timeouts.append(timeout)
        answer = self._answer(self._clock.now_s - 1_000.0)
        if isinstance(answer, int):
            raise KafkaException(KafkaError(answer))
        return answer

    def list_topics(self, *, timeout: float) -> SimpleNamespace:
        assert timeout > 0
        return SimpleNamespace(topics=dict.fromkeys(self._known))

    def assign(self, _: object) -> None:
        """Whatever it is."""

    def consume(self, *_: object) -> list[Any]:
        return [SimpleNamespace(error=lambda code=code: KafkaError(code)) for code in self.events]

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reading, "time", clock)
    return clock


@pytest.fixture
def scripted(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Reader, Scripted]]:
    def make(
        answer: Callable[[float], int | tuple[int, int]],
        *,
        known: tuple[str, ...] = ("orders",),
        **more: Any,  # noqa: ANN401  # arguments of Reader
    ) -> tuple[Reader, Scripted]:
        consumer = Scripted(clock, answer, known)
        monkeypatch.setattr(clients, "consumer", lambda _: consumer)
        return Reader({}, "changelog", 0, what="the changelog", **more), consumer

    return make


@pytest.mark.parametrize("back_after_s", [11, 30, 59])
def test_a_broker_that_takes_long_to_know_its_own_topics_is_waited_for(
    scripted: Callable[..., tuple[Reader, Scripted]], back_after_s: float
) -> None:
    reader, _ = scripted(lambda passed_s: UNKNOWN if passed_s < back_after_s else (3, 7))
    assert reader.bounds() == (3, 7)


def test_a_topic_that_stays_unknown_is_refused_once_the_metadata_agree(
    scripted: Callable[..., tuple[Reader, Scripted]], clock: Clock
) -> None:
    reader, _ = scripted(lambda _: UNKNOWN)
    with pytest.raises(Refused, match=r"changelog\[0\] cannot be read .*topic changelog is not there"):
        reader.bounds()
    assert clock.now_s - 1_000.0 >= reading.ABSENT_S


@pytest.mark.parametrize("known", [(), ("orders", "changelog")])
def test_and_is_away_for_now_where_they_do_not(
    scripted: Callable[..., tuple[Reader, Scripted]], known: tuple[str, ...]
) -> None:
    reader, _ = scripted(lambda _: UNKNOWN, known=known)
    with pytest.raises(Unavailable, match="see whether the brokers answer"):
        reader.bounds()


def test_an_absence_counts_from_when_it_is_last_said_without_a_break(
    scripted: Callable[..., tuple[Reader, Scripted]], clock: Clock
) -> None:
    reader, _ = scripted(lambda passed_s: AWAY if 5 <= passed_s < 6 else UNKNOWN)
    with pytest.raises(Refused):
        reader.bounds()
    assert clock.now_s - 1_000.0 >= 6 + reading.ABSENT_S


def test_what_passes_is_given_up_for_now_after_a_while(
    scripted: Callable[..., tuple[Reader, Scripted]], clock: Clock
) -> None:
    reader, _ = scripted(lambda _: AWAY)
    with pytest.raises(Unavailable):
        reader.bounds()
    assert reading.ANSWER_S < clock.now_s - 1_000.0 < 2 * reading.ANSWER_S


def test_a_missing_right_is_believed_at_once(scripted: Callable[..., tuple[Reader, Scripted]], clock: Clock) -> None:
    reader, _ = scripted(lambda _: KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(Refused, match=r"the missing right is Read on the topic 'changelog'"):
        reader.bounds()
    assert clock.now_s == 1_000.0


def test_whoever_waits_may_give_up_at_every_try_and_no_try_is_long(
    scripted: Callable[..., tuple[Reader, Scripted]],
) -> None:
    tries: list[int] = []

    def meanwhile() -> None:
        tries.append(1)
        if len(tries) == 6:
            raise Fenced

    reader, consumer = scripted(lambda _: UNKNOWN, meanwhile=meanwhile)
    with pytest.raises(Fenced):
        reader.bounds()
    assert consumer.timeouts == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@pytest.mark.parametrize("code", [UNKNOWN, KafkaError.OFFSET_OUT_OF_RANGE])
def test_a_partition_that_changes_while_it_is_read_is_begun_anew(
    scripted: Callable[..., tuple[Reader, Scripted]], code: int
) -> None:
    reader, consumer = scripted(lambda _: (0, 9))
    consumer.events = [code]
    with pytest.raises(Unavailable):
        list(reader.records(0, 9))


def test_a_right_that_is_taken_away_while_it_is_read_is_refused(
    scripted: Callable[..., tuple[Reader, Scripted]],
) -> None:
    reader, consumer = scripted(lambda _: (0, 9))
    consumer.events = [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    with pytest.raises(Refused, match="Read on the topic 'changelog'"):
        list(reader.records(0, 9))


def test_a_group_that_is_never_joined_needs_no_right(scripted: Callable[..., tuple[Reader, Scripted]]) -> None:
    reader, consumer = scripted(lambda _: (0, 9))
    consumer.events = [KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError._PARTITION_EOF]  # noqa: SLF001  # its only name
    assert list(reader.records(0, 9)) == [[]]
