"""The write path, on librdkafka's own mock cluster."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import Fenced, FlushFailed, Refused
from streams.kafka import clients
from streams.kafka.broker_errors import Attempt
from streams.kafka.embedded import PARTITIONS
from streams.kafka.murmur2 import partitions_of
from streams.kafka.output_producer import REPORTED_BYTES, OutputProducer
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
    with pytest.raises(FlushFailed, match="took none of 26 records"):
        output.has_room(by_s=began_s)  # the worker is to end by now
    with pytest.raises(FlushFailed, match="took none of 26 records within 1 s"):
        wait_for(output.has_room, within_s=30)


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
DO_NOT = [
    "MSG_SIZE_TOO_LARGE",
    "RECORD_LIST_TOO_LARGE",
    "INVALID_MSG_SIZE",
    "TOPIC_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "TOPIC_EXCEPTION",
    "SECURITY_DISABLED",
    "INVALID_RECORD",
    "INVALID_TIMESTAMP",
    "INVALID_REQUIRED_ACKS",
    "INVALID_TRANSACTION_TIMEOUT",
    "INVALID_CONFIG",
    "POLICY_VIOLATION",
    "UNSUPPORTED_COMPRESSION_TYPE",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    "UNSUPPORTED_VERSION",
    "_UNSUPPORTED_FEATURE",
    "_INVALID_ARG",
]
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
@pytest.mark.parametrize("name", DO_NOT)
def test_an_error_that_does_not_pass_stops_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, transactional_id: str | None
) -> None:
    found = told(monkeypatch, kafka_error(name), transactional_id=transactional_id)
    assert type(found) is Refused
    assert str(found).startswith(f"a record of key b'k' for windows was refused, {name}: said {name}; ")
    remedy = Attempt("Write", "windows", transactional_id=transactional_id or "").remedy(getattr(KafkaError, name))
    assert str(found).endswith(remedy)


@pytest.mark.parametrize("name", FENCED)
def test_only_a_transactional_producer_is_fenced(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert type(told(monkeypatch, kafka_error(name), transactional_id="id")) is Fenced
    assert type(told(monkeypatch, kafka_error(name), transactional_id=None)) is FlushFailed


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


def test_a_long_key_is_reported_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "producer", lambda config: Answering(kafka_error("MSG_SIZE_TOO_LARGE"), config))
    output = OutputProducer({}, on_error=lambda _: None)
    with pytest.raises(Refused) as one:
        output.put_one("windows", b"k" * 1_000_000, b"v")
    with pytest.raises(Refused) as many:
        output.put("windows", [b"k" * 1_000_000], [b"v"])
    assert max(len(str(one.value)), len(str(many.value))) < 500


# ---------------------------------------------------------------------- what passes and what does not
def failing(code: int, **how: bool) -> KafkaException:
    return KafkaException(KafkaError(code, "as the test says", **how))


class Producer:
    """A transactional producer of which every call does what the test says; else all goes well."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self.error_cb = properties["error_cb"]
        self.fails: dict[str, Exception] = {}
        self.refused: dict[str, int] = {}  # by topic, the code its records are answered with
        self.known = ("orders",)
        self.reported = 0
        self._reports: list[tuple[Any, KafkaError | None, Any]] = []
        self.fatal: KafkaError | None = None

    def _call(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]

    def init_transactions(self, _: float) -> None:
        self._call("init_transactions")

    def begin_transaction(self) -> None:
        self._call("begin_transaction")

    def commit_transaction(self, _: float) -> None:
        self._call("commit_transaction")

    def abort_transaction(self, _: float) -> None:
        self._call("abort_transaction")

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int = -1,
        on_delivery: Callable[[KafkaError | None, Any], None] | None = None,
        headers: object = None,
    ) -> None:
        assert headers is None or isinstance(headers, list)
        self._call("produce")
        assert partition >= -1
        if on_delivery is not None:
            self.reported += 1
            code = self.refused.get(topic)
            message = SimpleNamespace(topic=lambda: topic, offset=lambda: 41, key=key, value=value)
            self._reports.append((on_delivery, None if code is None else KafkaError(code), message))

    def poll(self, _: float) -> int:
        self._call("poll")
        if self.fatal is not None:
            self.error_cb(self.fatal)
        return 0

    def flush(self, _: float) -> int:
        self._call("flush")
        reports, self._reports = self._reports, []
        for told, error, message in reports:
            told(error, message)
        return 0

    def purge(self) -> None:
        """Nothing waits."""

    def list_topics(self, *, timeout: float) -> SimpleNamespace:
        assert timeout > 0
        return SimpleNamespace(topics=dict.fromkeys(self.known))


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> tuple[OutputProducer, Producer]:
    made: list[Producer] = []
    monkeypatch.setattr(clients, "producer", lambda properties: made.append(Producer(properties)) or made[0])
    return OutputProducer({}, on_error=said.append, transactional_id="shop-3"), made[0]


@pytest.mark.parametrize(
    ("code", "expected", "told"),
    [
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, Refused, "Write on the transactional id 'shop-3'"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, Refused, "IdempotentWrite on the cluster"),
        (KafkaError.INVALID_TRANSACTION_TIMEOUT, Refused, "SKUTREND_KAFKA_TRANSACTION_TIMEOUT_MS"),
        (KafkaError.PRODUCER_FENCED, Fenced, "could not be taken over, PRODUCER_FENCED"),
        (KafkaError.COORDINATOR_NOT_AVAILABLE, FlushFailed, "could not be taken over, COORDINATOR_NOT_AVAILABLE"),
    ],
)
def test_an_id_that_cannot_be_taken_over_says_whether_trying_again_helps(
    claimed: tuple[OutputProducer, Producer], code: int, expected: type, told: str
) -> None:
    output, producer = claimed
    producer.fails["init_transactions"] = failing(code, fatal=True)
    with pytest.raises(expected, match=told):
        output.init_transactions(0.1)


