from __future__ import annotations

import json

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import BrokerTrouble
from streams.kafka import embedded
from streams.kafka.embedded import PARTITIONS, EmbeddedBroker
from streams.kafka.output_producer import OutputProducer
from tests.support.partitions import read_topic


def test_topics_are_made_by_asking_and_have_the_promised_partitions() -> None:
    with EmbeddedBroker() as broker:
        broker.make(["orders", "clicks"])
        known = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0}).list_topics(timeout=10).topics
        assert {name: len(topic.partitions) for name, topic in known.items()} == {
            "orders": PARTITIONS,
            "clicks": PARTITIONS,
        }


def test_records_are_there_for_every_client_and_gone_with_the_broker() -> None:
    with EmbeddedBroker() as broker:
        producer = OutputProducer({"bootstrap.servers": broker.bootstrap, "linger.ms": "0"}, on_error=pytest.fail)
        producer.put("windows", [b"a"], [json.dumps({"n": 1}).encode()])
        assert producer.commit(10) == 1
        producer.close()
        assert [message.value() for message in read_topic(broker.bootstrap, "windows")] == [b'{"n": 1}']
        address = broker.bootstrap
    assert broker.bootstrap == ""
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=0.5)


def test_two_of_them_are_two_clusters() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        assert one.bootstrap != other.bootstrap
        one.make(["orders"])
        known = AdminClient({"bootstrap.servers": other.bootstrap, "log_level": 0}).list_topics(timeout=10).topics
        assert known == {}


def test_one_that_does_not_run_makes_no_topics() -> None:
    broker = EmbeddedBroker()
    with pytest.raises(BrokerTrouble, match="not running"):
        broker.make(["orders"])
    with broker:
        broker.make(["orders"])
    with pytest.raises(BrokerTrouble, match="not running"):
        broker.make(["orders"])


def test_one_that_does_not_come_up_is_trouble_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "ANSWER_S", 1e-6)
    with pytest.raises(BrokerTrouble, match=r"the embedded broker does not answer: .*SKUTREND_BROKERS"):
        EmbeddedBroker().__enter__()


def test_no_more_is_kept_than_promised_and_the_oldest_go() -> None:
    with EmbeddedBroker() as broker:
        producer = OutputProducer(
            {"bootstrap.servers": broker.bootstrap, "compression.type": "none"}, on_error=pytest.fail
        )
        count, size = 160, 100_000
        for number in range(count):
            producer.put("orders", [b"k"], [b"%d " % number + b"v" * size])
            producer.commit(30)
        producer.close()
        kept = [int(message.value().split(b" ")[0]) for message in read_topic(broker.bootstrap, "orders")]
    assert kept == list(range(count - len(kept), count)), "without a hole"
    assert 0.8 * embedded.KEPT_BYTES <= len(kept) * size <= 1.2 * embedded.KEPT_BYTES
