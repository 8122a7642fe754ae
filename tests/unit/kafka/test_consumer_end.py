"""A consumer that cannot go on, or is to end."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    InconsistentGroupProtocolError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from faust.transport.drivers import aiokafka as driver

from schemas.errors import Broken, BrokerTrouble, Refused
from streams.kafka import consumer_thread, refusals, transport
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


def thread_of(consumer: transport.BatchConsumer) -> consumer_thread.BatchThread:
    found: consumer_thread.BatchThread = private(consumer, "_thread")
    return found


class Coordinator:
    """What aiokafka's says when it is asked."""

    def __init__(self, error: KafkaError | None, *, is_over: bool) -> None:
        self._error = error
        self._coordination_task = SimpleNamespace(done=lambda: is_over)

    def check_errors(self) -> None:
        if self._error is not None:
            raise self._error


def refusal(error: KafkaError | None, *, is_over: bool = False, unseen: frozenset[str]) -> Broken | None:
    """What a consumer whose coordinator and client say this is refused for."""
    scripted = SimpleNamespace(
        _coordinator=Coordinator(error, is_over=is_over),
        _client=SimpleNamespace(cluster=SimpleNamespace(unauthorized_topics=set(unseen))),
        _group_id="shop",
        subscription=lambda: frozenset({"orders", "clicks"}),
    )
    return refusals.of_consumer(scripted)


@pytest.mark.parametrize(
    ("error", "unseen", "told"),
    [
        (GroupAuthorizationFailedError("shop"), (), "Read on the group 'shop'"),
        (TopicAuthorizationFailedError("orders"), (), "Read on the topic 'orders'"),
        (InconsistentGroupProtocolError(), (), "no workers of this release"),
        (None, ("orders", "somebody-else-s"), "Read on the topic 'orders'"),
    ],
)
def test_what_the_group_s_coordinator_refuses_is_an_error_with_its_remedy(
    error: KafkaError | None, unseen: tuple[str, ...], told: str
) -> None:
    found = refusal(error, unseen=frozenset(unseen))
    assert isinstance(found, Refused)
    assert told in str(found)


def test_what_passes_is_logged_and_coordination_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    assert refusal(None, unseen=frozenset()) is None
    assert refusal(GroupCoordinatorNotAvailableError(), unseen=frozenset()) is None
    assert "trying again" in caplog.messages[-1]


def test_a_coordination_that_has_ended_in_an_error_is_a_reason_to_stop() -> None:
    ended = refusal(KafkaError("unexpected"), is_over=True, unseen=frozenset())
    assert isinstance(ended, BrokerTrouble)
    assert "start the worker again" in str(ended)


def test_a_refusal_calls_the_hook_once_whatever_is_refused_later(consumer: transport.BatchConsumer) -> None:
    told: list[Broken] = []
    consumer.transport.refused = told.append
    first = Refused("the missing right is Read on the group 'shop'")
    for reason in (first, Refused("another"), first):
        thread_of(consumer).refuse(reason)
    assert told == [first]


def test_a_refusal_ends_an_app_without_a_hook(
    consumer: transport.BatchConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed: list[BaseException] = []

    async def crash(reason: BaseException) -> None:
        crashed.append(reason)
        consumer.app.loop.stop()

    monkeypatch.setattr(consumer.app, "crash", crash)
    reason = Refused("the missing right is Read on the group 'shop'")
    consumer.app.loop.call_soon(thread_of(consumer).refuse, reason)
    consumer.app.loop.run_forever()
    assert crashed == [reason]


@pytest.mark.parametrize("source_of", ["coordinator", "fetch", "member", "assignment"])
def test_all_that_refuses_a_consumer_goes_one_way(
    consumer: transport.BatchConsumer, monkeypatch: pytest.MonkeyPatch, source_of: str
) -> None:
    thread, told = thread_of(consumer), list[Broken]()
    consumer.transport.refused = told.append
    reason = Refused("as the test says")

    async def fetched(*_: object, **__: object) -> None:
        raise GroupAuthorizationFailedError(*["shop"])

    async def story() -> None:
        made = private(thread, "_create_worker_consumer")(consumer.transport)
        if source_of == "coordinator":
            monkeypatch.setattr(consumer_thread, "WATCH_S", 0.0)
            monkeypatch.setattr(refusals, "of_consumer", lambda _: reason)
            thread._consumer = made  # noqa: SLF001  # as Faust sets it
            await private(thread, "_watch").fun(thread)
        elif source_of == "fetch":
            monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetched)
            with pytest.raises(Refused):
                await private(thread, "_fetch_records")(made, set())
        elif source_of == "member":
            made._coordinator = SimpleNamespace()  # noqa: SLF001  # as aiokafka makes it at its start
            monkeypatch.setattr(thread, "_create_consumer", lambda *_, **__: made)
            monkeypatch.setattr(made, "start", lambda: asyncio.sleep(0))
            await thread.on_start()
            made._coordinator.refused(reason)  # noqa: SLF001
        else:
            (assignor,) = private(made, "_partition_assignment_strategy")
            private(assignor, "_refused")(["clicks"])
        made._closed = True  # noqa: SLF001  # it was never started

    consumer.app.loop.run_until_complete(story())
    assert len(told) == 1
    assert isinstance(told[0], Refused)


def test_aiokafka_has_the_names_that_tell_of_refusals() -> None:
    assert "self._pending_exception = exc" in source(GroupCoordinator)
    assert "if self._coordination_task.done(): self._coordination_task.result()" in source(
        GroupCoordinator.check_errors
    )
    assert ClusterMetadata().unauthorized_topics == set()
    assert "self._group_id = group_id" in source(AIOKafkaConsumer)


def test_stopping_does_not_end_in_the_cancellation_that_aiokafka_has_itself_called_for(
    consumer: transport.BatchConsumer,
) -> None:
    """Else the thread would be gone without telling, and the process would wait for it for ever."""
    thread, closed = thread_of(consumer), []

    async def story() -> None:
        fetches = {asyncio.create_task(asyncio.sleep(60)) for _ in range(3)}
        await asyncio.sleep(0)

        async def stop() -> None:
            for fetch in fetches:  # as aiokafka.consumer.fetcher.Fetcher.close does
                fetch.cancel()
                await fetch

        async def close() -> None:
            closed.append(all(fetch.done() for fetch in fetches))

        scripted: Any = SimpleNamespace(
            stop=stop, _fetcher=SimpleNamespace(_pending_tasks=fetches), _client=SimpleNamespace(close=close)
        )
        thread._consumer = scripted  # noqa: SLF001  # as Faust sets it
        async with asyncio.timeout(5):
            await thread.on_thread_stop()

    asyncio.run(story())
    assert closed == [True]
    assert "for x in self._pending_tasks: x.cancel() await x" in source(fetcher.Fetcher.close), "what this is about"


def test_stopping_is_not_held_up_by_brokers_that_do_not_answer(
    consumer: transport.BatchConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "LEAVE_S", 0.05)
    thread = thread_of(consumer)

    async def story() -> None:
        scripted: Any = SimpleNamespace(stop=lambda: asyncio.sleep(60))
        thread._consumer = scripted  # noqa: SLF001  # as Faust sets it
        async with asyncio.timeout(5):
            await thread.on_thread_stop()

    asyncio.run(story())
