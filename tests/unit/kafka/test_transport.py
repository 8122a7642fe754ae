"""Names private to Faust and aiokafka that streams/kafka/transport.py and streams/kafka/records.py lean on.

Most of them cannot be missed by the tests that read from a broker, but those would only say that nothing arrives.
"""

from __future__ import annotations

import asyncio
import inspect
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.structs import TopicPartition
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.kafka import consumer_thread, records, transport
from streams.kafka.assignor import CoAssignor
from streams.kafka.faust_app import build_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(what: Any) -> str:  # noqa: ANN401 - a class or a function
    return " ".join(inspect.getsource(what).split())


def private(what: Any, name: str) -> Any:  # noqa: ANN401 - whatever it is
    """Return an attribute of an object or a class, by a name that is not ours to use."""
    return getattr(what, name)


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator[transport.BatchConsumer]:
    """Build the consumer of an app that never starts."""
    app = build_app(group="g", brokers=["127.0.0.1:1"], client={}, datadir=tmp_path)
    app.loop = asyncio.new_event_loop()
    yield app.consumer
    private(app.consumer, "_thread").thread_loop.close()
    app.loop.close()


def test_the_pinned_versions_are_those_that_run() -> None:
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'"faust-streaming=={version("faust-streaming")}"' in pyproject
    assert f'=={version("aiokafka")}"' in pyproject


# ------------------------------------------------------------------ aiokafka, as streams/kafka/records.py overrides it
def test_the_fetcher_looks_partition_records_up_at_each_response_with_the_key_deserializer_fifth() -> None:
    assert parameters(PartitionRecords.__init__) == [
        "self",
        "tp",
        "records",
        "aborted_transactions",
        "fetch_offset",
        "key_deserializer",
        "value_deserializer",
        "check_crcs",
        "isolation_level",
    ]
    call = source(fetcher.Fetcher).split("= PartitionRecords(")
    assert len(call) == 2, "made in one place, by its name in the module"
    arguments = [each.strip() for each in call[1].split(")")[0].split(",")]
    assert len(arguments) >= 8
    assert not any("=" in each for each in arguments), "all by position"
    assert arguments[4] == "self._key_deserializer"


def test_partition_records_has_the_names_that_are_overridden() -> None:
    kind = PartitionRecords
    assert parameters(private(kind, "_unpack_records")) == ["self"]
    assert parameters(private(kind, "_consumer_record")) == ["self", "tp", "record"]
    text = source(kind)
    assert "self._tp = tp" in text
    assert "self.next_fetch_offset = fetch_offset" in text
    assert "self._records_iterator = self._unpack_records()" in text
    assert "self._key_deserializer = key_deserializer" in text
    # asked for before each batch, and by these names only: what stands in their place has no others
    assert "self._records = records self._aborted" in text
    assert text.count("self._records ") + text.count("self._records.") == 2
    assert "while records.has_next(): next_batch = records.next_batch() if self._check_crcs and not" in text
    assert text.count("records.") == text.count("records.has_next()") + text.count("records.next_batch()")
    # moved on before the record is handed out: a batch cut after it reaches to the next offset
    made = text.index("consumer_record = self._consumer_record(tp, record)")
    moved = text.index("self.next_fetch_offset = record.offset + 1", made)
    assert text.index("yield consumer_record", moved) > moved


def test_the_fetcher_asks_nothing_of_what_partition_records_yields() -> None:
    assert "next_fetch_offset" in source(fetcher.FetchResult)
    result = source(fetcher.FetchResult.getall)
    assert ".offset" not in result.replace("next_fetch_offset", ""), "a batch has no offset of its own"


