"""Reading a partition to its end: what is away is told from what is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from schemas.errors import Unavailable
from streams.kafka import partition_reader as reading
from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.partition_reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUIET = {"log_level": "0"}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with EmbeddedBroker() as embedded:
        yield embedded.bootstrap


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


@pytest.mark.usefixtures("hurried")
def test_brokers_that_do_not_answer_are_away_for_now(read: Callable[..., Reader]) -> None:
    reader = read("changelog", bootstrap="127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"^the changelog changelog\[0\] cannot be read \(.*see whether the brokers"):
        reader.bounds()
    with pytest.raises(Unavailable, match=r"^changelog\[0\] gave nothing for \d s"):
        list(reader.records(0, 1))
