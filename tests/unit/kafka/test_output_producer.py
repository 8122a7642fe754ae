"""The write path, on librdkafka's own mock cluster."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import Fenced, FlushFailed, Refused
from streams.kafka import clients
from streams.kafka import output_producer as outbox_module
from streams.kafka.embedded import PARTITIONS, EmbeddedBroker
from streams.kafka.murmur2 import partitions_of
from streams.kafka.output_producer import OutputProducer
from tests.support.partitions import read_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUICK = {"linger.ms": "0", "log_level": "0"}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with EmbeddedBroker() as embedded:
        yield embedded.bootstrap


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


def test_what_was_put_counts_once_settled_and_lies_in_the_partition_of_its_key(
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


def test_keys_and_values_of_different_number_are_a_bug_that_is_told(make: Callable[..., OutputProducer]) -> None:
    with pytest.raises(ValueError, match="zip"):
        make().put("windows", [b"a", b"b"], [b"1"])


def test_a_record_that_the_client_refuses_is_told_with_its_key(make: Callable[..., OutputProducer]) -> None:
    output, value = make(message_max_bytes="2000"), b"v" * 5_000
    refused = r"key b'big' for windows was refused, MSG_SIZE_TOO_LARGE"
    with pytest.raises(Refused, match=refused):
        output.put_one("windows", b"big", value)
    with pytest.raises(Refused, match=refused):
        output.put("windows", [b"small", b"big"], [b"v", value])


def test_a_broker_that_does_not_answer_fails_the_flush_and_is_told_while_it_lasts(
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
    with pytest.raises(FlushFailed, match=r"^3 of 3 records were not written, the first to windows, _MSG_"):
        output.commit(30)


def test_a_failure_is_told_once_and_does_not_taint_the_next_flush(
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
    with pytest.raises(Refused, match=r"MSG_SIZE_TOO_LARGE.*SKUTREND_KAFKA_MESSAGE_MAX_BYTES"):
        make(message_max_bytes="1000").put_one("windows", b"k", b"v" * 2_000)
    make().put_one("windows", b"k", b"v" * 2_000)


# ---------------------------------------------------------------------- what librdkafka says, and what it means
MAY_PASS = [
    "_TRANSPORT",
    "_ALL_BROKERS_DOWN",
    "_TIMED_OUT",
    "_MSG_TIMED_OUT",
    "_AUTHENTICATION",  # also of a broker that is just coming up
    "_PURGE_QUEUE",
    "_STATE",
    "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_FOR_PARTITION",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "COORDINATOR_NOT_AVAILABLE",
    "CONCURRENT_TRANSACTIONS",
    "INVALID_TXN_STATE",
    "INVALID_PRODUCER_ID_MAPPING",
    "OUT_OF_ORDER_SEQUENCE_NUMBER",
    "UNKNOWN_PRODUCER_ID",
    "KAFKA_STORAGE_ERROR",
    "THROTTLING_QUOTA_EXCEEDED",
    "UNKNOWN",
]
DO_NOT = {
    "MSG_SIZE_TOO_LARGE": "max.message.bytes",
    "RECORD_LIST_TOO_LARGE": "max.message.bytes",
    "INVALID_MSG_SIZE": "max.message.bytes",
    "TOPIC_AUTHORIZATION_FAILED": "ACL",
    "CLUSTER_AUTHORIZATION_FAILED": "ACL",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "ACL",
    "UNKNOWN_TOPIC_OR_PART": "skutrend topics create",
    "_UNKNOWN_TOPIC": "skutrend topics create",
    "_UNKNOWN_PARTITION": "skutrend topics create",
    "TOPIC_EXCEPTION": "skutrend topics create",
    "SASL_AUTHENTICATION_FAILED": "SKUTREND_KAFKA_SASL_",
    "UNSUPPORTED_SASL_MECHANISM": "SKUTREND_KAFKA_SASL_",
    "ILLEGAL_SASL_STATE": "SKUTREND_KAFKA_SASL_",
    "SECURITY_DISABLED": "SKUTREND_KAFKA_SASL_",
    "INVALID_RECORD": "change that setting",
    "INVALID_TIMESTAMP": "change that setting",
    "INVALID_REQUIRED_ACKS": "change that setting",
    "INVALID_TRANSACTION_TIMEOUT": "change that setting",
    "INVALID_CONFIG": "change that setting",
    "POLICY_VIOLATION": "change that setting",
    "UNSUPPORTED_COMPRESSION_TYPE": "change that setting",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT": "change that setting",
    "UNSUPPORTED_VERSION": "change that setting",
    "_UNSUPPORTED_FEATURE": "change that setting",
    "_INVALID_ARG": "change that setting",
}
FENCED = ["_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED"]


def kafka_error(name: str, *, fatal: bool = False) -> KafkaError:
    return KafkaError(getattr(KafkaError, name), f"said {name}", fatal)


class Answering:
    """Stands for librdkafka's producer, which answers everything with one error."""

    def __init__(self, error: KafkaError, config: dict[str, Any], *, heard: KafkaError | None = None) -> None:
        self._error, self._config, self._heard = error, config, heard

    def begin_transaction(self) -> None:
        raise KafkaException(self._error)

    def produce(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        raise KafkaException(self._error)

    def poll(self, _: float = 0) -> int:
        if self._heard is not None:
            self._config["error_cb"](self._heard)
        return 0

    def __len__(self) -> int:
        return 0

    flush = purge = poll


def told(
    monkeypatch: pytest.MonkeyPatch, error: KafkaError, *, transactional_id: str | None, heard: KafkaError | None = None
) -> Exception:
    """What a producer makes of an error of its producer. heard: the error that it has told on the side."""
    monkeypatch.setattr(clients, "producer", lambda config: Answering(error, config, heard=heard))
    output = OutputProducer({}, on_error=lambda _: None, transactional_id=transactional_id)
    with pytest.raises((Fenced, FlushFailed, Refused)) as raised:
        output.put_one("windows", b"k", b"v")
    return raised.value


@pytest.mark.parametrize("transactional_id", [None, "id"])
@pytest.mark.parametrize("name", MAY_PASS)
def test_an_error_that_may_pass_with_time_is_a_failed_flush(
    monkeypatch: pytest.MonkeyPatch, name: str, transactional_id: str | None
) -> None:
    found = told(monkeypatch, kafka_error(name), transactional_id=transactional_id)
    assert type(found) is FlushFailed
    assert str(found) == f"a record of key b'k' for windows was refused, {name}: said {name}"


@pytest.mark.parametrize("transactional_id", [None, "id"])
@pytest.mark.parametrize(("name", "remedy"), DO_NOT.items())
def test_an_error_that_does_not_pass_stops_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, remedy: str, transactional_id: str | None
) -> None:
    found = told(monkeypatch, kafka_error(name), transactional_id=transactional_id)
    assert type(found) is Refused
    assert str(found).startswith(f"a record of key b'k' for windows was refused, {name}: said {name}; ")
    assert remedy in str(found)