def test_the_consumer_reads_these_attributes_when_it_starts() -> None:
    text = source(AIOKafkaConsumer)
    for name in (
        "_key_deserializer",
        "_group_instance_id",
        "_fetch_max_wait_ms",
        "_isolation_level",
        "_partition_assignment_strategy",
    ):
        assert f"self.{name} =" in source(AIOKafkaConsumer.__init__), name
        assert f"=self.{name}" in text, f"{name} is handed on after __init__"
    for name in ("seek", "seek_to_beginning", "committed", "commit", "assignment"):
        assert callable(getattr(AIOKafkaConsumer, name)), name
    assert "self._subscription = SubscriptionState(" in source(AIOKafkaConsumer.__init__)


# ---------------------------------------------------------------------- how far a partition can be read
def standing(consumer: transport.BatchConsumer, *assigned: TP) -> SubscriptionState:
    """Give the consumer's thread a subscription, as aiokafka keeps it."""
    subscription = SubscriptionState()
    if assigned:
        subscription.subscribe({"orders"})
        subscription.assign_from_subscribed([TopicPartition(*tp) for tp in assigned])
    private(consumer, "_thread")._consumer = SimpleNamespace(_subscription=subscription)  # noqa: SLF001
    return subscription


def test_what_is_known_of_a_partition_is_read_where_aiokafka_keeps_it(consumer: transport.BatchConsumer) -> None:
    tp = TP("orders", 0)
    consumer.app.loop.run_until_complete(_fill(consumer, tp))
    assert consumer.highwater(tp) == 7
    assert consumer.answered_ms(tp) is not None


async def _fill(consumer: transport.BatchConsumer, tp: TP) -> None:
    state = standing(consumer, tp).subscription.assignment.state_value(TopicPartition(*tp))
    assert (consumer.highwater(tp), consumer.answered_ms(tp)) == (None, None), "nothing was fetched yet"
    state.highwater, state.timestamp = 9, 99
    assert consumer.highwater(tp) == 9
    state.lso = -1
    assert consumer.highwater(tp) == 9
    state.lso = 7
    assert consumer.highwater(TP("orders", 1)) is None, "not ours"


def test_nothing_is_known_of_what_is_not_ours_or_not_there_any_more(consumer: transport.BatchConsumer) -> None:
    tp = TP("orders", 0)
    assert (consumer.highwater(tp), consumer.answered_ms(tp)) == (None, None), "no consumer"
    consumer.app.loop.run_until_complete(_unsubscribed(consumer))
    assert (consumer.highwater(tp), consumer.answered_ms(tp)) == (None, None), "nothing subscribed"


async def _unsubscribed(consumer: transport.BatchConsumer) -> None:
    standing(consumer)


def test_a_name_that_aiokafka_no_longer_has_is_no_silent_broker(consumer: transport.BatchConsumer) -> None:
    """It used to be swallowed, and the input to be taken for one whose broker does not answer."""
    state = SimpleNamespace(end=9)
    assignment = SimpleNamespace(state_value=lambda _: state)
    subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
    private(consumer, "_thread")._consumer = SimpleNamespace(_subscription=subscription)  # noqa: SLF001
    for asked in (consumer.highwater, consumer.answered_ms):
        with pytest.raises(AttributeError):
            asked(TP("orders", 0))


def test_a_client_asks_for_the_time_of_a_request_whenever_it_connects() -> None:
    assert "self._client = AIOKafkaClient(" in source(AIOKafkaConsumer.__init__)
    assert "self._request_timeout_ms =" in source(AIOKafkaClient.__init__)
    for connecting in (AIOKafkaClient.bootstrap, AIOKafkaClient._get_conn):  # noqa: SLF001 - which is where it does
        assert "request_timeout_ms=self._request_timeout_ms" in source(connecting)


def test_an_assignor_is_asked_through_these_methods() -> None:
    assert parameters(AbstractPartitionAssignor.assign) == ["cluster", "members"]
    assert parameters(AbstractPartitionAssignor.metadata) == ["topics"]
    assert parameters(AbstractPartitionAssignor.on_assignment) == ["assignment"]
    assert isinstance(CoAssignor(), AbstractPartitionAssignor)
    assert not getattr(CoAssignor, "__abstractmethods__", None)
    assert hasattr(AbstractPartitionAssignor, "name")


