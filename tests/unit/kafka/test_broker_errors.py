"""What passes with time and what does not: the table, and what an operator is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.kafka.broker_errors import LOGIN, Attempt, ErrorClass, classify, is_absent

if TYPE_CHECKING:
    from collections.abc import Iterable

ATTEMPT = Attempt("Write", topic="windows", group="shop", instance="shop-3", transactional_id="shop-3")


def local(name: str) -> int:
    """Code of an error of librdkafka's own."""
    code: int = getattr(KafkaError, name)
    return code


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "the missing right is Write on the topic 'windows': grant it"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "the missing right is Read on the group 'shop': grant it"),
        (
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "the missing right is Write on the transactional id 'shop-3': grant it",
        ),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "the missing right is IdempotentWrite on the cluster"),
        (KafkaError.MSG_SIZE_TOO_LARGE, "max.message.bytes"),
        (KafkaError.RECORD_LIST_TOO_LARGE, "segment.bytes"),
        (KafkaError.INVALID_RECORD, "compaction demands a key"),
        (KafkaError.INVALID_TIMESTAMP, "message.timestamp.before.max.ms"),
        (KafkaError.TOPIC_EXCEPTION, "legal name"),
        (KafkaError.POLICY_VIOLATION, "policies of this cluster"),
        (KafkaError.INVALID_REQUIRED_ACKS, "SKUTREND_KAFKA_ACKS"),
        (KafkaError.INVALID_TRANSACTION_TIMEOUT, "SKUTREND_KAFKA_TRANSACTION_TIMEOUT_MS"),
        (KafkaError.UNSUPPORTED_VERSION, "too old"),
        (KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT, "message format"),
        (KafkaError.UNSUPPORTED_COMPRESSION_TYPE, "SKUTREND_KAFKA_COMPRESSION_TYPE"),
        (KafkaError.INVALID_GROUP_ID, "SKUTREND_GROUP"),
        (KafkaError.INCONSISTENT_GROUP_PROTOCOL, "no workers of this release"),
        (KafkaError.GROUP_MAX_SIZE_REACHED, "group shop has as many members as"),
        (KafkaError.FENCED_INSTANCE_ID, "SKUTREND_INSTANCE 'shop-3' of group shop is in use"),
        (KafkaError.INVALID_SESSION_TIMEOUT, "SKUTREND_SESSION_TIMEOUT_MS"),
    ],
)
def test_what_is_refused_for_good_is_reported_with_its_remedy(code: int, remedy: str) -> None:
    assert classify(code) is ErrorClass.REFUSED
    assert remedy in ATTEMPT.remedy(code)


@pytest.mark.parametrize(
    "code",
    [
        local("_TRANSPORT"),
        local("_ALL_BROKERS_DOWN"),
        local("_TIMED_OUT"),
        local("_MSG_TIMED_OUT"),
        local("_INCONSISTENT"),
        local("_PURGE_QUEUE"),
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN,
        0,
        -9_999,
    ],
)
def test_what_passes_with_time_or_is_not_known_is_tried_again(code: int) -> None:
    assert classify(code) is ErrorClass.PASSES


@pytest.mark.parametrize(
    "code", [KafkaError.UNKNOWN_TOPIC_OR_PART, local("_UNKNOWN_TOPIC"), local("_UNKNOWN_PARTITION")]
)
def test_a_topic_that_is_not_known_is_a_case_of_its_own(code: int) -> None:
    assert classify(code) is ErrorClass.ABSENT
    assert "topic windows is not there" in ATTEMPT.remedy(code)


@pytest.mark.parametrize(
    "code", [local("_FENCED"), local("_FATAL"), KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED]
)
def test_another_owner_is_no_refusal(code: int) -> None:
    assert classify(code) is ErrorClass.FENCED


def test_a_refused_login_has_its_own_sentence_elsewhere() -> None:
    assert KafkaError.SASL_AUTHENTICATION_FAILED in LOGIN
    assert local("_AUTHENTICATION") in LOGIN


def test_a_name_that_nobody_knows_is_left_out() -> None:
    assert "Read on a topic:" in Attempt().remedy(KafkaError.TOPIC_AUTHORIZATION_FAILED)


class Client:
    """A client whose brokers know these topics, or do not answer."""

    def __init__(self, known: Iterable[str] | None) -> None:
        self._known = known

    def list_topics(self, *, timeout: float) -> SimpleNamespace:
        assert timeout > 0
        if self._known is None:
            raise KafkaException(KafkaError(local("_TRANSPORT")))
        return SimpleNamespace(topics=dict.fromkeys(self._known))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (["orders", "clicks"], True),
        (["orders", "windows"], False),
        ([], False),  # a broker that has not read its own metadata yet
        (["__consumer_offsets"], False),
        (None, False),
    ],
)
def test_a_topic_is_missing_only_where_brokers_that_know_others_say_so(known: Any, *, expected: bool) -> None:  # noqa: ANN401
    client: Any = Client(known)
    assert is_absent(client, "windows") is expected
