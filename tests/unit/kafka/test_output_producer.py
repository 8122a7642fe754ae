"""The write path, on librdkafka's own mock cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError

from schemas.errors import BadSetting, FlushFailed, Refused
from streams.kafka.embedded import PARTITIONS
from streams.kafka.murmur2 import partitions_of
from streams.kafka.output_producer import OutputProducer
from tests.support.partitions import read_topic
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def local(name: str) -> int:
    """Code of an error of librdkafka's own."""
    code: int = getattr(KafkaError, name)
    return code


QUICK = {"linger.ms": "0", "log_level": "0"}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(broker: str, said: list[str]) -> Iterator[Callable[..., OutputProducer]]:
    opened: list[OutputProducer] = []

    def output(**config: str) -> OutputProducer:
        properties = {"bootstrap.servers": broker, **QUICK, **{k.replace("_", "."): v for k, v in config.items()}}
        opened.append(OutputProducer(properties, on_error=said.append))
        return opened[-1]

    yield output
    for each in opened:
        each.close()


def test_what_was_put_counts_once_committed_and_lies_in_the_partition_of_its_key(
    broker: str, make: Callable[..., OutputProducer], topic_prefix: str
) -> None:
    output, topic = make(), topic_prefix + "windows"
    keys = [f"sku{n % 7}".encode() for n in range(300)]
    values = [b"%d" % n for n in range(300)]
    output.put(topic, keys[:200], values[:200])
    output.put(topic, keys[200:], values[200:])
    assert output.commit(30) == 300
    assert output.commit(30) == 0, "counted once"
    found = read_topic(broker, topic)
    assert sorted(message.value() for message in found) == sorted(values)
    expected = dict(zip(set(keys), partitions_of(list(set(keys)), count=PARTITIONS).tolist(), strict=True))
    assert {message.partition() for message in found} >= set(expected.values())
    last: dict[bytes, int] = {}
    for message in found:
        assert message.partition() == expected[message.key()]
        assert int(message.value()) > last.get(message.key(), -1), "records of a key keep their order"
        last[message.key()] = int(message.value())


def test_one_record_may_have_headers_and_neither_key_nor_value(
    broker: str, make: Callable[..., OutputProducer], topic_prefix: str
) -> None:
    output, topic = make(), topic_prefix + "dead-letters"
    output.put_one(topic, None, None, [("code", b"empty"), ("trace", None), ("code", b"again")])
    output.put_one(topic, b"k", b"\xff\x00")
    assert output.commit(30) == 2
    found = {message.key(): message for message in read_topic(broker, topic)}
    assert found[None].value() is None
    assert found[None].headers() == [("code", b"empty"), ("trace", None), ("code", b"again")]
    assert found[b"k"].value() == b"\xff\x00"
    assert not found[b"k"].headers()


def test_more_than_the_queue_holds_gets_through(
    broker: str, make: Callable[..., OutputProducer], topic_prefix: str
) -> None:
    output, topic = make(queue_buffering_max_messages="50"), topic_prefix + "windows"
    output.put(topic, [b"k"] * 1_000, [b"v"] * 1_000)
    for _ in range(100):
        output.put_one(topic, b"k", b"v")
    assert output.commit(30) == 1_100
    assert len(read_topic(broker, topic)) == 1_100


@pytest.mark.slow
def test_a_full_queue_is_waited_for_no_longer_than_an_answer(
    make: Callable[..., OutputProducer], topic_prefix: str
) -> None:
    output = make(bootstrap_servers="127.0.0.1:1", queue_buffering_max_messages="50", socket_timeout_ms="1000")
    started_s = time.monotonic()
    with pytest.raises(FlushFailed, match="took none of 50 records within 1 s"):
        output.put(topic_prefix + "windows", [b"k"] * 51, [b"v"] * 51)
    assert time.monotonic() - started_s >= 1
    with pytest.raises(FlushFailed, match="took none"):
        output.put_one(topic_prefix + "dead-letters", b"k", b"v")


def test_whether_there_is_room_is_said_at_once_and_brokers_that_take_nothing_end_it(
    make: Callable[..., OutputProducer],
) -> None:
    output = make(bootstrap_servers="127.0.0.1:1", queue_buffering_max_messages="50", socket_timeout_ms="1000")
    output.put("windows", [b"k"] * 25, [b"v"] * 25)
    assert output.has_room()
    output.put("windows", [b"k"], [b"v"])
    began_s = time.monotonic()
    assert not output.has_room()
    with pytest.raises(FlushFailed, match=r"26 records were still waiting .* when the time for them was over"):
        output.has_room(by_s=began_s)  # the worker is to end by now
    with pytest.raises(FlushFailed, match="took none of 26 records within 1 s"):
        wait_for(output.has_room, within_s=30)