# ------------------------------------------------------------------ Faust, as streams/kafka/transport.py overrides it
@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
        (driver.AIOKafkaConsumerThread, "on_start", ["self"]),
        (
            driver.AIOKafkaConsumerThread,
            "_fetch_records",
            ["self", "consumer", "active_partitions", "timeout", "max_records"],
        ),
        (driver.AIOKafkaConsumerThread, "_seek_wait", ["self", "consumer", "partitions"]),
        (driver.AIOKafkaConsumerThread, "seek_wait", ["self", "partitions"]),
        (driver.AIOKafkaConsumerThread, "earliest_offsets", ["self", "partitions"]),
        (driver.AIOKafkaConsumerThread, "highwaters", ["self", "partitions"]),
        (driver.AIOKafkaConsumerThread, "highwater", ["self", "tp"]),
        (driver.AIOKafkaConsumerThread, "_ensure_consumer", ["self"]),
        (driver.AIOKafkaConsumerThread, "__post_init__", ["self"]),
        (driver.AIOKafkaConsumerThread, "call_thread", ["self", "fun", "args", "kwargs"]),
        (driver.Consumer, "_new_consumer_thread", ["self"]),
        (driver.Consumer, "_to_message", ["self", "tp", "record"]),
        (driver.Consumer, "getmany", ["self", "timeout"]),
        (driver.Consumer, "_wait_next_records", ["self", "timeout"]),
        (driver.Consumer, "pause_partitions", ["self", "tps"]),
        (driver.Consumer, "resume_partitions", ["self", "tps"]),
        (driver.Consumer, "on_buffer_drop", ["self", "tp"]),
        (driver.Consumer, "on_partitions_revoked", ["self", "revoked"]),
        (driver.Consumer, "seek_wait", ["self", "partitions"]),
        (driver.Consumer, "seek_to_committed", ["self"]),
        (driver.Consumer, "_new_offset", ["self", "tp"]),
        (driver.Consumer, "verify_event_path", ["self", "now", "tp"]),
        (driver.Consumer, "_get_active_partitions", ["self"]),
        (driver.Consumer, "assignment", ["self"]),
    ],
)
def test_faust_has_the_methods_that_are_overridden_or_called(kind: Any, name: str, expected: list[str]) -> None:  # noqa: ANN401 - a class
    assert parameters(getattr(kind, name)) == expected


@pytest.mark.parametrize("kind", [consumer_thread.BatchThread, transport.BatchConsumer, records.ColumnRecords])
def test_an_override_takes_what_the_original_takes(kind: type) -> None:
    base = kind.__mro__[1]
    overridden = [name for name, value in vars(kind).items() if inspect.isfunction(value) and hasattr(base, name)]
    assert len(overridden) >= 2
    for name in overridden:
        if name == "__init__":
            continue
        ours, theirs = inspect.signature(getattr(kind, name)), inspect.signature(getattr(base, name))
        assert len(ours.parameters) == len(theirs.parameters), f"{kind.__name__}.{name}"
        assert inspect.iscoroutinefunction(getattr(kind, name)) == inspect.iscoroutinefunction(getattr(base, name))
        assert inspect.isasyncgenfunction(getattr(kind, name)) == inspect.isasyncgenfunction(getattr(base, name))


def test_a_consumer_has_the_attributes_that_are_read_and_replaced(consumer: transport.BatchConsumer) -> None:
    assert isinstance(consumer, transport.BatchConsumer)
    assert isinstance(private(consumer, "_thread"), consumer_thread.BatchThread)
    assert private(consumer, "_paused_partitions") == set()
    assert private(consumer, "_buffered_partitions") == set()
    assert private(consumer, "_acked")[TP("orders", 0)] == []
    assert private(consumer, "_acked_index")[TP("orders", 0)] == set()
    for name in ("flow_active", "should_stop", "transport", "loop", "beacon"):
        assert hasattr(consumer, name), name
    assert not private(consumer, "_thread").seeks
    assert hasattr(consumer.app, "consumer_generation_id")


