"""The clients of Kafka: how long they wait for a broker that says nothing, and what they say of unusable settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from schemas.errors import BadSetting
from streams.kafka import clients
from streams.kafka.output_producer import TRANSACTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@pytest.mark.parametrize(("config", "expected_ms"), [({}, 15_000), ({"socket.timeout.ms": "4000"}, 4_000)])
def test_one_setting_says_it_for_all_clients(config: dict[str, str], expected_ms: int) -> None:
    assert clients.answer_ms(config) == expected_ms


def test_it_fits_into_a_transaction() -> None:
    clients.producer({"transactional.id": "t", **TRANSACTIONS})  # librdkafka refuses one that outlasts it


@pytest.mark.parametrize("make", [clients.admin, clients.producer, clients.consumer])
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("foo", "1", r"^SKUTREND_KAFKA_FOO .*'foo', which is no property of librdkafka"),
        ("security.protocol", "tls", r"^SKUTREND_KAFKA_SECURITY_PROTOCOL .*Invalid value \"tls\""),
        ("socket.timeout.ms", "soon", r"^SKUTREND_KAFKA_SOCKET_TIMEOUT_MS .*Invalid value"),
        ("metadata.max.age.ms", "-5", r"^SKUTREND_KAFKA_METADATA_MAX_AGE_MS .*outside allowed range [^\n]*; correct"),
        ("metadata.broker.list.more", "x", r"^SKUTREND_KAFKA_METADATA_BROKER_LIST_MORE "),
    ],
)
def test_an_unusable_property_is_named_by_its_variable(
    make: Callable[[Mapping[str, Any]], object], name: str, value: str, sentence: str
) -> None:
    with pytest.raises(BadSetting, match=sentence):
        make({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", name: value})


def test_a_property_is_named_as_it_was_given_where_librdkafka_knows_it_by_another_name() -> None:
    with pytest.raises(BadSetting, match=r"^SKUTREND_KAFKA_LINGER_MS .*'linger\.ms'"):
        clients.producer({"bootstrap.servers": "127.0.0.1:1", "linger.ms": "abc"})


def test_what_names_no_property_is_reported_as_it_is() -> None:
    config = {"security.protocol": "sasl_plaintext", "sasl.mechanisms": "ABC"}
    with pytest.raises(BadSetting, match="Unsupported SASL mechanism"):
        clients.producer(config)


def test_a_time_that_is_no_number_is_a_bad_setting() -> None:
    with pytest.raises(BadSetting, match="SKUTREND_KAFKA_SOCKET_TIMEOUT_MS is 'soon'"):
        clients.answer_ms({"socket.timeout.ms": "soon"})
