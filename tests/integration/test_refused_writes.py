"""Writes that Apache Kafka refuses for good: the worker stops with one sentence instead of trying again for ever."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient

from schemas.errors import Fenced, Refused
from streams.kafka.output_producer import OutputProducer
from tests.integration.test_trouble import fails, lines
from tests.support.kafka_broker import configure
from tests.support.shop import send

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

TRANSACTIONAL = pytest.mark.parametrize("is_transactional", [False, True], ids=["plain", "transactional"])


def producer(kafka: KafkaBroker, transactional_id: str | None = None, **config: Any) -> OutputProducer:  # noqa: ANN401
    properties = {name.replace("_", "."): value for name, value in config.items()}
    made = OutputProducer(
        {"bootstrap.servers": kafka.bootstrap, "log_level": 0, **properties},
        on_error=lambda _: None,
        transactional_id=transactional_id,
    )
    if transactional_id is not None:
        made.init_transactions(30)
    return made


@TRANSACTIONAL
def test_records_larger_than_their_topic_takes(
    kafka: KafkaBroker, topic_prefix: str, *, is_transactional: bool
) -> None:
    topic = f"{topic_prefix}windows"
    kafka.make_topics([topic], partitions=1, config={"max.message.bytes": "1000"})
    writing = producer(kafka, f"{topic_prefix}id" if is_transactional else None)
    writing.put(topic, [b"k"], [os.urandom(3_000)])
    with pytest.raises(Refused, match=r"MSG_SIZE_TOO_LARGE.*raise max\.message\.bytes of the topic") as refused:
        writing.commit(30)
    assert topic in str(refused.value)
    writing.abort(10)
    writing.close()


@TRANSACTIONAL
def test_a_topic_that_is_not_there(kafka: KafkaBroker, topic_prefix: str, *, is_transactional: bool) -> None:
    quickly = {"topic_metadata_propagation_max_ms": 1_000}
    writing = producer(kafka, f"{topic_prefix}id" if is_transactional else None, **quickly)
    with pytest.raises(Refused, match=r"UNKNOWN_TOPIC.*`skutrend topics create`") as refused:  # noqa: PT012
        writing.put(f"{topic_prefix}windows", [b"k"], [b"v"])
        writing.commit(30)
    assert f"{topic_prefix}windows" in str(refused.value)
    writing.abort(10)
    writing.close()


def test_a_transaction_longer_than_the_brokers_allow(kafka: KafkaBroker, topic_prefix: str) -> None:
    with pytest.raises(
        Refused, match=r"could not be taken over, INVALID_TRANSACTION_TIMEOUT.*lower SKUTREND_KAFKA_TRANS"
    ):
        producer(kafka, f"{topic_prefix}id", transaction_timeout_ms=1_000_000, message_timeout_ms=900_000)


def test_a_transactional_id_that_another_one_has_claimed(kafka: KafkaBroker, topic_prefix: str) -> None:
    topic, name = f"{topic_prefix}windows", f"{topic_prefix}id"
    kafka.make_topics([topic], partitions=1)
    first = producer(kafka, name)
    first.put(topic, [b"k"], [b"v"])
    second = producer(kafka, name)
    with pytest.raises(Fenced):
        first.commit(30)
    with pytest.raises(Fenced):  # as every call after
        first.put(topic, [b"k"], [b"v"])
    second.put(topic, [b"k"], [b"v"])
    assert second.commit(30) == 1
    for each in (first, second):
        each.close()


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_a_worker_whose_outputs_are_too_large_stops_and_says_so(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path, guarantee: str
) -> None:
    """It used to open the partition anew, and to meet the same refusal, for ever."""
    configure(kafka.bootstrap, f"{topic_prefix}windows", {"max.message.bytes": "200"})
    send(kafka, topic_prefix, lines(range(3)))
    sentence = fails({**settings, "guarantee": guarantee}, tmp_path)
    assert f"{topic_prefix}windows" in sentence
    assert "MSG_SIZE_TOO_LARGE" in sentence
    assert "raise max.message.bytes of the topic" in sentence


def test_a_worker_whose_output_topic_is_gone_stops_and_says_so(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    (gone,) = admin.delete_topics([f"{topic_prefix}windows"]).values()
    gone.result(30)
    send(kafka, topic_prefix, lines(range(3)))
    sentence = fails({**settings, "kafka_topic_metadata_propagation_max_ms": 2_000}, tmp_path)
    assert f"{topic_prefix}windows" in sentence
    assert "make it (`skutrend topics create`)" in sentence