def test_faust_drops_what_lies_below_its_own_read_offset_and_nothing_else_hangs_on_that(
    consumer: transport.BatchConsumer,
) -> None:
    text = source(faust_consumer.Consumer)
    assert "self._read_offset" in text
    tp = TP("orders", 0)
    private(consumer, "_read_offset")[tp] = 7
    private(consumer, "_read_offset").update({tp: 9})
    assert private(consumer, "_read_offset")[tp] is None


def test_a_message_takes_the_batch_as_its_value() -> None:
    needed = {"topic", "partition", "offset", "timestamp", "timestamp_type", "headers", "key", "value", "checksum"}
    assert needed | {"tp", "generation_id"} <= set(parameters(ConsumerMessage.__init__))


def test_acks_commit_nothing_where_the_worker_resumes_from_its_own_offsets(consumer: transport.BatchConsumer) -> None:
    tp = TP("orders", 0)
    private(consumer, "_acked")[tp] = [4, 9]
    assert private(consumer, "_new_offset")(tp) == 10
    private(consumer, "_acked")[tp] = [19]

    async def own(_tps: set[TP]) -> dict[TP, int]:
        return {}

    consumer.transport.resume_offsets = own
    assert private(consumer, "_new_offset")(tp) is None
    assert private(consumer, "_acked")[tp] == [], "what was acked is not remembered for ever"


def test_a_full_queue_lets_no_fetch_wait_long_for_the_other_partitions(
    consumer: transport.BatchConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def wait(timeout: float) -> tuple[dict[TP, Any], None]:
        waited.append(timeout)
        return {}, None

    async def fetched() -> list[Any]:
        return [each async for each in consumer.getmany(timeout=1.0)]

    monkeypatch.setattr(consumer, "_wait_next_records", wait)
    orders, clicks = TP("orders", 0), TP("clicks", 0)
    consumer.resume_partitions([orders, clicks])
    for act in (lambda: None, lambda: consumer.on_buffer_full(orders), lambda: consumer.on_buffer_full(clicks)):
        act()
        assert consumer.app.loop.run_until_complete(fetched()) == []
    assert waited == [1.0, transport.WITHHELD_S], "with all queues full nobody is asked, and no partition read for all"
    consumer.on_buffer_drop(orders)
    consumer.app.loop.run_until_complete(fetched())
    consumer.on_buffer_drop(clicks)
    consumer.app.loop.run_until_complete(fetched())
    assert waited == [1.0, transport.WITHHELD_S, transport.WITHHELD_S, 1.0]


def test_the_scheme_leads_to_the_transport_also_without_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRANSPORTS, "aliases", {})
    transport.register()
    assert TRANSPORTS.by_name(transport.SCHEME) is transport.BatchTransport


def test_an_answer_is_as_old_as_it_is_whatever_becomes_of_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka stamps answers with the time of day: an hour back, and a silent broker would be heard for an hour."""
    now_ms, tp = 1_000, TopicPartition("orders", 0)
    stamps = [None, 1_700_000_000_000, 1_699_996_400_000, 1_700_007_200_000]
    monkeypatch.setattr(consumer_thread, "time", SimpleNamespace(monotonic_ns=lambda: now_ms * 1_000_000))
    thread: Any = SimpleNamespace(_answers={}, _state=lambda _: SimpleNamespace(timestamp=stamps[0]))
    assert consumer_thread.BatchThread.answered_ms(thread, tp) is None
    while len(stamps) > 1:
        del stamps[0]
        now_ms += 250
        answered_ms = now_ms
        for _ in range(5):
            assert consumer_thread.BatchThread.answered_ms(thread, tp) == answered_ms
            now_ms += 200