@pytest.mark.parametrize("name", FENCED)
def test_only_a_transactional_producer_is_fenced(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert type(told(monkeypatch, kafka_error(name), transactional_id="id")) is Fenced
    assert type(told(monkeypatch, kafka_error(name), transactional_id=None)) is FlushFailed


@pytest.mark.parametrize("name", ["UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"])
def test_a_topic_that_was_written_to_may_come_back_with_its_broker(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Such a producer believes a broker at once that has not read its own metadata yet; the next one asks again."""
    answering = Answering(kafka_error(name), {})
    monkeypatch.setattr(clients, "producer", lambda _: answering)
    output = OutputProducer({}, on_error=lambda _: None)
    with monkeypatch.context() as well:
        well.setattr(answering, "produce", lambda *_, **__: None)
        output.put_one("windows", b"k", b"v")
        assert output.commit(1) == 1
    with pytest.raises(FlushFailed, match=name):
        output.put_one("windows", b"k", b"v")
    with pytest.raises(Refused, match=name):
        output.put_one("alerts", b"k", b"v")


@pytest.mark.parametrize(("is_there", "kind"), [(False, Refused), (True, FlushFailed)])
def test_a_commit_that_does_not_say_what_was_not_delivered_is_looked_into(
    monkeypatch: pytest.MonkeyPatch, *, is_there: bool, kind: type[Exception]
) -> None:
    answering = Answering(kafka_error("_INCONSISTENT"), {})
    unknown = None if is_there else kafka_error("UNKNOWN_TOPIC_OR_PART")
    metadata = SimpleNamespace(topics={"windows": SimpleNamespace(error=unknown)})
    monkeypatch.setattr(answering, "list_topics", lambda *_, **__: metadata, raising=False)
    monkeypatch.setattr(clients, "producer", lambda _: answering)
    output = OutputProducer({}, on_error=lambda _: None, transactional_id="id")
    with pytest.raises(kind, match="said _INCONSISTENT" if is_there else r"windows: said UNKNOWN.*topics create"):
        output.put_one("windows", b"k", b"v")


def test_the_table_has_each_code_once_and_these_tests_know_all_of_it() -> None:
    known = {getattr(KafkaError, name) for name in DO_NOT}
    assert known == set(outbox_module._REFUSED)  # noqa: SLF001 - the very table
    others = {getattr(KafkaError, name) for name in (*MAY_PASS, *FENCED)}
    assert len(others) == len(MAY_PASS) + len(FENCED)
    assert not known & others


@pytest.mark.parametrize(
    ("name", "kind"),
    [("_FENCED", Fenced), ("INVALID_TRANSACTION_TIMEOUT", Refused), ("OUT_OF_ORDER_SEQUENCE_NUMBER", FlushFailed)],
)
def test_after_a_fatal_error_it_is_the_cause_that_counts(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Exception]
) -> None:
    """It used to be told as fenced whatever it was, and the partition to be opened anew for ever."""
    cause = kafka_error(name, fatal=True)
    found = told(monkeypatch, kafka_error("_FATAL", fatal=True), transactional_id="id", heard=cause)
    assert type(found) is kind
    assert f"{name}: said {name}" in str(found)


def test_a_fatal_error_whose_cause_nobody_tells_is_taken_for_fenced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(told(monkeypatch, kafka_error("_FATAL", fatal=True), transactional_id="id")) is Fenced
    assert type(told(monkeypatch, kafka_error("_FATAL", fatal=True), transactional_id=None)) is FlushFailed


def test_a_long_key_is_told_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "producer", lambda config: Answering(kafka_error("MSG_SIZE_TOO_LARGE"), config))
    output = OutputProducer({}, on_error=lambda _: None)
    with pytest.raises(Refused) as one:
        output.put_one("windows", b"k" * 1_000_000, b"v")
    with pytest.raises(Refused) as many:
        output.put("windows", [b"k" * 1_000_000], [b"v"])
    assert max(len(str(one.value)), len(str(many.value))) < 500
