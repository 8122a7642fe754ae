"""What librdkafka says while records are put and committed, and what it means."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import Fenced, FlushFailed, Refused
from streams.kafka import clients
from streams.kafka.broker_errors import Attempt
from streams.kafka.output_producer import REPORTED_BYTES, OutputProducer

if TYPE_CHECKING:
    from collections.abc import Callable


def local(name: str) -> int:
    """Code of an error of librdkafka's own."""
    code: int = getattr(KafkaError, name)
    return code


@pytest.fixture
def said() -> list[str]:
    return []


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
    "FENCED_INSTANCE_ID",  # the consumer hears of it, too, and knows the name
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