def test_a_topic_that_may_not_be_written_is_named_and_not_the_commit_that_it_fails(
    claimed: tuple[OutputProducer, Producer],
) -> None:
    output, producer = claimed
    producer.refused["windows"] = KafkaError.TOPIC_AUTHORIZATION_FAILED
    producer.fails["commit_transaction"] = failing(local("_INCONSISTENT"), txn_requires_abort=True)
    output.put("forecasts", [b"a"] * 9, [b"1"] * 9)
    output.put("windows", [b"a"] * 9, [b"1"] * 9)
    with pytest.raises(Refused, match=r"^some of 18 records .* windows answered .*Write on the topic 'windows'"):
        output.commit(1)


@pytest.mark.parametrize(
    ("lacking", "told"),
    [(["Write on the topic 'windows'"], "'windows'"), ([], "'forecasts, windows'")],  # brokers that do not say
)
def test_a_transaction_that_may_not_take_a_topic_in_is_reported_with_that_topic(
    claimed: tuple[OutputProducer, Producer], monkeypatch: pytest.MonkeyPatch, lacking: list[str], told: str
) -> None:
    monkeypatch.setattr("streams.kafka.rights.missing", lambda *_: lacking)
    output, producer = claimed
    producer.refused |= dict.fromkeys(("windows", "forecasts"), local("_PURGE_QUEUE"))
    producer.fails["commit_transaction"] = failing(KafkaError.TOPIC_AUTHORIZATION_FAILED, txn_requires_abort=True)
    output.put_one("windows", b"a", b"1")
    output.put_one("forecasts", b"a", b"1")
    with pytest.raises(Refused, match=f"Write on the topic {told}"):
        output.commit(1)


@pytest.mark.parametrize(
    ("known", "expected"), [(("orders",), Refused), ((), FlushFailed), (("orders", "windows"), FlushFailed)]
)
def test_a_topic_that_is_not_there_is_refused_where_the_metadata_agree(
    claimed: tuple[OutputProducer, Producer], known: tuple[str, ...], expected: type
) -> None:
    output, producer = claimed
    producer.known, producer.refused["windows"] = known, KafkaError.UNKNOWN_TOPIC_OR_PART
    producer.fails["commit_transaction"] = failing(local("_INCONSISTENT"), txn_requires_abort=True)
    output.put_one("windows", b"a", b"1")
    with pytest.raises(expected, match="windows answered UNKNOWN_TOPIC_OR_PART"):
        output.commit(1)


def test_a_fenced_producer_is_fenced_whatever_its_records_report(claimed: tuple[OutputProducer, Producer]) -> None:
    output, producer = claimed
    producer.refused["windows"] = local("_PURGE_QUEUE")
    producer.fails["commit_transaction"] = failing(local("_FENCED"), fatal=True)
    output.put_one("windows", b"a", b"1")
    with pytest.raises(Fenced, match="_FENCED"):
        output.commit(1)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, Refused),
        (KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, FlushFailed),
        (KafkaError.PRODUCER_FENCED, Fenced),
        (None, Fenced),  # the rightful owner is not to be driven out by a guess
    ],
)
def test_a_dead_producer_says_what_it_died_of(
    claimed: tuple[OutputProducer, Producer], cause: int | None, expected: type
) -> None:
    output, producer = claimed
    producer.fails["produce"] = failing(local("_FATAL"))
    producer.fatal = None if cause is None else KafkaError(cause, "of this", fatal=True)
    with pytest.raises(expected, match="_FATAL" if cause is None else "of this"):
        output.put_one("windows", b"a", b"1")


@pytest.mark.parametrize("cause", [KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, None])
def test_a_fatal_error_that_a_callback_swallowed_ends_the_flush_and_not_the_worker(
    claimed: tuple[OutputProducer, Producer], cause: int | None
) -> None:
    """`Producer.flush` calls back for the log after it met a fatal error, which is lost then."""
    output, producer = claimed
    producer.fails["flush"] = SystemError("<method 'flush' of ...> returned NULL without setting an exception")
    producer.fatal = None if cause is None else KafkaError(cause, "of this", fatal=True)
    output.put_one("windows", b"a", b"1")
    with pytest.raises(Fenced if cause is None else FlushFailed, match="fatal error" if cause is None else "of this"):
        output.commit(1)


def test_other_system_errors_are_bugs(claimed: tuple[OutputProducer, Producer]) -> None:
    output, producer = claimed
    producer.fails["flush"] = SystemError("bad argument to internal function")
    output.put_one("windows", b"a", b"1")
    with pytest.raises(SystemError, match="bad argument"):
        output.commit(1)


def test_few_records_report_and_all_that_are_large(claimed: tuple[OutputProducer, Producer]) -> None:
    output, producer = claimed
    output.put("windows", [b"k"] * 100, [b"v"] * 100)
    assert producer.reported == 1
    output.put("windows", [b"k"] * 3, [b"v", b"v" * REPORTED_BYTES, None])
    assert producer.reported == 3
    assert output.commit(1) == 103


def test_what_was_abandoned_is_not_told_of_the_next_flush(claimed: tuple[OutputProducer, Producer]) -> None:
    output, producer = claimed
    producer.refused["windows"] = local("_PURGE_QUEUE")
    output.put_one("windows", b"a", b"1")
    producer.flush(0)
    output.abort(1)
    producer.refused.clear()
    output.put_marked("changelog", b"meta", b"1", 0)
    assert output.commit(1) == 2
    assert output.marked_offset == 41