def test_a_queue_without_a_limit_always_has_room(make: Callable[..., OutputProducer]) -> None:
    output = make(bootstrap_servers="127.0.0.1:1", queue_buffering_max_messages="0")
    output.put("windows", [b"k"] * 200, [b"v"] * 200)
    assert output.has_room()
    with pytest.raises(BadSetting, match=r"queue\.buffering\.max\.messages is '1e3': expected a whole number"):
        make(queue_buffering_max_messages="1e3")


def test_brokers_that_take_some_make_room(make: Callable[..., OutputProducer], topic_prefix: str) -> None:
    output, asked = make(queue_buffering_max_messages="50", linger_ms="200", socket_timeout_ms="10000"), 0
    for _ in range(4):
        output.put(topic_prefix + "windows", [b"k"] * 40, [b"v"] * 40)
        while not output.has_room():
            asked += 1
            time.sleep(0.005)
    assert asked > 4, "each time the queue was more than half full"
    assert output.commit(30) == 160


def test_keys_and_values_of_different_number_are_a_bug_that_is_reported(make: Callable[..., OutputProducer]) -> None:
    with pytest.raises(ValueError, match="zip"):
        make().put("windows", [b"a", b"b"], [b"1"])


def test_a_record_that_the_client_refuses_is_reported_with_its_key(make: Callable[..., OutputProducer]) -> None:
    output, value = make(message_max_bytes="2000"), b"v" * 5_000
    refused = r"key b'big' for windows was refused, MSG_SIZE_TOO_LARGE.*; lower what a record holds, or raise max"
    with pytest.raises(Refused, match=refused):
        output.put_one("windows", b"big", value)
    with pytest.raises(Refused, match=refused):
        output.put("windows", [b"small", b"big"], [b"v", value])


def test_a_broker_that_does_not_answer_fails_the_flush_and_is_reported_while_it_lasts(
    make: Callable[..., OutputProducer], said: list[str]
) -> None:
    output = make(bootstrap_servers="127.0.0.1:1")
    output.put("windows", [b"a", b"b"], [b"1", b"2"])
    with pytest.raises(FlushFailed, match=r"^2 of 2 records were not acknowledged within 0.5 s; see whether the bro"):
        output.commit(0.5)
    assert any("127.0.0.1:1" in sentence for sentence in said)


def test_records_given_up_fail_the_flush_with_the_first_reason(make: Callable[..., OutputProducer]) -> None:
    output = make(bootstrap_servers="127.0.0.1:1", message_timeout_ms="200")
    output.put("windows", [b"a", b"b", b"c"], [b"1", b"2", b"3"])
    with pytest.raises(
        FlushFailed, match=r"^3 of 3 records were not written, the first because windows answered _MSG_"
    ):
        output.commit(30)


def test_a_failure_is_reported_once_and_does_not_taint_the_next_flush(
    make: Callable[..., OutputProducer], broker: str, topic_prefix: str
) -> None:
    output = make(message_timeout_ms="1")  # every record is too old before it is sent
    output.put(topic_prefix + "windows", [b"a"], [b"1"])
    with pytest.raises(FlushFailed, match="1 of 1"):
        output.commit(30)
    assert output.commit(30) == 0


def test_closing_gives_up_what_is_queued_without_waiting_for_a_dead_broker(make: Callable[..., OutputProducer]) -> None:
    output = make(bootstrap_servers="127.0.0.1:1")
    output.put("windows", [b"a"] * 100, [b"1"] * 100)
    output.close()
    with pytest.raises(FlushFailed, match=r"^100 of 100 records were not written.*_PURGE_QUEUE"):
        output.commit(1)


def test_the_operator_s_properties_win_over_the_defaults(make: Callable[..., OutputProducer], broker: str) -> None:
    with pytest.raises(Refused, match="MSG_SIZE_TOO_LARGE"):
        make(message_max_bytes="1000").put_one("windows", b"k", b"v" * 2_000)
    make().put_one("windows", b"k", b"v" * 2_000)
